"""The control endpoints, below ``/emulator/``, for tests and demos."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from speechkit_emulator.bounds import LONGEST_S, BadValueError, check_sendable, number
from speechkit_emulator.clock import timestamp
from speechkit_emulator.faults import FaultPlan, read_fault
from speechkit_emulator.seeds import read_seed
from speechkit_emulator.standins import read_stand_ins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechkit_emulator.misbehaving import RequestLog
    from speechkit_emulator.service import Service


class Control:
    """The control endpoints; no authorization, loopback only."""

    def __init__(self, service: Service, plan: FaultPlan, log: RequestLog) -> None:
        self._service = service
        self._plan = plan
        self._log = log

    def routes(self) -> list[web.RouteDef]:
        """All control endpoints."""
        return [
            web.get("/emulator/faults", self.faults),
            web.post("/emulator/faults", self.add_fault),
            web.delete("/emulator/faults", self.clear_faults),
            web.delete("/emulator/faults/{fault_id:[0-9]+}", self.clear_faults),
            web.get("/emulator/billing", self.billing),
            web.get("/emulator/requests", self.requests),
            web.delete("/emulator/requests", self.clear_requests),
            web.get("/emulator/clock", self.clock),
            web.post("/emulator/clock", self.advance),
            web.get("/emulator/credentials", self.credentials),
            web.delete("/emulator/tokens", self.revoke_tokens),
            web.post("/emulator/operations", self.stand_ins),
            web.get("/emulator/transcripts", self.transcripts),
            web.post("/emulator/transcripts", self.seed),
            web.delete("/emulator/transcripts", self.clear_transcripts),
            web.delete("/emulator/transcripts/{seed_id:[0-9]+}", self.clear_transcripts),
        ]

    async def faults(self, request: web.Request) -> web.Response:
        """The planned faults, with their counts."""
        return web.json_response({"faults": [fault.to_json() for fault in self._plan]})

    async def add_fault(self, request: web.Request) -> web.Response:
        """Plan a fault."""
        try:
            fault = read_fault(await _object(request))
        except BadValueError as error:
            return _bad(error)
        return web.json_response(self._plan.add(fault).to_json())

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Remove one fault, or all."""
        fault_id = request.match_info.get("fault_id")
        return web.json_response({"cleared": self._plan.clear(None if fault_id is None else int(fault_id))})

    async def billing(self, request: web.Request) -> web.Response:
        """Every accepted recognition, oldest first."""
        now, retention_s = self._service.now(), self._service.options.retention_s
        lines = [
            operation.bill(now, retention_s)
            for operation in self._service.operations.values()
            if not operation.stand_in
        ]
        return web.json_response(
            {"recognitions": lines, "billed_seconds": sum(line["billed_seconds"] for line in lines)}
        )

    async def requests(self, request: web.Request) -> web.Response:
        """Counts by kind and outcome; with ``?log=true`` also each request."""
        answer: dict[str, Any] = {"counts": self._log.to_json()}
        if request.query.get("log") == "true":
            answer["log"] = list(self._log.entries)
        return web.json_response(answer)

    async def clear_requests(self, request: web.Request) -> web.Response:
        """Reset the counts."""
        self._log.clear()
        return web.json_response({})

    async def clock(self, request: web.Request) -> web.Response:
        """The service's time."""
        return web.json_response(self._time())

    async def advance(self, request: web.Request) -> web.Response:
        """Advance the clock: ``{"advance_s": 3600}``, in service seconds."""
        try:
            self._service.advance(number(0, LONGEST_S)((await _object(request)).get("advance_s"), "advance_s"))
        except BadValueError as error:
            return _bad(error)
        return web.json_response(self._time())

    def _time(self) -> dict[str, Any]:
        now = self._service.now()
        return {"now": timestamp(now), "now_s": now, "speed": self._service.clock.speed}

    async def credentials(self, request: web.Request) -> web.Response:
        """All credentials that the emulator accepts, the authorized key included."""
        return web.json_response(self._service.credentials.to_json())

    async def revoke_tokens(self, request: web.Request) -> web.Response:
        """Revoke all IAM tokens."""
        return web.json_response({"revoked": self._service.store.revoke_tokens()})

    async def stand_ins(self, request: web.Request) -> web.Response:
        """Register operations without recordings, for benchmarks of polling and reading."""
        try:
            asked = read_stand_ins(await _object(request))
        except BadValueError as error:
            return _bad(error)
        operations = self._service.stand_ins(
            asked.operation(self._service.now(), self._service.credentials.service_account_id),
            asked.count,
            asked.result(),
            asked.spread_s,
        )
        return web.json_response({"operation_ids": [operation.id for operation in operations]})

    async def transcripts(self, request: web.Request) -> web.Response:
        """The seeded transcripts, with their counts."""
        return web.json_response({"transcripts": [seed.to_json() for seed in self._service.seeds]})

    async def seed(self, request: web.Request) -> web.Response:
        """Seed a transcript for a key, a glob of keys, a content, or the next submit."""
        try:
            seed = read_seed(await _object(request))
        except BadValueError as error:
            return _bad(error)
        return web.json_response(self._service.seeds.add(seed).to_json())

    async def clear_transcripts(self, request: web.Request) -> web.Response:
        """Remove one seeded transcript, or all."""
        seed_id = request.match_info.get("seed_id")
        return web.json_response({"cleared": self._service.seeds.clear(None if seed_id is None else int(seed_id))})


async def _object(request: web.Request) -> Mapping[str, Any]:
    try:
        value = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise BadValueError("the body is not JSON") from error
    if not isinstance(value, dict):
        raise BadValueError("the body must be an object")
    check_sendable(value)
    return value


def _bad(error: BadValueError) -> web.Response:
    return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
