"""The hook: SpeechKit for tasks, and its connection for triggers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf

from airflow_speechkit.api.credentials import Metadata
from airflow_speechkit.api.operation import Operation, OperationState, check_recognition, operation_of
from airflow_speechkit.compat import lookup_lock, mask_secret
from airflow_speechkit.errors import ConnectionSettingsError, NotFinishedError, SettingsError, SpeechKitError
from airflow_speechkit.hooks.archive import archive_url, open_archive, task_archive
from airflow_speechkit.hooks.connection import (
    SpeechKitConnection,
    parse_connection,
    read_connection,
    secrets_in,
    unknown_fields,
)
from airflow_speechkit.models import Answer, is_operation_id, operation_ids
from airflow_speechkit.parsing import MalformedError, parse_object
from airflow_speechkit.provider import legacy_field_behaviour, legacy_form_widgets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Hashable, Iterable
    from types import TracebackType

    from pandas import DataFrame

    from airflow_speechkit.api.endpoints import Endpoints
    from airflow_speechkit.api.http import Outcome, Step
    from airflow_speechkit.api.sync_transport import SyncTransport
    from airflow_speechkit.hooks.async_client import SpeechKitAsyncClient
    from airflow_speechkit.polling.rate_limit import RateLimiter
    from airflow_speechkit.settings import RecognitionSettings

T = TypeVar("T")

#: A trigger that starts later than this after a read reads the connection again, and notices that it was changed.
READ_AGAIN_AFTER_S = 60.0
#: How often a request is sent at most: somebody waits for the result.
_ATTEMPTS = 2
_reads: dict[Hashable, tuple[asyncio.AbstractEventLoop, float, asyncio.Task[SpeechKitConnection]]] = {}


class SpeechKitHook(BaseHook):
    """Yandex SpeechKit's asynchronous recognition, API v2 and v3.

    The connection is read once, when it is first needed. Threads may share a hook. Close it, or use it in a ``with``
    statement, to close its connections.

    :param speechkit_conn_id: a connection of type ``speechkit``, or ``yandexcloud``
    """

    conn_name_attr = "speechkit_conn_id"
    default_conn_name = "speechkit_default"
    conn_type = "speechkit"
    hook_name = "Yandex SpeechKit"

    def __init__(self, speechkit_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.speechkit_conn_id = speechkit_conn_id
        self._lock = threading.RLock()
        self._read: SpeechKitConnection | None = None
        self._transport: SyncTransport | None = None

    #: The connection form, for Airflow before 3.2: later ones read the provider's info.
    get_connection_form_widgets = staticmethod(legacy_form_widgets)
    get_ui_field_behaviour = staticmethod(legacy_field_behaviour)

    @property
    def connection(self) -> SpeechKitConnection:
        """The connection, read.

        :raises ConnectionSettingsError: there is none, or it lacks something
        """
        with self._lock:
            if self._read is None:
                self._read = read_connection(self._look_up())
            return self._read

    async def async_connection(self) -> SpeechKitConnection:
        """Read the connection on an event loop, once for all hooks there that start within a minute.

        In a triggerer each read is several questions to its main process, which answers one at a time: two thousand
        triggers that read for themselves waited minutes for their first check.

        :raises ConnectionSettingsError: there is none, or it lacks something
        """
        if self._read is None:
            from asgiref.sync import sync_to_async

            # In a thread, since the supervisor of `dag.test()` has no asynchronous lookups. In one of asgiref's, since
            # Airflow 3.0 and 3.1 find the triggerer's event loop from no other thread.
            read = sync_to_async(lambda: read_connection(self._look_up()), thread_sensitive=False)
            self._read = await _read_together((type(self), self.speechkit_conn_id), read)
        return self._read

    def _look_up(self) -> Any:
        with lookup_lock():
            try:
                found = self.get_connection(self.speechkit_conn_id)
            except AirflowNotFoundException:
                raise ConnectionSettingsError(
                    f"There is no connection `{self.speechkit_conn_id}`",
                    hint="Create it (type `speechkit`), or set `speechkit_conn_id` to another one",
                ) from None
            # Airflow takes an unreadable extra for an empty one, and the key would seem to be missing.
            try:
                parse_object(found.extra or "{}", lenient=True)
            except MalformedError:
                what = f"Connection `{self.speechkit_conn_id}`: its extra isn't a JSON object"
                raise ConnectionSettingsError(what) from None
            for secret in secrets_in(found.password, found.extra_dejson):
                mask_secret(secret)
        return found

    @property
    def endpoints(self) -> Endpoints:
        """The service's addresses."""
        return self.connection.endpoints

    @property
    def api_version(self) -> str:
        """The API of tasks that set none: ``v2`` or ``v3``."""
        return self.connection.api_version.value

    @property
    def archive(self) -> str | None:
        """Path or URL of the folder for submissions and answers."""
        return self.connection.archive

    @property
    def aws_conn_id(self) -> str:
        """The connection of the bucket, ``aws_default`` by default."""
        return self.connection.aws_conn_id

    @property
    def submits_per_hour(self) -> int:
        """How many submissions the folder's quota allows."""
        return self.connection.submits_per_hour

    async def rate_limiter(self, api_version: str, *, cautious: bool = False) -> RateLimiter:
        """Return the limiter of this process's status checks through this connection.

        :param api_version: ``v2`` or ``v3``
        :param cautious: start at a tenth of the quota, since other workers may poll too
        """
        from airflow_speechkit.polling.rate_limit import RateLimiter

        connection = await self.async_connection()
        return RateLimiter.for_checks(
            api_version,
            checks_per_hour=connection.checks_per_hour,
            checks_per_second=connection.checks_per_second,
            triggerers=conf.getint("speechkit", "triggerers", fallback=1),
            cautious=cautious,
        )

    def submit(self, audio_uri: str, settings: RecognitionSettings) -> Operation:
        """Submit a recording. Costs money, each time: the service has no idempotency key.

        Nothing is sent twice where the first request may have arrived: see ``may_have_been_accepted`` of the error.

        :param audio_uri: the recording's https link in Object Storage
        :param settings: with the encoding filled in
        :raises SpeechKitError: what went wrong
        """
        return self._drive(self.connection.service().submit(settings, audio_uri=audio_uri))

    def submit_inline(self, content: bytes, settings: RecognitionSettings) -> Operation:
        """Submit a recording within the request: v3 only, a request of 60 MB at most.

        :param content: the recording
        :raises RecordingError: it is too large
        """
        return self._drive(self.connection.service().submit(settings, audio_uri=None, content=content))

    def get_operation(self, operation_id: str, *, attempts: int | None = None) -> Operation:
        """Return an operation: one of the folder's status checks. With v2 the result is in `raw`.

        :param attempts: how often the request is sent at most: each is a status check
        :raises OperationNotFoundError: it never existed, or is older than three days
        """
        return operation_of(
            self._drive(self.connection.service().operation(operation_id, attempts=attempts)), operation_id
        )

    def cancel_operation(self, operation_id: str) -> Operation:
        """Cancel an operation: best effort, and what was done so far may be charged."""
        return operation_of(self._drive(self.connection.service().cancel(operation_id)), operation_id)

    def get_recognition(self, operation_id: str, *, seen_done: bool = False) -> bytes:
        """Fetch a v3 result: JSON objects, one after the other. Tried several times while it isn't ready.

        :param seen_done: whether the operation is known to be done: then 404 means that the result has expired
        :raises NotFinishedError: it isn't ready
        :raises ResultExpiredError: it has expired
        :raises RecognitionFailedError: there is an error among the objects
        """
        response = self._drive(self.connection.service().recognition(operation_id, seen_done=seen_done))
        return check_recognition(response, operation_id)

    def delete_recognition(self, operation_id: str) -> bool:
        """Delete a v3 result from the service; return whether there was one."""
        return self._drive(self.connection.service().delete_recognition(operation_id))

    def get_answer(self, operation_id: str) -> Answer:
        """Fetch the service's answer about an operation that has ended, byte for byte.

        :raises NotFinishedError: it is running
        """
        operation = self.get_operation(operation_id)
        if operation.state is OperationState.RUNNING:
            raise NotFinishedError(
                "The operation is still running",
                operation_id=operation_id,
                hint="Wait for it with SpeechKitRecognitionSensor",
                retry="checks again",
            )
        recognition = None
        if operation.is_fetched_apart:
            recognition = self.get_recognition(operation_id, seen_done=True)
        return Answer(operation_id, operation.api_version, operation.raw, recognition)

    def tables(self, operation_id: str | Iterable[str]) -> dict[str, DataFrame]:
        """Fetch operations that have ended, and return their tables.

        :param operation_id: an operation id, or a list of them
        :return: ``recognitions``, ``utterances``, ``words`` and ``analyses``
        :raises SettingsError: there is none, or something that isn't an operation id
        :raises NotFinishedError: an operation is running
        """
        from airflow_speechkit.results.flatten import flatten_many

        return flatten_many([(self.get_answer(one), None) for one in operation_ids(operation_id)]).to_pandas()

    def label(self, labels: Mapping[str, Mapping[str, Any]], archive: str | None = None) -> int:
        """Correct labels of archived operations, for example from a CRM. Nothing is paid. Repeating it changes nothing.

        The next transform and load of these operations update the tables.

        :param labels: operation id, or a recording's address -> label -> text; None removes the label. An address
            means all operations of the recording; for these the whole archive is read
        :param archive: its URL; by default the connection's, then ``[speechkit] archive``
        :return: number of operations whose labels changed
        :raises SettingsError: something is no label, there is no archive, or it lacks an operation; nothing was written
        :raises ArchiveError: a record can't be read; all others have their labels
        """
        from airflow_speechkit.api.endpoints import Endpoints
        from airflow_speechkit.archive.labels import LabelChange, current_user, label
        from airflow_speechkit.recordings.address import uri_on_record

        opened = task_archive(archive, self)
        if opened is None:
            raise SettingsError("Labels are corrected in an archive, and `archive` is False")
        storages, changes = (Endpoints().storage, self.connection.endpoints.storage), []
        for about, wanted in labels.items():
            is_mapping = isinstance(about, str) and isinstance(wanted, Mapping)
            if not is_mapping or not all(isinstance(name, str) and name for name in wanted):
                raise SettingsError("`labels` must map operation ids or addresses to mappings of names to texts")
            texts = {name: None if text is None else str(text) for name, text in wanted.items()}
            uri = about if is_operation_id(about) else uri_on_record(about, storages)
            changes.append(LabelChange(about=uri, labels=texts))
        return label(opened, changes, by=_task_instance() or current_user(), now=datetime.now(UTC))[0]

    def test_connection(self) -> tuple[bool, str]:
        """Return everything that is wrong with the connection. Nothing is recognised, and nothing is paid.

        :return: whether the connection works, and what was found
        """
        try:
            return _try_connection(self._look_up())
        except SpeechKitError as error:
            return False, str(error)

    def async_client(self) -> SpeechKitAsyncClient:
        """Return a client for an event loop: ``async with hook.async_client() as client``."""
        from airflow_speechkit.hooks.async_client import SpeechKitAsyncClient

        # A hook reads its connection once; the client reads it again after a 401.
        return SpeechKitAsyncClient(lambda: type(self)(self.speechkit_conn_id).async_connection())

    def close(self) -> None:
        """Close the connections to the service."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    def __enter__(self) -> SpeechKitHook:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drive(self, steps: Generator[Step, Outcome, T]) -> T:
        with self._lock:
            if self._transport is None:
                from airflow_speechkit.api.sync_transport import SyncTransport

                self._transport = SyncTransport(ca_bundle=self.connection.ca_bundle)
                # The other threads wait for the token of the first.
                self._transport.drive(self.connection.service().authorize())
            transport = self._transport
        return transport.drive(steps)


def _task_instance() -> str | None:
    # On Airflow 2.11 it imports all that PythonOperator needs: not when a DAG file is parsed.
    from airflow.providers.common.compat.sdk import get_current_context

    from airflow_speechkit.archive.submit_rules import Origin

    try:
        ti = get_current_context()["ti"]
    except Exception:  # noqa: BLE001 - Airflow 2.11 and 3 raise different ones outside of a task
        return None
    return Origin(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index).scope


async def _read_together(
    key: Hashable, read: Callable[[], Coroutine[None, None, SpeechKitConnection]]
) -> SpeechKitConnection:
    """Return the result of a read in this event loop that is under way or at most a minute old, or read.

    :param key: identifies what is read
    :param read: reads it; those who wait share its error, and the next one reads again
    """
    loop = asyncio.get_running_loop()
    begun_in, begun_at, task = _reads.get(key, (None, 0.0, None))
    has_failed = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
    if task is None or has_failed or begun_in is not loop or loop.time() >= begun_at + READ_AGAIN_AFTER_S:
        task = loop.create_task(read())
        _reads[key] = (loop, loop.time(), task)
    # The one that began it may be cancelled; the others still wait.
    return await asyncio.shield(task)


def _try_connection(found: Any) -> tuple[bool, str]:
    """Try a connection's key, hosts and archive. Nothing is recognised, nothing is paid, no archive is begun.

    :param found: Airflow's connection
    :return: whether it works, and either what works or everything that is wrong, a line each
    """
    wrong, works = [], []
    unknown = unknown_fields(found.extra_dejson)
    if unknown:
        wrong.append(f"The extra has unknown fields: {', '.join(unknown.values())}. Correct or remove them.")
    # What is wrong with the key must not hide what is wrong with the rest.
    for check, credential in ((_try_service, None), (_try_archive, Metadata())):
        try:
            works.append(check(parse_connection(found, ignored=unknown, credential=credential)))
        except SpeechKitError as error:
            what = " ".join(f"{text.rstrip('.')}." for text in (error.what, error.hint) if text)
            if what not in wrong:
                wrong.append(what)
    if len(wrong) > 1:
        # Airflow 3 shows the lines as one paragraph.
        wrong = [f"({number}) {text}" for number, text in enumerate(wrong, 1)]
    return not wrong, "\n".join(wrong or works)


def _try_service(connection: SpeechKitConnection) -> str:
    from airflow_speechkit.api.sync_transport import SyncTransport

    service = connection.service(attempts=_ATTEMPTS)
    with closing(SyncTransport(ca_bundle=connection.ca_bundle)) as transport:
        return f"{transport.drive(service.probe(connection.api_version))}."


def _try_archive(connection: SpeechKitConnection) -> str:
    archive = open_archive(archive_url(None, connection) or "")
    archive.probe(datetime.now(UTC), is_trial=True)
    return f"The archive at {archive.url} can be written, and a second writer of a file is refused."
