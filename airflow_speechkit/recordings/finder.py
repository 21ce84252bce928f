"""From what a user writes as `audio` to where each recording is, and which two are a pair."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.endpoints import Endpoints
from airflow_speechkit.errors import RecordingError, RecordingNotFoundError, SettingsError, SpeechKitError
from airflow_speechkit.models import Recording, RecordingAddress
from airflow_speechkit.recordings.address import local_path, parse_address
from airflow_speechkit.recordings.audio.reading import AUDIO_HEAD_BYTES, is_audio, is_audio_name
from airflow_speechkit.recordings.bucket import Bucket
from airflow_speechkit.recordings.conversion.convert import OnTruncated
from airflow_speechkit.recordings.conversion.copies import CopyFolder
from airflow_speechkit.recordings.conversion.decoding import import_av
from airflow_speechkit.recordings.filters import NO_FILTERS, Filters
from airflow_speechkit.recordings.pairs import PairRules, describe
from airflow_speechkit.recordings.pattern import alternatives, glob_matches, has_magic, is_pattern, parse_pattern
from airflow_speechkit.recordings.places import Findings, Pair, uri_of
from airflow_speechkit.recordings.upload import parse_upload_to
from airflow_speechkit.redaction import clean_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from airflow_speechkit.recordings.pattern import RecordingPattern
    from airflow_speechkit.recordings.places import StoredObject
    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)

#: How many recordings are looked up, or their first bytes read, side by side.
CONCURRENCY = 16
#: What macOS leaves beside a file on other filesystems: it has the file's extension, and no sound.
_APPLE_DOUBLE = "._"


class Convert(StrEnum):
    """Whether recordings are converted that the service doesn't take as they are."""

    AUTO = "auto"  #: where `upload_to` says where to put the copies
    NEVER = "never"


