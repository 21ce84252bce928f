"""The Test button of the connection form: everything that is wrong, in one message."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.credentials import Metadata
from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.hooks.archive import archive_url, open_archive
from airflow_speechkit.hooks.connection import fields_of, parse_connection, unknown_fields

if TYPE_CHECKING:
    from airflow_speechkit.hooks.connection import SpeechKitConnection

#: How often a request is sent at most: somebody waits for the result.
_ATTEMPTS = 2


def try_connection(found: Any) -> tuple[bool, str]:
    """Try a connection's key, hosts and archive. Nothing is recognised, nothing is paid, no archive is begun.

    :param found: Airflow's connection
    :return: whether it works, and either what works or everything that is wrong, a line each
    """
    wrong, works = [], []
    given = fields_of(found.extra_dejson)
    unknown = unknown_fields(given)
    if unknown:
        wrong.append(f"The extra has unknown fields: {', '.join(unknown.values())}. Correct or remove them.")
    known = {name: value for name, value in given.items() if name not in unknown}
    # What is wrong with the key must not hide what is wrong with the rest.
    for check, credential in ((_try_service, None), (_try_archive, Metadata())):
        try:
            works.append(check(parse_connection(found, known, credential=credential)))
        except SpeechKitError as error:
            what = " ".join(f"{text.rstrip('.')}." for text in (error.what, error.hint) if text)
            if what not in wrong:
                wrong.append(what)
    if len(wrong) > 1:
        # Airflow 3 shows the lines as one paragraph.
        wrong = [f"({number}) {text}" for number, text in enumerate(wrong, 1)]
    return not wrong, "\n".join(wrong or works)


def _try_service(connection: SpeechKitConnection) -> str:
    # Loads requests, which is not needed when a DAG file is parsed.
    from airflow_speechkit.api.sync_transport import SyncTransport

    service = connection.service(attempts=_ATTEMPTS)
    with closing(SyncTransport(ca_bundle=connection.ca_bundle)) as transport:
        return f"{transport.drive(service.probe(connection.api_version))}."


def _try_archive(connection: SpeechKitConnection) -> str:
    archive = open_archive(archive_url(None, connection) or "")
    archive.probe(datetime.now(UTC), is_trial=True)
    return f"The archive at {archive.url} can be written, and a second writer of a file is refused."
