"""Local recordings without Airflow: what the submit operator does with a file, and its converted copy in a folder."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, SpeechKitError, StorageError, UnsupportedFormatError
from airflow_speechkit.recordings.audio.facts import AudioFacts, settle
from airflow_speechkit.recordings.conversion.convert import Converter, OnTruncated, measure, undecodable
from airflow_speechkit.recordings.conversion.decoding import open_source
from airflow_speechkit.recordings.conversion.plan import (
    EXTENSIONS,
    AudioStream,
    Conversion,
    check_audio_stream,
    plan_conversion,
)
from airflow_speechkit.recordings.cost import billed_seconds
from airflow_speechkit.recordings.upload import is_unwrapped, opened, read_as_uploaded, samples
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings, member_of
from airflow_speechkit.storage.disk import write_file

if TYPE_CHECKING:
    from typing import BinaryIO


class Action(StrEnum):
    """What the submit operator does with a local file if it has `upload_to`."""

    SUBMIT = "submit"  #: it is submitted as it is
    CONVERT = "convert"  #: it is converted, and the copy is submitted
    REFUSE = "refuse"  #: nothing is submitted


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What a file is, and what the submit operator does with it. What isn't known is None.

    :param path: the file
    :param format: of what the API takes the service's name for it, such as ``MP3``; otherwise codec and container, as
        ffmpeg names them: ``aac in mp4``
    :param sample_rate_hertz: samples a second and channel; 48,000 for OggOpus
    :param channels: how many channels
    :param duration_ms: its length, in milliseconds
    :param action: what the operator does
    :param converted_to: what it is converted to
    :param billed_seconds: what its recognition is billed, in seconds of two-channel audio; None if it is refused
    :param error: why it is refused
    """

    path: Path
    format: str | None = None
    sample_rate_hertz: int | None = None
    channels: int | None = None
    duration_ms: int | None = None
    action: Action = Action.REFUSE
    converted_to: AudioEncoding | None = None
    billed_seconds: int | None = None
    error: SpeechKitError | None = None


@dataclass(frozen=True, kw_only=True)
class ConvertedFile:
    """A converted copy.

    :param path: the copy
    :param encoding: its format
    :param sample_rate_hertz: samples a second and channel; 48,000 for OggOpus
    :param channels: how many channels
    :param duration_ms: its length, in milliseconds
    """

    path: Path
    encoding: AudioEncoding
    sample_rate_hertz: int
    channels: int
    duration_ms: int | None


def inspect_file(
    path: Path, settings: RecognitionSettings | None = None, *, audio_stream: int | None = None
) -> FileReport:
    """Report what a file is, and what the submit operator would do with it.

    Files are read completely, and those that are converted are decoded to their end: length and cost are those that the
    operator finds. Nothing is written.

    :param path: a local file
    :param settings: the API, and what samples without a header are; by default API v2
    :param audio_stream: which audio stream of a file that is converted, counted from 1; by default the one that a
        player would choose
    :return: the report; if the file is refused, with the error and whatever is known about the file
    """
    settings = settings or RecognitionSettings()
    report = FileReport(path=path)
    try:
        with opened(path) as file:
            try:
                facts = read_as_uploaded(file, path, settings)
                becomes = facts.encoding if is_unwrapped(facts) else None
                report = _report(path, AudioEncoding.WAV if becomes else facts.encoding, facts, becomes)
                settle(settings, facts)
                check_audio_stream(audio_stream, 1)
            except UnsupportedFormatError as reason:
                if not OnTruncated.FAIL.takes(reason):
                    raise
                with undecodable(reason, str(path)):
                    stream, flaw = measure(path, audio_stream)
                conversion = plan_conversion(stream, settings.api_version)
                report = _report(path, _format(path, stream), stream, conversion.encoding)
                settle(settings, _copy_facts(conversion, stream.duration_ms))
                if flaw is not None:
                    raise flaw from None
    except SpeechKitError as error:
        error.about_recording(str(path))
        return replace(report, action=Action.REFUSE, converted_to=None, billed_seconds=None, error=error)
    return report


