"""From what a user writes as `audio` to recordings that can be submitted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.batch import ToSubmit
from airflow_speechkit.errors import RecordingError, SettingsError, SpeechKitError, without_query
from airflow_speechkit.recordings.address import RecordingAddress, local_path, parse_address
from airflow_speechkit.recordings.cost import billed_seconds
from airflow_speechkit.recordings.pattern import is_pattern, parse_pattern
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.recordings.audio.facts import AudioFacts
    from airflow_speechkit.recordings.bucket import Bucket, Probe, Stat
    from airflow_speechkit.settings import RecognitionSettings

#: Recordings that are looked at side by side.
LOOKERS = 16

#: How long a look at a recording holds good, in seconds. One that waits for the quota is looked at again.
LOOK_HOLDS_S = 60.0


def audio_list(audio: Any) -> list[str]:
    """Make a list of what `audio` is.

    :param audio: an address, or a list or lazy sequence of them
    :raises SettingsError: it is empty, or holds something else
    """
    found = [audio] if isinstance(audio, str) or not isinstance(audio, Iterable) else list(audio)
    for one in found:
        if not isinstance(one, str) or not one.strip():
            raise SettingsError(f"`audio` holds a {type(one).__name__} where an address (a string) belongs")
        if one.strip() == "None":
            raise SettingsError(
                "`audio` is the text 'None': a template found nothing",
                todo="Look at the template, and why the upstream task has returned nothing; its `.output` can be given "
                "as it is, without a template",
            )
    if not found:
        raise SettingsError("`audio` is an empty list", todo="Give it at least one recording, or a prefix")
    return [one.strip() for one in found]


def labels_for(labels: Any, count: int) -> list[dict[str, str]]:
    """Give each recording its labels.

    :param labels: one mapping for all, or a list with one for each
    :param count: how many recordings there are
    :raises SettingsError: the list has another length, or a label has no value
    """
    if isinstance(labels, str):
        raise SettingsError(
            "`labels` is a text, and has to be a mapping of names to texts, or a list of them",
            todo="A template makes a text of everything, unless the DAG has render_template_as_native_obj=True: write "
            "a mapping with templates for values, or give it an upstream's `.output`",
        )
    each = [labels or {}] * count if labels is None or isinstance(labels, Mapping) else list(labels)
    if len(each) != count:
        raise SettingsError(f"`labels` is a list of {len(each)}, for {count} recordings")
    for one in each:
        if not isinstance(one, Mapping) or not all(isinstance(name, str) for name in one):
            raise SettingsError("`labels` holds something that isn't a mapping of names to texts")
        for name, value in one.items():
            if value is None:
                raise SettingsError(
                    f"The label {name!r} is None: it would stand beside the rows as the text 'None'",
                    todo="Leave it out where there is nothing to say",
                )
    return [{name: str(value) for name, value in one.items()} for one in each]


@dataclass(frozen=True)
class _Look:
    """What was found at a link, and when."""

    address: RecordingAddress
    version: str | None
    at: float


@dataclass
class Intake:
    """Looks recordings up, reads what they are, and hands them to the service.

    :param hook: the service's connection
    :param settings: what the user asked for
    :param aws_conn_id: the storage's connection for addresses that name none
    :param upload_to: where local files go first; v3 takes small ones without
    :param clock: seconds
    """

    hook: SpeechKitHook
    settings: RecognitionSettings
    aws_conn_id: str
    upload_to: str | None = None
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _addresses: dict[str, RecordingAddress] = field(default_factory=dict)
    #: By the link that the service gets.
    _seen: dict[str, _Look] = field(default_factory=dict)
    #: Of local files, by their address.
    _versions: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def recordings(
        self, audio: Sequence[str], labels: Any, check_length: Callable[[int], None] = lambda _: None
    ) -> list[ToSubmit]:
        """Find the recordings that addresses and patterns stand for, with their versions.

        One that can't be found brings its error along; it doesn't hold up the others.

        :param check_length: is told how many there are before any of them is looked at or uploaded
        :raises RecordingError: a pattern's bucket can't be listed
        """
        whole = any(is_pattern(one) for one in audio)
        if whole and labels is not None and not isinstance(labels, Mapping):
            raise SettingsError("`labels` is a list, and a prefix or glob stands for any number of recordings")
        looks = list(self._looks(audio))
        check_length(len(looks))
        each = labels_for(labels, len(looks))
        with ThreadPoolExecutor(LOOKERS, thread_name_prefix="speechkit-look") as pool:
            found = list(pool.map(lambda look: look(), looks))
        return [replace(item, labels=own) for item, own in zip(found, each, strict=True)]

    def _looks(self, audio: Sequence[str]) -> Iterator[Any]:
        for one in audio:
            if is_pattern(one):
                pattern = parse_pattern(one)
                for listed in self._bucket(pattern.conn_id).find(pattern):
                    yield lambda listed=listed: self._listed(listed.address, listed.stat)
            else:
                yield lambda one=one: self._look(one)

    def _listed(self, address: RecordingAddress, stat: Stat) -> ToSubmit:
        try:
            return self._item(address, stat)
        except RecordingError as error:
            return ToSubmit(audio_uri=address.uri, version=_version(stat), settings=self.settings, error=error)

    def _look(self, text: str) -> ToSubmit:
        from airflow_speechkit.api.endpoints import Endpoints

        try:
            path = local_path(text)
            if path is not None:
                return self._local(path)
            # The service's own storage goes by its real name also where another one stands for it.
            address = parse_address(text, {Endpoints().storage: None, self.hook.endpoints.storage: None})
            return self._item(address, self._bucket(address.conn_id).stat(address))
        except SpeechKitError as error:
            return ToSubmit(
                audio_uri=error.recording or without_query(text), version=None, settings=self.settings, error=error
            )

    def _item(self, address: RecordingAddress, stat: Stat) -> ToSubmit:
        self._addresses[address.uri] = address
        link = address.link(self.hook.endpoints.storage)
        self._note(link, address, stat)
        return ToSubmit(
            audio_uri=address.uri,
            version=_version(stat),
            settings=self.settings,
            link=link,
            size_bytes=stat.size,
        )

    def _note(self, link: str, address: RecordingAddress, stat: Stat) -> None:
        self._seen[link] = _Look(address, _version(stat), self.clock())

    def _local(self, path: Path) -> ToSubmit:
        if self.upload_to is not None:
            from airflow_speechkit.recordings.upload import parse_upload_to, upload_local

            folder = parse_upload_to(self.upload_to)
            return self._probed(upload_local(self._bucket(folder.conn_id), path, folder, self.settings))
        if self.settings.api_version is not ApiVersion.V3:
            raise RecordingError(
                "A local file has to be uploaded first: API v2 takes links to Object Storage only",
                recording=str(path),
                todo="Set `upload_to='s3://bucket/prefix/'`",
            )
        from airflow_speechkit.api.v3 import check_inline
        from airflow_speechkit.recordings.audio import settle
        from airflow_speechkit.recordings.upload import read_local, read_whole

        facts = read_local(path, self.settings)
        address = path.absolute().as_uri()
        check_inline(facts.size_bytes)
        version = self._versions[address] = hashlib.sha256(read_whole(path)).hexdigest()
        item = ToSubmit(
            audio_uri=address, version=version, settings=self.settings, link=address, size_bytes=facts.size_bytes
        )
        return _known(item, settle(self.settings, facts), facts)

    def _probed(self, probe: Probe) -> ToSubmit:
        return _known(self._item(probe.address, probe.stat), probe.settings, probe.facts)

    def prepare(self, item: ToSubmit) -> ToSubmit:
        """Read what a recording is, and settle its settings and its cost.

        :raises RecordingError: it can't be read, isn't what the settings say, or has just been replaced
        """
        if item.duration_ms is not None or item.audio_uri not in self._addresses:
            return item
        address = self._addresses[item.audio_uri]
        probe = self._bucket(address.conn_id).probe(address, self.settings)
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


def _known(item: ToSubmit, settings: RecognitionSettings, facts: AudioFacts) -> ToSubmit:
    return replace(
        item,
        settings=settings,
        duration_ms=facts.duration_ms,
        channels=facts.channels,
        billed_seconds=None if facts.duration_ms is None else billed_seconds(facts.duration_ms, facts.channels),
    )
