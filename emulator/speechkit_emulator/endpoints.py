"""The service's endpoints, at their real paths, on one server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11, web

from speechkit_emulator import v2, v3
from speechkit_emulator.clock import timestamp
from speechkit_emulator.credentials import check_authorization, check_jwt, new_token
from speechkit_emulator.faults import OF_OPERATION, Fault
from speechkit_emulator.operation import Operation, State
from speechkit_emulator.proto_json import Message, Reading, text, written
from speechkit_emulator.refusal import INTERNAL, RESOURCE_EXHAUSTED, RefusedError
from speechkit_emulator.request import invalid, parsed
from speechkit_emulator.service import Service, not_ready
from speechkit_emulator.transcript import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping


def _key(name: str, kind: Any) -> Any:
    # Before 3.14, aiohttp stores values of a request under plain strings; later versions warn about these.
    return web.RequestKey(name, kind) if hasattr(web, "RequestKey") else name


#: The faults that fire for a request; set by the middleware.
STRUCK = _key("struck", list[Fault])

#: The request's id.
REQUEST_ID = _key("request_id", str)

#: What was accepted in a request although the documentation does not allow it.
TOLERATED = _key("tolerated", list[str])

_TOKEN_REQUEST = Message(jwt=text)


class Endpoints:
    """The HTTP endpoints of a :class:`Service`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """All endpoints; a route's name is the point where a fault can fire."""
        operation = "/operations/{operation_id:[^/:]+}"
        return [
            web.post("/speech/stt/v2/longRunningRecognize", self.submit_v2, name="submit"),
            web.post("/stt/v3/recognizeFileAsync", self.submit_v3, name="submit_v3"),
            web.get("/stt/v3/getRecognition", self.recognition, name="recognition", allow_head=False),
            web.delete("/stt/v3/deleteRecognition", self.delete, name="delete"),
            web.get(operation, self.operation, name="operation", allow_head=False),
            web.get(operation + ":cancel", self.cancel, name="cancel", allow_head=False),
            web.post(operation + ":cancel", self.cancel, name="cancel_post"),
            web.post("/iam/v1/tokens", self.token, name="iam"),
            web.get(
                "/computeMetadata/v1/instance/service-accounts/default/token",
                self.metadata_token,
                name="metadata",
                allow_head=False,
            ),
        ]

    async def submit_v2(self, request: web.Request) -> web.Response:
        """``longRunningRecognize``."""
        self._authorize(request)
        asked = v2.read_request(await _body(request), self._service.credentials.folder_id, self._reading(request))
        operation = await self._service.submit(asked, **self._extras(request))
        return _json(v2.render_operation(operation, operation.created_s - 1, None))

    async def submit_v3(self, request: web.Request) -> web.Response:
        """``recognizeFileAsync``."""
        limit = self._service.options.body_limit
        if (request.content_length or 0) > limit:
            raise RefusedError(RESOURCE_EXHAUSTED, f"request body is larger than {limit} bytes", status=413)
        self._authorize(request)
        v2.check_folder(request.headers.get("x-folder-id"), self._service.credentials.folder_id)
        asked, content = v3.read_request(await _body(request), self._reading(request))
        operation = await self._service.submit(asked, content, **self._extras(request))
        return _json(v3.render_accepted(operation))

    def _reading(self, request: web.Request) -> Reading:
        reading = Reading(self._service.options.strict)
        request[TOLERATED] = reading.tolerated
        return reading

    def _authorize(self, request: web.Request) -> None:
        service = self._service
        check_authorization(request.headers.get("Authorization"), service.credentials, service.store, service.now())

    def _extras(self, request: web.Request) -> dict[str, Any]:
        faults = [fault for fault in request.get(STRUCK, []) if fault.kind in OF_OPERATION]
        failures = [
            Failure(fault.code or INTERNAL, fault.message or "Internal server error")
            for fault in faults
            if fault.kind in ("operation_error", "error_before_done")
        ]
        return {
            "client_request_id": request.headers.get("x-client-request-id"),
            "failure": failures[0] if failures else None,
            "flaws": tuple(fault.kind for fault in faults if fault.kind != "operation_error"),
        }

    async def operation(self, request: web.Request) -> web.Response:
        """``operations/{id}``: the state, and the result of v2."""
        self._authorize(request)
        return self._operation_answer(self._service.check(request.match_info["operation_id"]))

    async def cancel(self, request: web.Request) -> web.Response:
        """``operations/{id}:cancel``, as GET (the proto) and as POST (the design guide)."""
        self._authorize(request)
        return self._operation_answer(self._service.cancel(request.match_info["operation_id"]))

    def _operation_answer(self, operation: Operation) -> web.Response:
        now = self._service.now()
        if operation.request.api == "v3":
            return _json(v3.render_operation(operation, now))
        response = None
        if operation.result_id is not None and operation.state(now) is State.DONE:
            response = self._service.store.result(operation.result_id)
        return _json(v2.render_operation(operation, now, response))

    async def recognition(self, request: web.Request) -> web.Response:
        """``getRecognition``."""
        self._authorize(request)
        operation_id = _operation_id(request)
        kinds = {fault.kind for fault in request.get(STRUCK, [])}
        if "not_ready" in kinds:
            raise not_ready(operation_id)
        stream = self._service.recognition(operation_id)
        answer = _json(v3.pretty(stream) if "pretty" in kinds else stream)
        if request.version >= HttpVersion11:
            # The gateway streams without a Content-Length.
            answer.enable_chunked_encoding()
        return answer

    async def delete(self, request: web.Request) -> web.Response:
        """``deleteRecognition``."""
        self._authorize(request)
        self._service.delete_recognition(_operation_id(request))
        return _json({})

    async def token(self, request: web.Request) -> web.Response:
        """IAM: exchange the JWT of a service account for a token."""
        service = self._service
        check_jwt(_TOKEN_REQUEST(await _body(request), "", Reading()), service.credentials.authorized_key, time.time())
        token, expires_s = self._new_token()
        # In wall-clock time, for the client; the token expires in service time.
        return _json({"iamToken": token, "expiresAt": timestamp(service.clock.wall_at(expires_s))})

    def _new_token(self) -> tuple[str, float]:
        service = self._service
        token, expires_s = new_token(), service.now() + service.options.token_lifetime_s
        service.store.put_token(token, expires_s)
        return token, expires_s

    async def metadata_token(self, request: web.Request) -> web.Response:
        """The metadata service of a virtual machine."""
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403, text="Missing Metadata-Flavor: Google header.\n")
        token, _ = self._new_token()
        lifetime_s = self._service.options.token_lifetime_s / self._service.clock.speed
        return _json({"access_token": token, "expires_in": max(1, int(lifetime_s)), "token_type": "Bearer"})


def refused(refusal: RefusedError, request: web.Request, form: str | None = None) -> web.Response:
    """The response for an error, by default in the form of its endpoint."""
    if form == "gateway" or (form is None and request.path.startswith("/stt/v3/")):
        body = refusal.gateway()
    else:
        body = refusal.bare(request[REQUEST_ID])
    return _json(body, refusal.status)


def _operation_id(request: web.Request) -> str:
    operation_id = request.query.get("operation_id") or request.query.get("operationId") or ""
    if not 0 < len(operation_id) <= 50:
        raise invalid("operation_id: 1 to 50 characters are required")
    return operation_id


async def _body(request: web.Request) -> Any:
    try:
        content = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise RefusedError(RESOURCE_EXHAUSTED, "request body is too large", status=413) from error
    except web.RequestPayloadError as error:
        raise invalid("the body is not encoded as its headers say") from error
    return parsed(content)


def _json(value: Mapping[str, Any] | bytes, status: int = 200) -> web.Response:
    body = value if isinstance(value, bytes) else written(value)
    return web.Response(body=body, status=status, content_type="application/json")
