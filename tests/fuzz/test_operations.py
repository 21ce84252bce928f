"""Envelopes of operations and bodies of errors, mutated: read as they stand, or refused by a typed error."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from airflow_speechkit.api.credentials import AuthorizedKey, read_token
from airflow_speechkit.api.exchange import read_refusal
from airflow_speechkit.api.http import Response
from airflow_speechkit.api.operation import (
    LARGE_BODY,
    Operation,
    check_recognition,
    id_within,
    operation_of,
    read_operation,
)
from airflow_speechkit.errors import AnswerUnreadableError, ConnectionSettingsError, RecognitionFailedError
from airflow_speechkit.models import is_operation_id
from tests.fuzz import plainly
from tests.fuzz.cases import Reached, cases
from tests.fuzz.mutations import mutate, written
from tests.unit.results.answers import V2_TYPE

CASES = 2500
ERROR = {"code": 3, "message": "ogg header has not been found", "details": [{"@type": "x"}]}


def operation(chance: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {
        "done": chance.choice([True, False]),
        "id": "e03one",
        "description": chance.choice(["STT v3 async recognition", ""]),
        "createdAt": "2026-11-22T10:00:00Z",
        "modifiedAt": "2026-11-22T10:00:11.123456789Z",
    }
    if chance.randrange(2):
        made["response"] = {"@type": V2_TYPE, "chunks": [{"alternatives": [{"words": [], "text": "да"}]}]}
    if chance.randrange(2):
        made["error"] = dict(ERROR)
    return made


def mutant(value: Any, chance: random.Random) -> bytes:
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        mutate(value, chance)
    return written(value, chance)


def plain_envelope(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw.decode("utf-8-sig", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def plain_moment(value: Any) -> Any:
    try:
        return plainly.moment(value)
    except plainly.REFUSED:
        return None


def read_or_none(raw: bytes) -> Operation | None:
    try:
        return read_operation(raw)
    except AnswerUnreadableError as error:
        str(error).encode()
        return None


def test_an_operation_is_read_as_it_stands_or_refused() -> None:
    reached, read = Reached(), 0
    for case in cases("operations", CASES):
        with case:
            raw = mutant(operation(case.chance), case.chance)
            plain, found = plain_envelope(raw), read_or_none(raw)
            reached.count(plain is not None)
            within = id_within(raw)
            assert within is None or is_operation_id(within)
            if case.chance.randrange(8) == 0 and found is not None:
                padded = read_or_none(raw + b" " * LARGE_BODY)
                assert padded is not None
                assert (padded.id, padded.state, padded.error_code) == (found.id, found.state, found.error_code)
            if found is None:
                continue
            read += 1
            (found.error_message or "").encode()
            if plain is None:
                # Something in its result is no JSON, or nested too deeply: it is to be archived all the same.
                continue
            error = plainly.status(plain.get("error"))
            state = "failed" if error else "done" if plain.get("done") else "running"
            assert (found.id, found.state.value) == (plain["id"], state)
            assert (found.error_code, found.error_message or "") == ((error[0] or 0, error[1]) if error else (None, ""))
            assert found.created_at == plain_moment(plain.get("createdAt"))
            assert found.modified_at == plain_moment(plain.get("modifiedAt"))
            assert within in (None, found.id)
    reached.check()
    assert read > CASES / 3


def test_the_answer_to_a_check_is_about_that_operation_or_refused() -> None:
    for case in cases("checks", 600):
        with case:
            raw = mutant(operation(case.chance), case.chance)
            try:
                found = operation_of(Response(200, {}, raw), "e03one")
            except AnswerUnreadableError as error:
                assert error.operation_id == "e03one"  # noqa: PT017
            else:
                assert found.id == "e03one"


def test_an_errors_body_is_read_as_it_stands() -> None:
    reached, read = Reached(), 0
    for case in cases("refusals", CASES):
        with case:
            body = dict(ERROR) if case.chance.randrange(2) else {"error": {**ERROR, "grpcCode": 8, "httpCode": 429}}
            raw = mutant(body, case.chance)
            found = read_refusal(raw)
            (found.message or "").encode()
            try:
                plain = plainly.one(raw)
            except plainly.REFUSED:
                plain = None
            reached.count(plain is not None)
            if plain is not None and (found.code, found.message) != (None, None):
                read += 1
                inner = plain.get("error")
                error = plainly.status(inner if isinstance(inner, dict) else plain)
                assert (found.code, found.message or "") == error
    reached.check()
    assert read > CASES / 2


def test_a_token_or_a_key_is_read_or_refused() -> None:
    reached = Reached()
    iam = {"iamToken": "t1.abcdefgh", "expiresAt": "2026-11-22T22:00:00Z"}
    metadata = {"access_token": "t1.abcdefgh", "expires_in": 43200, "token_type": "Bearer"}
    key = {"id": "ajek", "service_account_id": "ajes", "private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n"}
    for case in cases("tokens", 2400):
        with case:
            read, said = case.chance.choice([(read_token, iam), (read_token, metadata), (sign, key)])
            raw = mutant(dict(said), case.chance)
            reached.count(plain_envelope(raw) is not None)
            try:
                token = read(raw, 1_800_000_000.0)  # type: ignore[operator]
            except (AnswerUnreadableError, ConnectionSettingsError) as error:
                str(error).encode()
                continue
            assert token.value.isprintable()
            assert token.renew_at < 1_800_000_000.0 + 3601.0
            assert math.isfinite(token.unusable_at)
    reached.check()


def sign(raw: bytes, now: float) -> None:
    key = AuthorizedKey.from_json(raw.decode("utf-8", "surrogateescape"))
    key.jwt(now)
    raise AssertionError("that was no key")


def test_a_recognition_is_whole_or_refused() -> None:
    for case in cases("recognitions", 800):
        with case:
            message = {"result": {"final": {"alternatives": [{"words": [], "text": "да"}]}, "channelTag": "0"}}
            last: dict[str, Any] = {"error": dict(ERROR)} if case.chance.randrange(2) else message
            raw = written(message, case.chance) + b"\n" + mutant(json.loads(json.dumps(last)), case.chance)
            try:
                assert check_recognition(Response(200, {}, raw), "f8done") == raw
            except (AnswerUnreadableError, RecognitionFailedError) as error:
                str(error).encode()