def convert_file(
    path: Path,
    folder: Path,
    settings: RecognitionSettings | None = None,
    *,
    audio_stream: int | None = None,
    on_truncated: OnTruncated | str = OnTruncated.FAIL,
) -> ConvertedFile:
    """Convert a file to what the API takes, as the submit operator does. The copy appears as a whole or not at all.

    :param path: a local file
    :param folder: where to put the copy; it is created if it doesn't exist. The copy has the file's name, with another
        extension
    :param settings: the API; by default v2
    :param audio_stream: which audio stream of it, counted from 1; by default the one that a player would choose
    :param on_truncated: what to do with a file that is cut off or damaged: ``fail``, or ``convert`` what can be decoded
    :raises RecordingError: it can't be read or decoded, is cut off, is longer than the service takes, or the API takes
        it as it is
    :raises SettingsError: it has no such audio stream, or the extra `audio` isn't installed
    :raises StorageError: the copy can't be written, or there is such a file already
    """
    settings = settings or RecognitionSettings()
    on_truncated = member_of(OnTruncated, on_truncated, "on_truncated")
    with opened(path) as file, ExitStack() as stack:
        try:
            facts = read_as_uploaded(file, path, settings)
            settle(settings, facts)
            check_audio_stream(audio_stream, 1)
            if not is_unwrapped(facts):
                raise RecordingError(
                    f"API {settings.api_version} takes this file as it is ({facts.encoding})",
                    hint="Submit it unchanged",
                )
            content = stack.enter_context(samples(file, facts, str(path)))
        except UnsupportedFormatError as reason:
            if not on_truncated.takes(reason):
                raise
            stack.enter_context(undecodable(reason, str(path)))
            converter = Converter(
                partial(open_source, path, audio_stream), settings.api_version, str(path), on_truncated
            )
            made = stack.enter_context(converter.whole())
            content, facts = made.content, made.facts
            settle(settings, facts)
        copy = folder / f"{path.stem}{EXTENSIONS[facts.encoding]}"
        _write(content, copy)
    return ConvertedFile(
        path=copy,
        encoding=facts.encoding,
        sample_rate_hertz=facts.sample_rate_hertz,
        channels=facts.channels,
        duration_ms=facts.duration_ms,
    )


def _report(path: Path, name: str, found: AudioFacts | AudioStream, converted_to: AudioEncoding | None) -> FileReport:
    ms, channels = found.duration_ms, found.channels
    return FileReport(
        path=path,
        format=name,
        sample_rate_hertz=found.sample_rate_hertz,
        channels=channels,
        duration_ms=ms,
        action=Action.CONVERT if converted_to else Action.SUBMIT,
        converted_to=converted_to,
        billed_seconds=None if ms is None else billed_seconds(ms, channels),
    )


def _copy_facts(conversion: Conversion, duration_ms: int | None) -> AudioFacts:
    return AudioFacts(
        encoding=conversion.encoding,
        sample_rate_hertz=conversion.sample_rate_hertz,
        channels=conversion.channels,
        duration_ms=duration_ms,
        # Unknown before it is made. `plan_conversion` keeps samples below 1 GB, and 4 hours of OggOpus are far below.
        size_bytes=0,
    )


def _format(path: Path, stream: AudioStream) -> str:
    # libavformat names all containers of a family: mov,mp4,m4a,3gp,3g2,mj2.
    names = stream.container.split(",")
    extension = path.suffix[1:].lower()
    container = extension if extension in names else names[0]
    # A bare stream has no container. That of MPEG audio is called mp3, whatever its layer is.
    is_bare = stream.codec.endswith(container) or container == "mp3"
    return stream.codec if is_bare else f"{stream.codec} in {container}"


def _write(content: BinaryIO, copy: Path) -> None:
    content.flush()
    try:
        is_new = write_file(str(copy), Path(content.name), None, exclusive=True)
    except OSError as error:
        raise StorageError(
            f"{copy} can't be written ({error.strerror})", hint="Check the folder and its space"
        ) from None
    if not is_new:
        raise StorageError(
            f"{copy} exists already", hint="Choose another folder, or move that file away", retry_can_help=False
        )
