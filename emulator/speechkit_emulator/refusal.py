"""The service's errors, in their two forms."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

#: google.rpc.Code -> HTTP status, as the service documents it.
HTTP_OF_CODE = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}

CODE_OF_HTTP = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 413: 8, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14, 504: 4}

INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 3, 5, 7, 8
CANCELLED, FAILED_PRECONDITION, INTERNAL, UNAUTHENTICATED = 1, 9, 13, 16


class RefusedError(Exception):
    """A request that is answered with an error.

    :param code: google.rpc.Code
    :param message: the service's error message
    :param status: HTTP status; None = the status of the code
    """

    def __init__(self, code: int, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or HTTP_OF_CODE[code]

    def bare(self, request_id: str) -> dict[str, Any]:
        """``google.rpc.Status``: the documented form, used by v2, operations and IAM."""
        return {
            "code": self.code,
            "message": self.message,
            "details": [{"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request_id}],
        }

    def gateway(self) -> dict[str, Any]:
        """The gateway's form, used by v3."""
        phrase = HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else "Client Closed"
        return {
            "error": {
                "grpcCode": self.code,
                "httpCode": self.status,
                "message": self.message,
                "httpStatus": phrase,
                "details": [],
            }
        }
