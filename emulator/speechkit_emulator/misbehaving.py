"""The middleware around the endpoints: fires faults and counts requests."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from aiohttp import web

from speechkit_emulator.clock import timestamp
from speechkit_emulator.endpoints import REQUEST_ID, STRUCK, TOLERATED, refused
from speechkit_emulator.refusal import CODE_OF_HTTP, INTERNAL, NOT_FOUND, RefusedError

if TYPE_CHECKING:
    from speechkit_emulator.faults import Fault, FaultPlan

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_POINT_OF_ROUTE = {"submit_v3": "submit", "cancel_post": "cancel"}


class RequestLog:
    """All requests to the service, with their outcomes and times.

    :param kept: number of requests to keep one by one; all are counted
    """

    def __init__(self, kept: int = 100_000) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.entries: deque[dict[str, Any]] = deque(maxlen=kept)

    def add(
        self, kind: str, outcome: str, path: str, wall_s: float, service_s: float, tolerated: Sequence[str] = ()
    ) -> None:
        """Count a request.

        :param kind: the route's point, or "unknown"
        :param outcome: HTTP status, or "dropped" or "cut"
        :param path: without the query
        :param wall_s: wall-clock time, seconds since 1970
        :param service_s: service time, seconds since 1970
        :param tolerated: what was accepted in it although the documentation does not allow it
        """
        self.counts[kind, outcome] += 1
        entry = {"kind": kind, "outcome": outcome, "path": path, "wall_s": wall_s, "at": timestamp(service_s)}
        self.entries.append({**entry, "tolerated": list(tolerated)} if tolerated else entry)

    def clear(self) -> None:
        """Reset the counts and remove all entries."""
        self.counts.clear()
        self.entries.clear()

    def to_json(self) -> dict[str, dict[str, int]]:
        """Kind -> outcome -> count."""
        table: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(self.counts.items()):
            table.setdefault(kind, {})[outcome] = count
        return table


class Misbehaviour:
    """An aiohttp middleware.

    :param now: returns the service's time
    """

    def __init__(self, plan: FaultPlan, log: RequestLog, now: Callable[[], float]) -> None:
        self._plan = plan
        self._log = log
        self._now = now

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Fire planned faults, return the service's errors and headers, and count the request."""
        if request.path == "/" or request.path.startswith("/emulator/"):
            return await handler(request)
        request[REQUEST_ID] = str(uuid.uuid4())
        name = request.match_info.route.name
        if name is None:
            return self._finish(request, "unknown", refused(RefusedError(NOT_FOUND, "Not Found"), request))
        point = _POINT_OF_ROUTE.get(name, name)
        faults: list[Fault] = []
        if self._plan:
            faults = self._plan.strike(point, await _text(request))
            request[STRUCK] = faults
        for fault in faults:
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
        kinds = {fault.kind: fault for fault in faults}
        if "drop_before" in kinds:
            return self._drop(request, point, "dropped")
        if "garbage" in kinds:
            page = web.Response(text="<html><body>Bad gateway, or so</body></html>", content_type="text/html")
            return self._finish(request, point, page)
        for fault in faults:
            if fault.status is not None:
                return self._finish(request, point, _planned_refusal(fault, request))
        try:
            response = await handler(request)
        except RefusedError as refusal:
            response = refused(refusal, request)
        except ConnectionError:
            # The client has closed the connection.
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = refused(RefusedError(INTERNAL, "Internal server error"), request)
        if "drop_after" in kinds:
            return self._drop(request, point, "dropped")
        if "cut" in kinds and isinstance(response, web.Response):
            return await self._cut(request, point, response, kinds["cut"].keep)
        return self._finish(request, point, response)

    def _finish(self, request: web.Request, point: str, response: web.StreamResponse) -> web.StreamResponse:
        # Service time, because clients compare it with createdAt.
        response.headers["Date"] = formatdate(self._now(), usegmt=True)
        response.headers["x-request-id"] = request[REQUEST_ID]
        response.headers["x-server-trace-id"] = f"{uuid.uuid4().hex[:16]}:{uuid.uuid4().hex[:16]}:0:1"
        self._count(request, point, str(response.status))
        return response

    def _count(self, request: web.Request, point: str, outcome: str) -> None:
        self._log.add(point, outcome, request.path, time.time(), self._now(), request.get(TOLERATED, ()))

    def _drop(self, request: web.Request, point: str, outcome: str) -> web.Response:
        self._count(request, point, outcome)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _cut(self, request: web.Request, point: str, response: web.Response, keep: float) -> web.StreamResponse:
        body = response.body if isinstance(response.body, bytes) else b""
        cut = web.StreamResponse(status=response.status)
        cut.content_type = response.content_type
        if response.chunked:
            cut.enable_chunked_encoding()
        else:
            cut.content_length = len(body)
        await cut.prepare(request)
        await cut.write(body[: int(len(body) * keep)])
        self._count(request, point, "cut")
        if request.transport is not None:
            request.transport.close()
        return cut


async def _text(request: web.Request) -> str:
    try:
        body = await request.read()
    except (web.HTTPRequestEntityTooLarge, web.RequestPayloadError):
        body = b""
    return f"{request.path_qs}\n{body.decode(errors='replace')}"


def _planned_refusal(fault: Fault, request: web.Request) -> web.Response:
    status = fault.status or 500
    code = fault.code or CODE_OF_HTTP[status]
    message = fault.message or f"A planned fault of the emulator returns {status}"
    response = refused(RefusedError(code, message, status=status), request, fault.form)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = fault.retry_after
    return response
