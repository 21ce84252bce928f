"""What the Test button of the connection form finds out: everything that is wrong, in one message."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_speechkit.api.endpoints import Endpoints, is_local
from airflow_speechkit.archive.probing import try_out
from airflow_speechkit.errors import ConnectionSettingsError, SpeechKitError
from airflow_speechkit.hooks.archive import archive_url, open_archive
from airflow_speechkit.hooks.async_client import user_agent
from airflow_speechkit.hooks.connection import (
    CREDENTIAL_FIELDS,
    fields_of,
    named_fields,
    read_connection,
    unknown_fields,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_speechkit.hooks.connection import SpeechKitConnection

#: How often a request is sent at most: somebody waits for the answer.
_ATTEMPTS = 2


def try_connection(found: Any) -> tuple[bool, str]:
    """Try a connection's key, hosts and archive. Nothing is recognised, nothing spent, and no archive is begun.

    :param found: Airflow's connection
    :return: whether all is well, and either what works or everything that is wrong, a line each
    """
    wrong, works = [], []
    unknown = unknown_fields(found.extra_dejson)
    if unknown:
        wrong.append(f"The extra has unknown fields: {', '.join(named_fields(unknown))}. Correct or remove them.")
    known = {name: value for name, value in fields_of(found.extra_dejson).items() if name not in unknown}
    # What is wrong with the key must not hide what is wrong with the rest.
    rest = {name: value for name, value in known.items() if name not in CREDENTIAL_FIELDS} | {"use_metadata": True}
    checks: tuple[Callable[[], str], ...] = (
        lambda: _try_service(read_connection(found, known)),
        lambda: _check_storage(read_connection(found, rest, without_password=True)),
        lambda: _try_archive(read_connection(found, rest, without_password=True)),
    )
    for check in checks:
        try:
            works.append(check())
        except SpeechKitError as error:
            # The one about the form names the connection's id, which is a made-up one while it is being tested.
            cause = error.__cause__
            said = _plainly(cause if isinstance(cause, SpeechKitError) else error)
            if said not in wrong:
                wrong.append(said)
    if len(wrong) > 1:
        # Airflow 3 shows the lines as one paragraph.
        wrong = [f"({number}) {text}" for number, text in enumerate(wrong, 1)]
    return not wrong, "\n".join(wrong or filter(None, works))


def _plainly(error: SpeechKitError) -> str:
    return " ".join(f"{text.rstrip('.')}." for text in (error.what, error.hint) if text)


def _try_service(connection: SpeechKitConnection) -> str:
    service = connection.service(user_agent(), attempts=_ATTEMPTS)
    # Loads requests, which a DAG file has no use for.
    from airflow_speechkit.api.sync_transport import SyncTransport

    with closing(SyncTransport(ca_bundle=connection.ca_bundle)) as transport:
        return f"{transport.drive(service.probe(connection.api_version))}."


def _check_storage(connection: SpeechKitConnection) -> str:
    service, storage = urlsplit(connection.endpoints.recognition), connection.endpoints.storage
    if is_local(service.hostname) and storage == Endpoints().storage:
        raise ConnectionSettingsError(
            f"The service is {service.netloc} on this machine, and `storage_host` is missing: recordings would be "
            f"looked for at {storage}",
            hint="Set `storage_host` to the address of the emulator's bucket",
        )
    return ""


def _try_archive(connection: SpeechKitConnection) -> str:
    url = archive_url(None, connection) or ""
    archive = open_archive(url)
    try_out(archive.folder, datetime.now(UTC))
    return f"The archive at {archive.url} can be written, and of two writers of a file one is refused."
