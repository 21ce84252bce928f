"""From what a user writes as `audio` to recordings that can be submitted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError, SettingsError, SpeechKitError
from airflow_speechkit.models import Recording
from airflow_speechkit.operators.audio import labels_for
from airflow_speechkit.recordings.address import RecordingAddress, local_path, parse_address
from airflow_speechkit.recordings.cost import billed_seconds
from airflow_speechkit.recordings.finding import Choice, find_recordings, nothing_found
from airflow_speechkit.recordings.pattern import is_pattern, parse_pattern
from airflow_speechkit.redaction import clean_address
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.recordings.audio import AudioFacts
    from airflow_speechkit.recordings.bucket import Bucket, Probe, Stat
    from airflow_speechkit.settings import RecognitionSettings

#: Recordings that are looked at side by side.
LOOKERS = 16

#: How long a look at a recording holds good, in seconds. One that waits for the quota is looked at again.
LOOK_HOLDS_S = 60.0


@dataclass(frozen=True)
class _Look:
    """What was found at a link, and when."""

    address: RecordingAddress
    version: str | None
    at: float


@dataclass(frozen=True)
class Finding:
    """What was found, and has still to be looked at.

    :param looks: one for each recording, in the order of the addresses
    :param by_pattern: whether one of the addresses was a prefix or a glob
    """

    looks: list[Callable[[], Recording]]
    by_pattern: bool


@dataclass
class Intake:
    """Looks recordings up, reads what they are, and hands them to the service.

    :param hook: the service's connection
    :param settings: what the user asked for
    :param aws_conn_id: the storage's connection for addresses that name none
    :param upload_to: where local files go first; v3 takes small ones without
    :param exact: whether recordings are read through whose head doesn't prove their length
    :param clock: seconds
    """

    hook: SpeechKitHook
    settings: RecognitionSettings
    aws_conn_id: str
    upload_to: str | None = None
    exact: bool = False
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _addresses: dict[str, RecordingAddress] = field(default_factory=dict)
    #: By the link that the service gets.
    _seen: dict[str, _Look] = field(default_factory=dict)
    #: Of local files, by their address.
    _versions: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def find(self, audio: str | Sequence[str], choice: Choice | None = None) -> Finding:
        """Find what addresses, prefixes and globs stand for. Only the last two are looked up, and nothing is uploaded.

        An object whose key is the glob itself comes first. An address of a list that can't be found brings its error
        along: it doesn't hold up the others.

        :param choice: which objects of prefixes and globs are meant
        :raises SettingsError: there is a `choice`, and neither a prefix nor a glob to choose from
        :raises RecordingNotFoundError: the only prefix or glob matches nothing
        :raises RecordingError: its bucket can't be listed
        """
        alone = isinstance(audio, str)
        texts = [audio] if isinstance(audio, str) else audio
        with ThreadPoolExecutor(LOOKERS, thread_name_prefix="speechkit-find") as pool:
            found = list(pool.map(lambda text: self._find(text, choice or Choice(), alone=alone), texts))
        by_pattern = any(one.by_pattern for one in found)
        if choice is not None and not by_pattern:
            raise SettingsError(
                "`include` and `exclude` choose from what a prefix or a glob stands for, and `audio` has neither",
                hint="Remove them, or give the prefix in place of the keys that are listed there",
            )
        return Finding([look for one in found for look in one.looks], by_pattern)

    def _find(self, text: str, choice: Choice, *, alone: bool) -> Finding:
        if not is_pattern(text):
            return Finding([lambda: self._look(text)], by_pattern=False)
        try:
            pattern = parse_pattern(text)
            bucket = self._bucket(pattern.conn_id)
            if not pattern.is_prefix:
                literal = RecordingAddress(pattern.bucket, pattern.glob, pattern.conn_id)
                stat = bucket.stat_if_there(literal)
                if stat is not None:
                    return Finding([lambda: self._listed(literal, stat)], by_pattern=False)
            listing = find_recordings(bucket, pattern, choice)
            if not listing.found:
                raise nothing_found(listing)
        except SpeechKitError as error:
            if alone:
                raise
            failed = self._failed(text, error)
            return Finding([lambda: failed], by_pattern=True)
        return Finding([partial(self._listed, one.address, one.stat) for one in listing.found], by_pattern=True)

    def recordings(self, finding: Finding, labels: Any) -> list[Recording]:
        """Look at the recordings that were found, for their versions; local files are uploaded.

        One that can't be read brings its error along; it doesn't hold up the others.

        :param finding: what `find` gave
        :raises SettingsError: `labels` are for another number of recordings
        """
        if finding.by_pattern and labels is not None and not isinstance(labels, Mapping):
            raise SettingsError("`labels` is a list, and a prefix or glob stands for any number of recordings")
        each = labels_for(labels, len(finding.looks))
        with ThreadPoolExecutor(LOOKERS, thread_name_prefix="speechkit-look") as pool:
            found = list(pool.map(lambda look: look(), finding.looks))
        return [replace(item, labels=own) for item, own in zip(found, each, strict=True)]

    def again(self, items: Sequence[Recording]) -> list[Recording]:
        """Look again at recordings that were found before.

        :param items: what an earlier visit found
        """
        with ThreadPoolExecutor(LOOKERS, thread_name_prefix="speechkit-look") as pool:
            found = list(pool.map(lambda item: self._look(item.address), items))
        return [replace(item, labels=before.labels) for item, before in zip(found, items, strict=True)]

    def _listed(self, address: RecordingAddress, stat: Stat) -> Recording:
        try:
            return self._item(address, stat)
        except RecordingError as error:
            return Recording(audio_uri=address.uri, version=_version(stat), settings=self.settings, error=error)

    def _look(self, text: str) -> Recording:
        from airflow_speechkit.api.endpoints import Endpoints

        try:
            path = local_path(text)
            if path is not None:
                return self._local(path)
            # The service's own storage goes by its real name also where another one stands for it.
            address = parse_address(text, {Endpoints().storage: None, self.hook.endpoints.storage: None})
            return self._item(address, self._bucket(address.conn_id).stat(address))
        except SpeechKitError as error:
            return self._failed(text, error)

    def _failed(self, text: str, error: SpeechKitError) -> Recording:
        return Recording(
            audio_uri=error.recording or clean_address(text), version=None, settings=self.settings, error=error
        )

    def _item(self, address: RecordingAddress, stat: Stat) -> Recording:
        self._addresses[address.uri] = address
        link = address.link(self.hook.endpoints.storage)
        self._note(link, address, stat)
        return Recording(
            audio_uri=address.uri,
            version=_version(stat),
            settings=self.settings,
            link=link,
            size_bytes=stat.size,
            address=address.text,
        )

    def _note(self, link: str, address: RecordingAddress, stat: Stat) -> None:
        self._seen[link] = _Look(address, _version(stat), self.clock())

    def _local(self, path: Path) -> Recording:
        if not path.is_absolute() and not path.exists():
            raise RecordingError(
                "This is neither an address nor a file on this worker",
                recording=str(path),
                hint="Of a key in a bucket name the bucket too: `bucket='my-bucket'`, or s3://my-bucket/key",
            )
        if self.upload_to is not None:
            from airflow_speechkit.recordings.upload import parse_upload_to, upload_local

            folder = parse_upload_to(self.upload_to)
            return self._probed(upload_local(self._bucket(folder.conn_id), path, folder, self.settings))
        if self.settings.api_version is not ApiVersion.V3:
            raise RecordingError(
                "A local file has to be uploaded first: API v2 takes links to Object Storage only",
                recording=str(path),
                hint="Set `upload_to='s3://bucket/prefix/'`",
            )
        from airflow_speechkit.api.submission import check_inline
        from airflow_speechkit.recordings.audio import settle
        from airflow_speechkit.recordings.upload import read_local, read_whole

        facts = read_local(path, self.settings)
        address = path.absolute().as_uri()
        check_inline(facts.size_bytes)
        version = self._versions[address] = hashlib.sha256(read_whole(path)).hexdigest()
        item = Recording(
            audio_uri=address, version=version, settings=self.settings, link=address, size_bytes=facts.size_bytes
        )
        return _known(item, settle(self.settings, facts), facts)

    def _probed(self, probe: Probe) -> Recording:
        return _known(self._item(probe.address, probe.stat), probe.settings, probe.facts)

    def prepare(self, item: Recording) -> Recording:
        """Read what a recording is, and settle its settings and its cost.

        :raises RecordingError: it can't be read, isn't what the settings say, or has just been replaced
        """
        if item.channels is not None or item.audio_uri not in self._addresses:
            return item
        address = self._addresses[item.audio_uri]
        probe = self._bucket(address.conn_id).probe(address, self.settings, exact=self.exact)
        if _version(probe.stat) != item.version:
            raise _replaced("while it was looked at", item.audio_uri)
        self._note(item.link, address, probe.stat)
        return _known(item, probe.settings, probe.facts)

    def send(self, link: str, settings: RecognitionSettings) -> Operation:
        """Hand one recording to the service: by its link, or a small local file along with the request.

        :raises RecordingError: it isn't what was looked at any more; nothing has been sent
        :raises SpeechKitError: what the service answered
        """
        path = local_path(link) if link.startswith("file:") else None
        if path is None:
            self._check_unchanged(link)
            return self.hook.submit(link, settings)
        from airflow_speechkit.recordings.upload import read_whole

        content = read_whole(path)
        if hashlib.sha256(content).hexdigest() != self._versions[link]:
            raise RecordingError(
                "The file was changed after it was looked at",
                recording=link,
                retry="takes the file as it is then",
                retry_can_help=True,
            )
        return self.hook.submit_inline(content, settings)

    def _check_unchanged(self, link: str) -> None:
        """Look again where the look was long ago: thousands wait for the quota for hours.

        What the service read then would be on record, and paid for, as what is there no more.
        """
        look = self._seen.get(link)
        if look is None or look.version is None or self.clock() - look.at < LOOK_HOLDS_S:
            return
        stat = self._bucket(look.address.conn_id).stat(look.address)
        if _version(stat) != look.version:
            raise _replaced("while it waited to be sent", look.address.uri)
        self._note(link, look.address, stat)

    def _bucket(self, conn_id: str | None) -> Bucket:
        from airflow_speechkit.hooks.storage import storage_client
        from airflow_speechkit.recordings.bucket import Bucket

        name = conn_id or self.aws_conn_id
        with self._lock:
            if name not in self._buckets:
                client = storage_client(name, storage_endpoint=self.hook.endpoints.storage, connections=LOOKERS)
                self._buckets[name] = Bucket(client)
            return self._buckets[name]


def _version(stat: Stat) -> str | None:
    return stat.etag or stat.version


def _replaced(when: str, uri: str) -> RecordingError:
    return RecordingError(
        f"The recording was replaced {when}", recording=uri, retry="takes the new one", retry_can_help=True
    )


def _known(item: Recording, settings: RecognitionSettings, facts: AudioFacts) -> Recording:
    return replace(
        item,
        settings=settings,
        duration_ms=facts.duration_ms,
        channels=facts.channels,
        billed_seconds=None if facts.duration_ms is None else billed_seconds(facts.duration_ms, facts.channels),
    )
