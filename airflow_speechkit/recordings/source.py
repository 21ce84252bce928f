"""From what a user writes as `audio` to recordings that can be submitted: found, looked up, probed."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.endpoints import Endpoints
from airflow_speechkit.errors import RecordingError, SettingsError, SpeechKitError, UnsupportedFormatError
from airflow_speechkit.models import ConvertedCopy, Recording, RecordingAddress
from airflow_speechkit.recordings.address import local_path, parse_address
from airflow_speechkit.recordings.audio.facts import AudioFacts, settle
from airflow_speechkit.recordings.bucket import Bucket, Probe, StoredObject
from airflow_speechkit.recordings.conversion.convert import OnTruncated
from airflow_speechkit.recordings.conversion.copies import CopyFolder
from airflow_speechkit.recordings.conversion.plan import check_audio_stream
from airflow_speechkit.recordings.conversion.silence import check_sound
from airflow_speechkit.recordings.cost import billed_seconds
from airflow_speechkit.recordings.filters import NO_FILTERS, FilteredError, Filters, left_out
from airflow_speechkit.recordings.finding import Choice, find_recordings
from airflow_speechkit.recordings.label_reading import LabelReader
from airflow_speechkit.recordings.labels import LabelRules
from airflow_speechkit.recordings.pattern import is_pattern, parse_pattern
from airflow_speechkit.recordings.places import Findings, Place, address_of, uri_of
from airflow_speechkit.recordings.upload import hash_of_file, parse_upload_to, read_local, read_whole, upload_local
from airflow_speechkit.redaction import clean_address
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)

#: How many recordings are looked up side by side.
CONCURRENCY = 16

#: How long a version is taken for the current one. That of a recording which waits for the quota is read again.
VERSION_HOLDS = timedelta(seconds=60)


class Convert(StrEnum):
    """Whether recordings are converted that the service doesn't take as they are."""

    AUTO = "auto"  #: where `upload_to` says where to put the copies
    NEVER = "never"


class ProbeMode(StrEnum):
    """How much of a recording is read before it is submitted."""

    AUTO = "auto"  #: head and tail, and all of it where these don't prove its length and a limit depends on that
    FULL = "full"  #: all of it, unless its head proves its length


