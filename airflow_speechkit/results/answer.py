"""An answer of the service, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.settings import ApiVersion


@dataclass(frozen=True)
class Answer:
    """What the service said about one finished operation, as it said it.

    :param operation_id: the operation
    :param api_version: the API it came from: downstream of here nobody has to be told
    :param operation: body of the Operation; with v2 the result is inside
    :param recognition: v3: body of ``getRecognition``, concatenated JSON objects; None where the operation failed
    """

    operation_id: str
    api_version: ApiVersion
    # Transcripts: a repr ends up in logs and exceptions.
    operation: bytes = field(repr=False)
    recognition: bytes | None = field(default=None, repr=False)
