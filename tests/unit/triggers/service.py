"""A service in this process: each operation has ended, or ends when the test says so."""

from __future__ import annotations

import logging

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.settings import ApiVersion


class Service:
    """A connection's hook, and the client that it opens.

    :param conn_id: the connection
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.asked: list[str] = []
        self.running: set[str] = set()
        self.errors: dict[str, SpeechKitError] = {}
        self.version = ApiVersion.V2

    async def rate_limiter(self, api_version: ApiVersion, *, cautious: bool = False) -> RateLimiter:
        return RateLimiter(1_000_000, 3600.0)

    def async_client(self) -> Service:
        return self

    async def __aenter__(self) -> Service:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def authorize(self) -> None:
        return None

    async def get_operation(self, operation_id: str) -> Operation:
        self.asked.append(operation_id)
        logging.getLogger("airflow_speechkit.client").info("asked for %s", operation_id)
        if operation_id in self.errors:
            raise self.errors[operation_id]
        state = OperationState.RUNNING if operation_id in self.running else OperationState.DONE
        raw = b'{"id":"%s","done":true,"response":{}}' % operation_id.encode()
        return Operation(id=operation_id, state=state, api_version=self.version, raw=raw)

    async def get_recognition(self, operation_id: str) -> bytes:
        return b'{"result":{}}'
