"""An error as the service writes it down: a ``google.rpc.Status``, in its several spellings."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_speechkit.parsing import MalformedError, parse_code
from airflow_speechkit.redaction import without_secrets


@dataclass(frozen=True)
class ErrorStatus:
    """What an error says.

    :param code: the gRPC code, where there is one
    :param message: the service's text, on one line and without secrets, where there is one
    """

    code: int | None = None
    message: str | None = None


def read_status(error: object) -> ErrorStatus | None:
    """Read an ``error``; None where it says nothing: ``null``, ``{}``, code 0 (OK) without a message.

    :raises MalformedError: it is something else than an object
    """
    if error is None:
        return None
    if not isinstance(error, dict):
        raise MalformedError("an error is something else")
    codes = (parse_code(error.get(name)) for name in ("code", "grpcCode", "grpc_code"))
    code = next((one for one in codes if one is not None), None)
    messages = (error.get(name) for name in ("message", "error_message"))
    message = next((one for one in messages if isinstance(one, str)), None)
    if not code and not message:
        return None
    return ErrorStatus(code, None if message is None else without_secrets(message))