@dataclass(frozen=True)
class Choice:
    """Globs that say which of the listed objects are meant.

    A glob without a slash is matched with the last part of the key, at any depth. One with a slash is matched with the
    key, and with what the key has behind the listed prefix.

    :param include: take only what matches one of these; without any, everything
    :param exclude: leave out what matches one of these
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def takes(self, key: str, folder: str) -> bool:
        """Return whether an object is meant.

        :param folder: the folder that was listed: what every key begins with, up to a slash
        """

        def matches(globs: Sequence[str]) -> bool:
            names = (key, key.removeprefix(folder))
            return any(glob_matches(one, name) for glob in globs for one in _at_any_depth(glob) for name in names)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


@dataclass
class RecordingFinder:
    """Finds recordings, without reading them. Safe to share between threads.

    :param settings: what the user asks for
    :param storage_endpoint: URL of the storage that the service reads from
    :param aws_conn_id: the storage's connection for addresses that name none
    :param connect: makes a boto3 S3 client of a connection id; called once for each
    :param upload_to: where local files and converted copies are put; API v3 takes small local files without
    :param convert: whether to convert what the service doesn't take as it is
    :param audio_stream: which audio stream of a converted file to take, counted from 1; by default the one that a
        player would choose
    :param on_truncated: what to do where a recording that is converted is cut off or damaged
    :param filters: which recordings are left out
    :param split: whether to cut what is longer than the service takes, and to submit its parts
    """

    settings: RecognitionSettings
    storage_endpoint: str
    aws_conn_id: str
    connect: Callable[[str], Any]
    upload_to: str | None = None
    convert: Convert = Convert.AUTO
    audio_stream: int | None = None
    on_truncated: OnTruncated = OnTruncated.FAIL
    filters: Filters = NO_FILTERS
    split: bool = False
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def find(self, audio: str | Sequence[str | tuple[str, str]], choice: Choice | None = None) -> Findings:
        """Find what addresses, prefixes and globs match. Only the last two are looked up, and nothing is uploaded.

        An object whose key equals the glob takes precedence. An item of a list that can't be found has its error
        in its place, and the others are found.

        :param audio: one address, prefix or glob, or several; an item can be a pair of addresses
        :param choice: which objects of prefixes and globs are meant
        :raises SettingsError: there is a `choice`, and neither a prefix nor a glob to choose from
        :raises RecordingNotFoundError: the only prefix or glob matches nothing
        :raises RecordingError: its bucket can't be listed
        """
        chosen = choice or Choice()
        if isinstance(audio, str):
            found = [self._find(audio, chosen)]
        else:
            with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="speechkit-find") as pool:
                found = list(pool.map(lambda text: self._find_if_there(text, chosen), audio))
        by_pattern = any(one.by_pattern for one in found)
        if choice is not None and not by_pattern:
            raise SettingsError(
                "`include` and `exclude` choose from what a prefix or a glob matches, and `audio` has neither",
                hint="Remove them, or give the prefix in place of the keys",
            )
        return Findings([place for one in found for place in one.places], by_pattern)

    def _find_if_there(self, text: str | tuple[str, str], choice: Choice) -> Findings:
        if not isinstance(text, str):
            pair = Pair(self._place(text[0]), self._place(text[1]))
            if uri_of(pair.first) != uri_of(pair.second):
                return Findings([pair])
            error = RecordingError("Both sides of this pair are the same recording", hint="Correct the list `audio`")
            return Findings([self._failed(uri_of(pair.first), error)])
        try:
            return self._find(text, choice)
        except SpeechKitError as error:
            return Findings([self._failed(text, error)], by_pattern=True)

    def _find(self, text: str, choice: Choice) -> Findings:
        if not is_pattern(text):
            return Findings([self._place(text)])
        pattern = parse_pattern(text)
        bucket = self._bucket(pattern.conn_id)
        if not pattern.is_prefix:
            literal = RecordingAddress(pattern.bucket, pattern.glob, pattern.conn_id)
            stored = bucket.stat_if_there(literal)
            if stored is not None:
                return Findings([stored])
        return Findings(find_recordings(bucket, pattern, choice, self._copies()), by_pattern=True)

    def _place(self, text: str) -> RecordingAddress | Path | Recording:
        try:
            # The service's own storage is known by its real name also where another one takes its place.
            return local_path(text) or parse_address(text, (Endpoints().storage, self.storage_endpoint))
        except SpeechKitError as error:
            return self._failed(text, error)

    def pair_up(self, findings: Findings, rules: PairRules) -> Findings:
        """Make pairs of what was found. A side without the other one brings its error along, if it has to fail.

        :param findings: what `find` gave
        :param rules: what belongs together
        :raises SettingsError: a keyword is missing that pairs need
        """
        matches = rules.match(findings.places)
        if rules.patterns is not None:
            log.info("Found %s", describe(matches))
        if rules.patterns is not None or any(isinstance(one.place, Pair) for one in matches):
            self._copies_of_pairs()
            import_av()
        elif rules.channel_labels is not None:
            raise SettingsError(
                "`channel_labels` names the sides of pairs, and there are no pairs", hint="Set `pair`, or use `labels`"
            )
        places = [
            one.place
            if one.error is None or isinstance(one.place, Pair)
            else self._failed(uri_of(one.place), one.error)
            for one in matches
        ]
        return Findings(places, findings.by_pattern, [one.roles for one in matches])

    def uri_of(self, text: str) -> str:
        """Return the address of a recording as archives and tables have it, however it is written."""
        return uri_of(self._place(text))

    def _failed(self, text: str, error: SpeechKitError) -> Recording:
        uri = error.recording or clean_address(text)
        return Recording(audio_uri=uri, version=None, settings=self.settings, error=error)

    def _copies(self) -> CopyFolder | None:
        if self.upload_to is None:
            return None
        folder = parse_upload_to(self.upload_to)
        return CopyFolder(
            self._bucket(folder.conn_id),
            folder,
            self.settings,
            self.audio_stream,
            self.on_truncated,
            self.filters,
            self.split,
            self.convert is Convert.AUTO,
        )

    def _copies_of_pairs(self) -> CopyFolder:
        copies = self._copies()
        if copies is None or not copies.converts:
            raise SettingsError(
                "Two recordings of a call are joined into a copy, which needs `upload_to` and convert='auto'",
                hint="Set `upload_to='s3://bucket/prefix/'`",
            )
        return copies

    def _bucket(self, conn_id: str | None) -> Bucket:
        name = conn_id or self.aws_conn_id
        with self._lock:
            if name not in self._buckets:
                self._buckets[name] = Bucket(self.connect(name))
            return self._buckets[name]


@cache
def _at_any_depth(glob: str) -> list[str]:
    return [one if "/" in one else f"**/{one}" for one in alternatives(glob)]


def find_recordings(
    bucket: Bucket, pattern: RecordingPattern, choice: Choice, copies: CopyFolder | None = None
) -> list[StoredObject]:
    """List the recordings that a prefix or a glob matches, by key.

    An object with an audio extension is a recording, whatever its bytes are: probing it ends in an error that names it.
    So is an object with the extension that the glob names (``*.dat``). For all others the first bytes decide, which
    takes a request for each.

    :param bucket: the bucket's client
    :param pattern: what to list
    :param choice: which of the objects are meant
    :param copies: where converted copies are put: they are no recordings of their own
    :raises RecordingNotFoundError: there is none
    :raises RecordingError: the bucket isn't there, or may not be listed
    :raises StorageError: the storage can't be reached, or is in trouble
    """
    # A copy would be paid for beside its source.
    listed = [one for one in bucket.find(pattern) if copies is None or not copies.has(one.address)]
    chosen = [one for one in listed if choice.takes(one.address.key, pattern.folder)]
    named = {_extension(one) for one in pattern.globs} - {""}

    def is_recording(one: StoredObject) -> bool:
        name = one.address.name
        if one.address.key.endswith("/") or name.startswith(_APPLE_DOUBLE):
            return False
        if is_audio_name(name) or _extension(name) in named:
            return True
        return one.size_bytes > 0 and _begins_like_audio(bucket, one)

    with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="speechkit-find") as pool:
        decided = list(zip(chosen, pool.map(is_recording, chosen), strict=True))
    found = [one for one, recording in decided if recording]
    left_out = ""
    if len(found) < len(listed):
        others = [one.address.key for one, recording in decided if not recording]
        left_out = (
            f". Left out: {len(listed) - len(chosen):,} by `include` and `exclude`, {len(others):,} that aren't audio"
            f"{f' (such as {others[0]})' if others else ''}"
        )
        log.info("%s matches %s recordings%s", pattern.uri, f"{len(found):,}", left_out)
    if not found:
        raise RecordingNotFoundError(
            f"No recording matches this prefix or glob{left_out}",
            recording=pattern.uri,
            hint="Check the bucket and the key. If it has a date, check the schedule too: on Airflow 3, `ds` of a cron "
            "schedule is the day that has just begun (docs/nightly.md)",
            retry="lists the bucket again",
        )
    return found


def _begins_like_audio(bucket: Bucket, one: StoredObject) -> bool:
    try:
        return is_audio(bucket.first_bytes(one.address, AUDIO_HEAD_BYTES))
    except RecordingNotFoundError:
        return False
    except RecordingError:
        # It may be a recording: probing it fails too, and the error says why.
        return True


def _extension(name: str) -> str:
    """Return an extension in lower case; nothing where there is none, or only as a pattern."""
    _, dot, extension = name.rpartition("/")[2].rpartition(".")
    return extension.lower() if dot and not has_magic(extension) else ""
