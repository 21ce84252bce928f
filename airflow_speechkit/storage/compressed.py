"""Compressed bytes from outside, inflated only as far as somebody has said that they may be."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

from airflow_speechkit.errors import AnswerUnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: An answer of more bytes is archived unread: ten times the largest one that is to be expected. Four hours of audio,
#: the service's limit, have some 43,000 words at three a second. In v3 each word stands in a final and in its
#: refinement with its times (about 85 bytes each time) and in the text of both (20 each time), which with the envelope
#: of an utterance for every ten words makes 280 bytes a word, 12 MB. v2 has about 160 bytes a word.
LARGEST_ANSWER_BYTES = 128 << 20

#: So much of an answer that isn't read whole tells what it is.
_HEAD_BYTES = 64 << 10

_CHUNK_BYTES = 64 << 10
_STEP_BYTES = 1 << 20
_GZIP = 31
_MAGIC = b"\x1f\x8b"


class Packed(bytes):
    """The gzip stream of an answer that is too large to be read: it is archived as it is."""

    def head(self) -> bytes:
        """Return the beginning of the answer; nothing where it can't be inflated."""
        try:
            return zlib.decompressobj(_GZIP).decompress(self, _HEAD_BYTES)
        except zlib.error:
            return b""


class _Inflater:
    """Inflates gzip streams that lie one behind the other, in pieces of a bounded size."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)
        self._has_more = False

    @property
    def is_complete(self) -> bool:
        """Whether all that was begun has come to its end."""
        return self._stream.eof

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Give what comes of some more bytes.

        :raises zlib.error: they are damaged
        """
        while chunk or self._has_more:
            if self._stream.eof:
                # Zeros behind the end are padding.
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    return
                self._stream = zlib.decompressobj(_GZIP)
            piece = self._stream.decompress(chunk, _STEP_BYTES)
            self._has_more = len(piece) == _STEP_BYTES and not self._stream.eof
            chunk = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            yield piece


class BrokenBodyError(Exception):
    """A response's body that can't be taken; the text says why, without any of it."""


class Body:
    """A response's body, taken in as it comes: plain up to the limit, and compressed from there on.

    :param encoding: what ``Content-Encoding`` says
    :param largest_bytes: the limit. What is still larger when it is compressed isn't taken at all, nor are more than
        eight times as many plain bytes: somebody sends without an end
    :raises BrokenBodyError: the encoding isn't known
    """

    def __init__(self, encoding: str | None, largest_bytes: int = LARGEST_ANSWER_BYTES) -> None:
        named = (encoding or "identity").strip().lower()
        if named not in ("identity", "gzip", "x-gzip"):
            raise BrokenBodyError("the answer is compressed in a way that was not asked for")
        self._gzipped = named != "identity"
        self._largest_bytes = largest_bytes
        self._plain = io.BytesIO()
        self._packed = io.BytesIO()
        self._inflater = _Inflater()
        self._deflater: zlib._Compress | None = None
        self._is_over = False
        self._taken_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes.

        :raises BrokenBodyError: they can't be inflated, or are too many
        """
        self._taken_bytes += len(chunk)
        if self._gzipped:
            self._packed.write(chunk)
            if not self._is_over:
                self._inflate(chunk)
        elif self._deflater is not None:
            self._packed.write(self._deflater.compress(chunk))
        else:
            self._plain.write(chunk)
            if self._plain.tell() > self._largest_bytes:
                self._is_over = True
                self._deflater = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
                self._packed.write(self._deflater.compress(self._plain.getbuffer()))
                self._plain = io.BytesIO()
        if self._packed.tell() > self._largest_bytes or self._taken_bytes > 8 * self._largest_bytes:
            raise BrokenBodyError(f"it is many times larger than any answer ({self._taken_bytes:,} bytes and more)")

    def _inflate(self, chunk: bytes) -> None:
        try:
            for piece in self._inflater.pieces(chunk):
                self._plain.write(piece)
                if self._plain.tell() > self._largest_bytes:
                    self._is_over = True
                    self._plain = io.BytesIO()
                    return
        except zlib.error:
            raise BrokenBodyError("it says that it is gzip, and isn't") from None

    def whole(self) -> bytes:
        """Return the body once all of it has come: its bytes, or `Packed` where they are too many.

        :raises BrokenBodyError: it is cut off
        """
        if self._deflater is not None:
            self._packed.write(self._deflater.flush())
        if self._is_over:
            return Packed(self._packed.getvalue())
        if self._gzipped and self._packed.tell() and not self._inflater.is_complete:
            raise BrokenBodyError("it is cut off")
        return self._plain.getvalue()


def is_gzip(raw: bytes) -> bool:
    """Tell whether this begins as gzip does."""
    return raw.startswith(_MAGIC)


def inflated(raw: bytes, most_bytes: int) -> bytes:
    """Inflate gzip, if it has no more bytes than may be held.

    :param raw: one gzip stream, or several behind each other
    :param most_bytes: how many bytes may come of it
    :raises AnswerUnreadableError: they would be more
    :raises ValueError: it is damaged
    """
    # The last four bytes of a stream are its length, unless it is cut off: where that is too much, nothing is held.
    is_held = int.from_bytes(raw[-4:], "little") <= most_bytes
    size_bytes, plain, inflater = 0, io.BytesIO(), _Inflater()
    try:
        for at in range(0, len(raw), _CHUNK_BYTES):
            for piece in inflater.pieces(raw[at : at + _CHUNK_BYTES]):
                size_bytes += len(piece)
                check_size(size_bytes, most_bytes)
                if is_held:
                    plain.write(piece)
    except zlib.error:
        raise ValueError("it is damaged") from None
    if not inflater.is_complete or not is_held:
        raise ValueError("it is cut off")
    return plain.getvalue()


def check_size(size_bytes: int, most_bytes: int) -> None:
    """Check that an answer has no more bytes than may be held.

    :raises AnswerUnreadableError: it has
    """
    if size_bytes > most_bytes:
        raise AnswerUnreadableError(
            f"It has more than {most_bytes:,} bytes, and with this `memory_mib` there is no memory for more",
            hint="Raise `memory_mib`",
            retry="ends in the same way until then",
            retry_can_help=False,
        )