@dataclass
class RecordingSource:
    """Finds recordings and reads them. Safe to share between threads.

    :param settings: what the user asks for
    :param storage_endpoint: URL of the storage that the service reads from
    :param aws_conn_id: the storage's connection for addresses that name none
    :param connect: makes a boto3 S3 client of a connection id; called once for each
    :param upload_to: where local files and converted copies are put; API v3 takes small local files without
    :param convert: whether to convert what the service doesn't take as it is
    :param audio_stream: which audio stream of a converted file to take, counted from 1; by default the one that a
        player would choose
    :param on_truncated: what to do where a recording that is converted is cut off or damaged
    :param read_whole: whether recordings are read to the end whose head and tail don't prove their length
    :param filters: which recordings are left out
    :param now: the time, UTC
    """

    settings: RecognitionSettings
    storage_endpoint: str
    aws_conn_id: str
    connect: Callable[[str], Any]
    upload_to: str | None = None
    convert: Convert = Convert.AUTO
    audio_stream: int | None = None
    on_truncated: OnTruncated = OnTruncated.FAIL
    read_whole: bool = False
    filters: Filters = NO_FILTERS
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def find(self, audio: str | Sequence[str], choice: Choice | None = None) -> Findings:
        """Find what addresses, prefixes and globs match. Only the last two are looked up, and nothing is uploaded.

        An object whose key equals the glob takes precedence. An item of a list that can't be found brings its error
        along: it doesn't hold up the others.

        :param audio: one address, prefix or glob, or several
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

    def _find_if_there(self, text: str, choice: Choice) -> Findings:
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

    def uri_of(self, text: str) -> str:
        """Return the address of a recording as archives and tables have it, however it is written."""
        return uri_of(self._place(text))

    def resolve(
        self, findings: Findings, labels: Sequence[Mapping[str, str]], rules: LabelRules | None = None
    ) -> list[Recording]:
        """Look up the versions of what was found, and their labels; local files are uploaded.

        A recording that can't be read, or whose labels are missing, brings its error along: it doesn't hold up the
        others.

        :param findings: what `find` gave
        :param labels: those of each recording, which take precedence
        :param rules: where others are
        """
        reader = LabelReader(rules or LabelRules(), self._bucket)
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="speechkit-resolve") as pool:
            found = list(pool.map(partial(self._labelled, reader), findings.places))
        missing = {error.recording: error for _, error in found if error is not None}
        if missing:
            log.warning(
                "%s recordings lack labels from their key or sidecar (on_missing_labels='pass'), such as: %s",
                f"{len(missing):,}",
                next(iter(missing.values())),
            )
        own_labels = zip(found, labels, strict=True)
        return [replace(recording, labels={**recording.labels, **own}) for (recording, _), own in own_labels]

    def resolve_again(self, recordings: Sequence[Recording]) -> list[Recording]:
        """Look up the versions of recordings that an earlier visit of the task found."""
        places = [one.address or self._place(one.audio_uri) for one in recordings]
        return self.resolve(Findings(places), [one.labels for one in recordings])

    def _resolve(self, place: Place) -> Recording:
        if isinstance(place, Recording):
            return place
        try:
            if isinstance(place, Path):
                return self._local_unless_filtered(place)
            return self._stored(place if isinstance(place, StoredObject) else self._stat(place))
        except SpeechKitError as error:
            return self._failed(str(place) if isinstance(place, Path) else uri_of(place), error)

    def _labelled(self, reader: LabelReader, place: Place) -> tuple[Recording, SpeechKitError | None]:
        """Return a recording with the labels of its key and sidecar, and the error about those that it may lack."""
        recording = self._resolve(place)
        if isinstance(place, Recording):
            return recording, None
        # Its own error is the one to report, whatever its sidecar is.
        found = reader.read(address_of(place), sidecar=recording.error is None)
        return replace(recording, labels=found.labels, error=recording.error or found.error), found.lacks

    def _stat(self, address: RecordingAddress) -> StoredObject:
        return self._bucket(address.conn_id).stat(address)

    def _failed(self, text: str, error: SpeechKitError) -> Recording:
        uri = error.recording or clean_address(text)
        return Recording(audio_uri=uri, version=None, settings=self.settings, error=error)

    def _stored(self, stored: StoredObject) -> Recording:
        return Recording(
            audio_uri=stored.address.uri,
            version=stored.etag,
            settings=self.settings,
            variant="" if self.audio_stream is None else f"audio_stream={self.audio_stream}",
            address=stored.address,
            link=stored.address.link(self.storage_endpoint),
            checked_at=self.now(),
            size_bytes=stored.size_bytes,
        )

    def _local_unless_filtered(self, path: Path) -> Recording:
        try:
            return self._local(path)
        except FilteredError as error:
            # It isn't uploaded.
            uri, version = path.absolute().as_uri(), hash_of_file(path)
            return left_out(Recording(audio_uri=uri, version=version, settings=self.settings), error)

    def _local(self, path: Path) -> Recording:
        if not path.is_absolute() and not path.exists():
            raise RecordingError(
                "This is neither an address nor a file on this worker",
                recording=str(path),
                hint="For a key in a bucket, name the bucket too: `bucket='my-bucket'`, or s3://my-bucket/key",
            )
        if self.upload_to is not None:
            folder = parse_upload_to(self.upload_to)
            probe = upload_local(
                self._bucket(folder.conn_id), path, folder, self.settings, self._copies(), self.filters
            )
            return _probed(self._stored(probe.stored), probe.settings, probe.facts)
        if self.settings.api_version is not ApiVersion.V3:
            raise RecordingError(
                "A local file has to be uploaded first: API v2 takes links to Object Storage only",
                recording=str(path),
                hint="Set `upload_to='s3://bucket/prefix/'`",
            )
        facts, content = read_local(path, self.settings, self.filters)
        recording = Recording(
            audio_uri=path.absolute().as_uri(),
            version=_hash(content),
            settings=self.settings,
            size_bytes=facts.size_bytes,
        )
        return _probed(recording, settle(self.settings, facts), facts)

    def probe(self, recording: Recording) -> Recording:
        """Read what a recording in a bucket is, and settle its settings and its cost; or why it is left out.

        :raises RecordingError: it can't be read, isn't what the settings say, or has just been replaced
        :raises StorageError: the storage can't be reached
        """
        if recording.address is None:
            return recording
        try:
            return self._probe(recording, recording.address)
        except FilteredError as error:
            if error.version not in (None, recording.version):
                raise _replaced("while it was read", recording) from None
            return left_out(recording, error)

    def _probe(self, recording: Recording, address: RecordingAddress) -> Recording:
        copies, copy, bucket = self._copies(), None, self._bucket(address.conn_id)
        try:
            probe = bucket.probe(address, self.settings, exact=self.read_whole, filters=self.filters)
            check_audio_stream(self.audio_stream, 1)
            if self.filters.skip_silent:
                check_sound(probe.facts, bucket.content(probe.stored))
        except UnsupportedFormatError as error:
            if copies is None or not copies.takes(error):
                raise
            stored = bucket.stat(address)
            if stored.etag != recording.version:
                raise _replaced("while it was read", recording) from None
            copy, facts = copies.copy_of(bucket, stored, error)
            probe = Probe(stored, facts, settle(self.settings, facts))
        found = self._stored(probe.stored)
        if found.version != recording.version:
            raise _replaced("while it was read", recording)
        if copy is not None:
            link = copy.address.link(self.storage_endpoint)
            found = replace(found, copy=ConvertedCopy(copy.address, copy.etag), link=link)
        return _probed(replace(found, labels=recording.labels), probe.settings, probe.facts)

    def _copies(self) -> CopyFolder | None:
        if self.upload_to is None or self.convert is Convert.NEVER:
            return None
        folder = parse_upload_to(self.upload_to)
        return CopyFolder(
            self._bucket(folder.conn_id),
            folder,
            self.settings.api_version,
            self.audio_stream,
            self.on_truncated,
            self.filters,
        )

    def check_unchanged(self, recording: Recording) -> bytes | None:
        """Check that a recording is still the version that was resolved, right before it is sent.

        Thousands wait for the quota for hours. If one were replaced meanwhile, the service would read the new version,
        and it would be on record as the old one.

        Of a converted one the copy counts: it is of the version that is on record.

        :return: the bytes of a local file, which are sent along with the request; None for an object in a bucket
        :raises RecordingError: it was changed or removed
        :raises StorageError: the storage can't be reached
        """
        if recording.address is None:
            path = local_path(recording.audio_uri)
            content = b"" if path is None else read_whole(path)
            if _hash(content) != recording.version:
                raise _replaced("after it was found", recording)
            return content
        if recording.version is None or (recording.checked_at and self.now() - recording.checked_at < VERSION_HOLDS):
            return None
        sent = recording.copy or ConvertedCopy(recording.address, recording.version)
        if self._stat(sent.address).etag != sent.etag:
            raise _replaced("while it waited to be sent", recording)
        return None

    def _bucket(self, conn_id: str | None) -> Bucket:
        name = conn_id or self.aws_conn_id
        with self._lock:
            if name not in self._buckets:
                self._buckets[name] = Bucket(self.connect(name))
            return self._buckets[name]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replaced(when: str, recording: Recording) -> RecordingError:
    return RecordingError(
        f"The recording was replaced {when}",
        recording=recording.audio_uri,
        retry="submits the new one",
        retry_can_help=True,
    )


def _probed(recording: Recording, settings: RecognitionSettings, facts: AudioFacts) -> Recording:
    return replace(
        recording,
        settings=settings,
        duration_ms=facts.duration_ms,
        channels=facts.channels,
        billed_seconds=None if facts.duration_ms is None else billed_seconds(facts.duration_ms, facts.channels),
    )
