"""From what a user writes as `audio` to recordings that can be submitted: found, looked up, probed."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, SpeechKitError, TooLongError, UnsupportedFormatError
from airflow_speechkit.models import ObjectVersion, Recording, RecordingAddress
from airflow_speechkit.recordings.address import local_path
from airflow_speechkit.recordings.bucket import replaced
from airflow_speechkit.recordings.conversion.plan import check_audio_stream
from airflow_speechkit.recordings.conversion.silence import check_sound
from airflow_speechkit.recordings.filters import FilteredError, left_out
from airflow_speechkit.recordings.finder import CONCURRENCY, RecordingFinder
from airflow_speechkit.recordings.label_reading import read_labels
from airflow_speechkit.recordings.labels import LabelRules
from airflow_speechkit.recordings.parts import as_before, filled_in, in_parts, starts_of
from airflow_speechkit.recordings.places import Findings, Pair, Place, StoredObject, address_of, sides_of, uri_of
from airflow_speechkit.recordings.upload import (
    hash_of_file,
    read_local,
    read_whole,
    upload_as_it_is,
    upload_local,
)
from airflow_speechkit.settings import ApiVersion, AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_speechkit.recordings.bucket import Bucket
    from airflow_speechkit.recordings.conversion.copies import Copy

log = logging.getLogger(__name__)

#: How long a version counts as current. That of a recording that waits for the quota longer is read again.
VERSION_HOLDS = timedelta(seconds=60)


class ProbeMode(StrEnum):
    """How much of a recording is read before it is submitted."""

    AUTO = "auto"  #: head and tail, and all of it where these don't prove its length and a limit depends on that
    FULL = "full"  #: all of it, unless its head proves its length


@dataclass
class RecordingSource(RecordingFinder):
    """Finds recordings and reads them. Safe to share between threads.

    It takes what `RecordingFinder` takes, and these.

    :param read_whole: whether recordings are read to the end whose head and tail don't prove their length
    :param now: the time, UTC
    """

    read_whole: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def resolve(
        self, findings: Findings, labels: Sequence[Mapping[str, str]], rules: LabelRules | None = None
    ) -> list[Recording]:
        """Look up the versions of what was found, and their labels; local files are uploaded.

        A recording that can't be read, or whose labels are missing, is returned with its error, and the others as they
        are.

        :param findings: what `find` gave
        :param labels: those of each recording, which take precedence
        :param rules: where others are
        """
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="speechkit-resolve") as pool:
            found = list(pool.map(partial(self._labelled, rules or LabelRules()), findings.places))
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
        places = [
            Pair(place, one.other.address) if one.other else place
            for one in recordings
            for place in [one.address or self._place(one.audio_uri)]
        ]
        found = self.resolve(Findings(places), [one.labels for one in recordings])
        return [as_before(*both) for both in zip(recordings, found, strict=True)]

    def _resolve(self, place: Place) -> Recording:
        if isinstance(place, Recording):
            return place
        try:
            if isinstance(place, Path):
                try:
                    return self._local(place)
                except FilteredError as error:
                    return left_out(self._of_file(place), error)
            return self._stored(place if isinstance(place, StoredObject) else self._stat(place))
        except SpeechKitError as error:
            return self._failed(str(place) if isinstance(place, Path) else uri_of(place), error)

    def _labelled(self, rules: LabelRules, place: Place | Pair) -> tuple[Recording, SpeechKitError | None]:
        """Return a recording with the labels of its key and sidecar, and the error about those that it may lack."""
        recording = self._paired(place) if isinstance(place, Pair) else self._resolve(place)
        where = [address_of(side) for side in sides_of(place) if not isinstance(side, Recording)]
        # Its own error is the one to report, whatever its sidecar is.
        found = read_labels(rules, self._bucket, where, sidecar=recording.error is None)
        return replace(recording, labels=found.labels, error=recording.error or found.error), found.lacks

    def _paired(self, pair: Pair) -> Recording:
        stored: list[StoredObject] = []
        for side in pair:
            try:
                stored.append(self._side(side))
            except SpeechKitError as error:
                return replace(self._failed(uri_of(side), error), audio_uri=uri_of(pair.first))
        first, second = stored
        recording = self._stored(first)
        variant = f"{recording.variant}\npair={second.address.uri}\n{second.etag}".strip()
        return replace(recording, variant=variant, other=ObjectVersion(second.address, second.etag))

    def _side(self, place: Place) -> StoredObject:
        """Return where a side of a call is in a bucket; a local file is put there as it is."""
        if isinstance(place, Recording):
            raise place.error or RecordingError("This isn't an address", recording=place.audio_uri)
        if isinstance(place, Path):
            _check_there(place)
            return upload_as_it_is(self._copies_of_pairs(), place)
        return place if isinstance(place, StoredObject) else self._stat(place)

    def _stat(self, address: RecordingAddress) -> StoredObject:
        return self._bucket(address.conn_id).stat(address)

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

    def _of_file(self, path: Path) -> Recording:
        return Recording(audio_uri=uri_of(path), version=hash_of_file(path), settings=self.settings)

    def _local(self, path: Path) -> Recording:
        _check_there(path)
        folder = self._copies()
        if folder is not None:
            try:
                probe = upload_local(folder, path)
            except TooLongError as error:
                if not folder.takes(error):
                    raise
                # Its parts are made of what is in the bucket.
                return self._stored(upload_as_it_is(folder, path))
            return filled_in(self._stored(probe.stored), probe.facts)
        if self.settings.api_version is not ApiVersion.V3:
            raise RecordingError(
                "A local file has to be uploaded first: API v2 takes links to Object Storage only",
                recording=str(path),
                hint="Set `upload_to='s3://bucket/prefix/'`",
            )
        facts = read_local(path, self.settings, self.filters)
        return filled_in(replace(self._of_file(path), size_bytes=facts.size_bytes), facts)

    def probe(self, recording: Recording) -> Recording:
        """Read what a recording in a bucket is, and settle its settings and its cost; or why it is left out.

        :raises RecordingError: it can't be read, isn't what the settings say, or has just been replaced
        :raises StorageError: the storage can't be reached
        """
        if recording.address is None:
            return recording
        try:
            if recording.other is not None:
                return self._probe_pair(recording, recording.address, recording.other)
            return self._probe(recording, recording.address)
        except FilteredError as error:
            return left_out(recording, error)

    def _probe(self, recording: Recording, address: RecordingAddress) -> Recording:
        copies, bucket = self._copies(), self._bucket(address.conn_id)
        etag, exact, filters = recording.version, self.read_whole, self.filters
        try:
            probe = bucket.probe(address, self.settings, etag=etag, exact=exact, filters=filters)
            check_audio_stream(self.audio_stream, 1)
            if self.filters.skip_silent:
                check_sound(probe.facts, bucket.content(probe.stored))
        except UnsupportedFormatError as error:
            if copies is None or not copies.takes(error):
                raise
            version = self._version(ObjectVersion(address, recording.version))
            return self._with_copies(recording, copies.copies_of([version], starts_of(recording), error))
        return filled_in(replace(recording, settings=self.settings, checked_at=self.now()), probe.facts)

    def _probe_pair(self, recording: Recording, address: RecordingAddress, other: ObjectVersion) -> Recording:
        sides = [self._version(ObjectVersion(address, recording.version)), self._version(other)]
        return self._with_copies(recording, self._copies_of_pairs().copies_of(sides, starts_of(recording)))

    def _version(self, one: ObjectVersion) -> tuple[Bucket, StoredObject]:
        bucket = self._bucket(one.address.conn_id)
        return bucket, bucket.stat(one.address, one.etag)

    def content(self, one: ObjectVersion) -> Iterator[bytes]:
        """Read a recording in a bucket from front to back, in the version that was found; two requests.

        :raises RecordingError: it was replaced or removed, or may not be read
        :raises StorageError: the storage can't be reached
        """
        bucket, stored = self._version(one)
        yield from bucket.content(stored)

    def _with_copies(self, recording: Recording, made: Sequence[Copy]) -> Recording:
        """Return a recording, or a pair, with the copy that is submitted in its place, or with its parts."""
        is_in_parts, settings = recording.part is not None or len(made) > 1, self.settings
        if is_in_parts and settings.audio_encoding is AudioEncoding.LINEAR16_PCM:
            # It says how to read samples without a header, and their parts may be of another encoding.
            settings = replace(settings, audio_encoding=None, sample_rate_hertz=None, audio_channel_count=None)
        copied = []
        for one in made:
            address = one.stored.address
            found = replace(
                recording,
                settings=settings,
                copy=ObjectVersion(address, one.stored.etag),
                link=address.link(self.storage_endpoint),
                checked_at=self.now(),
            )
            copied.append((one.start_ms, filled_in(found, one.facts)))
        return in_parts(recording, copied) if is_in_parts else copied[0][1]

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
            if hashlib.sha256(content).hexdigest() != recording.version:
                raise replaced(recording.audio_uri)
            return content
        if recording.version is None or (recording.checked_at and self.now() - recording.checked_at < VERSION_HOLDS):
            return None
        sent = recording.copy or ObjectVersion(recording.address, recording.version)
        if self._stat(sent.address).etag != sent.etag:
            raise replaced(recording.audio_uri)
        return None


def _check_there(path: Path) -> None:
    if not path.is_absolute() and not path.exists():
        raise RecordingError(
            "This is neither an address nor a file on this worker",
            recording=str(path),
            hint="For a key in a bucket, name the bucket too: `bucket='my-bucket'`, or s3://my-bucket/key",
        )
