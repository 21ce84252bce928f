"""Operations that have ended, and a service that has their results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.polling.poller import RESULTS_AT_ONCE
from airflow_speechkit.settings import ApiVersion


def ended(
    number: int, api_version: ApiVersion = ApiVersion.V2, state: OperationState = OperationState.DONE
) -> Operation:
    raw = b'{"id":"e03%d","done":true,"response":{}}' % number
    code = 3 if state is OperationState.FAILED else None
    return Operation(id=f"e03{number}", state=state, api_version=api_version, raw=raw, error_code=code)


class Results:
    """A poller, and its client: it has a result for each operation, after some errors.

    :param errors: what it answers with at first
    """

    def __init__(self, errors: Iterable[SpeechKitError] = ()) -> None:
        self.fetched: list[str] = []
        self.deleted: list[str] = []
        self.delete_error: SpeechKitError | None = None
        self._errors: Iterator[SpeechKitError] = iter(errors)
        self.fetches = asyncio.Semaphore(RESULTS_AT_ONCE)

    @property
    def client(self) -> Results:
        return self

    async def get_recognition(self, operation_id: str) -> bytes:
        self.fetched.append(operation_id)
        if (error := next(self._errors, None)) is not None:
            raise error
        return b'{"result":{}}'

    async def delete_recognition(self, operation_id: str) -> bool:
        self.deleted.append(operation_id)
        if self.delete_error is not None:
            raise self.delete_error
        return True
