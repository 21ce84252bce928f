from __future__ import annotations

import json

import pytest

from airflow_speechkit.api.http import Response
from airflow_speechkit.api.operation import OperationState, check_recognition, operation_of
from airflow_speechkit.errors import (
    AnswerUnreadableError,
    AuthenticationError,
    NotFinishedError,
    OperationNotFoundError,
    PermissionDeniedError,
    RecognitionFailedError,
    RefusedError,
    ResultExpiredError,
    SettingsError,
    UnreachableError,
)
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.unit.api.loopback import RUNNING, Carrier, ScriptedServer, answer, service_at

LINK = "https://storage.yandexcloud.net/b/k.ogg"
V2 = RecognitionSettings(audio_encoding="OGG_OPUS")
V3 = RecognitionSettings(api_version="v3", audio_encoding="WAV")
NOT_READY = {"error": {"grpcCode": 5, "message": "operation data is not ready f8dabc"}}
GONE = {"error": {"grpcCode": 5, "message": "operation f8dabc not found"}}
STREAM = json.dumps({"result": {"channelTag": "0"}}).encode() * 2


def test_v2_is_submitted_where_v2_is(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(200, RUNNING)]
    operation = carry(service_at(server.url, folder_id="b1g").submit(V2, audio_uri=LINK))
    assert (operation.id, operation.state) == ("e03abc", OperationState.RUNNING)
    (request,) = server.received
    assert (request.method, request.path) == ("POST", "/speech/stt/v2/longRunningRecognize")
    assert request.json["audio"] == {"uri": LINK}
    assert "folderId" not in request.json["config"]
    assert "x-folder-id" not in request.headers
    assert "x-data-logging-enabled" not in request.headers


def test_v3_is_submitted_where_v3_is(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(200, {**RUNNING, "id": "f8dabc", "description": "STT v3 async recognition"})]
    service = service_at(server.url, folder_id="b1g", data_logging_enabled=True)
    operation = carry(service.submit(V3, audio_uri=None, content=b"RIFF"))
    assert operation.api_version is ApiVersion.V3
    (request,) = server.received
    assert (request.method, request.path) == ("POST", "/stt/v3/recognizeFileAsync")
    assert request.json["content"] == "UklGRg=="
    assert request.headers["x-folder-id"] == "b1g"
    assert request.headers["x-data-logging-enabled"] == "true"


def test_data_logging_is_sent_as_true_or_false(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(200, RUNNING)]
    carry(service_at(server.url, data_logging_enabled=False).submit(V2, audio_uri=LINK))
    assert server.received[0].headers["x-data-logging-enabled"] == "false"


def test_v2_takes_no_recording_itself(server: ScriptedServer, carry: Carrier) -> None:
    with pytest.raises(SettingsError, match="takes only a link"):
        carry(service_at(server.url).submit(V2, audio_uri=None, content=b"x"))
    assert not server.received


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"id":"e0', b"{}", b'{"id":"../e03"}'])
def test_a_submissions_answer_that_cannot_be_read_may_be_an_accepted_one(
    server: ScriptedServer, carry: Carrier, body: bytes
) -> None:
    server.script = [answer(200, body)]
    with pytest.raises(AnswerUnreadableError) as caught:
        carry(service_at(server.url).submit(V2, audio_uri=LINK))
    assert caught.value.may_have_been_accepted
    assert caught.value.request_id == "rq-1"
    assert len(server.received) == 1


def test_an_operation_is_requested(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(200, RUNNING)]
    response = carry(service_at(server.url).operation("e03abc"))
    assert operation_of(response, "e03abc").state is OperationState.RUNNING
    assert server.received[0].path == "/operations/e03abc"


def test_an_operations_answer_that_is_cut_off_names_the_operation() -> None:
    with pytest.raises(AnswerUnreadableError) as caught:
        operation_of(Response(200, {"x-request-id": "rq"}, b'{"id":'), "e03abc")
    assert caught.value.operation_id == "e03abc"
    assert not caught.value.may_have_been_accepted


@pytest.mark.parametrize("operation_id", ["", "a/b", "e03?x=1", "x" * 51, "ё", "refused:1"])
def test_what_cannot_be_an_operation_id_is_never_requested(
    server: ScriptedServer, carry: Carrier, operation_id: str
) -> None:
    with pytest.raises(SettingsError, match="isn't an operation id"):
        carry(service_at(server.url).operation(operation_id))
    assert not server.received


def test_a_cancel_is_a_get_first(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(200, RUNNING)]
    carry(service_at(server.url).cancel("e03abc"))
    assert [(request.method, request.path) for request in server.received] == [("GET", "/operations/e03abc:cancel")]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_cancel_is_a_post_where_get_is_unknown(server: ScriptedServer, carry: Carrier, status: int) -> None:
    server.script = [answer(status), answer(200, RUNNING)]
    carry(service_at(server.url).cancel("e03abc"))
    assert [request.method for request in server.received] == ["GET", "POST"]


def test_an_operation_that_cannot_be_cancelled_is_an_error(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(400, {"code": 9, "message": "operation is not cancellable"})]
    with pytest.raises(RefusedError, match="not cancellable"):
        carry(service_at(server.url).cancel("e03abc"))


def test_a_result_that_is_not_ready_is_requested_again(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(404, NOT_READY), answer(404, NOT_READY), answer(200, STREAM)]
    response = carry(service_at(server.url, folder_id="b1g").recognition("f8dabc", seen_done=True))
    assert check_recognition(response, "f8dabc") == STREAM
    assert carry.pauses == [1.0, 2.0]
    assert server.received[0].path == "/stt/v3/getRecognition?operation_id=f8dabc"
    assert server.received[0].headers["x-folder-id"] == "b1g"


def test_a_result_that_does_not_get_ready_can_be_requested_later(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(404, NOT_READY)]
    with pytest.raises(NotFinishedError) as caught:
        carry(service_at(server.url).recognition("f8dabc", seen_done=True))
    assert caught.value.retry_can_help
    assert len(server.received) == 6


def test_an_expired_result_differs_from_one_that_never_existed(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(404, GONE)]
    with pytest.raises(ResultExpiredError):
        carry(service_at(server.url).recognition("f8dabc", seen_done=True))
    with pytest.raises(OperationNotFoundError):
        carry(service_at(server.url).recognition("f8dabc", seen_done=False))


def test_an_error_in_mid_stream_fails_without_repeating_secrets() -> None:
    body = STREAM + b'{"error":{"code":13,"message":"lost AQVNabcdefghijklmnop"}}'
    with pytest.raises(RecognitionFailedError, match="lost") as caught:
        check_recognition(Response(200, {"x-request-id": "rq"}, body), "f8dabc")
    assert caught.value.code == 13
    assert "AQVN" not in str(caught.value)
    assert caught.value.request_id == "rq"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("boom", '"boom"'),
        ("AQVNabcdefghijklmnop", "ends with an error"),
        ([1], "ends with an error"),
        (0, "ends with an error"),
        ({"code": 13}, r"ends with an error \(code 13\)"),
    ],
)
@pytest.mark.parametrize("result", [{}, {"result": None}])
def test_an_error_in_mid_stream_fails_whatever_its_type(result: dict[str, None], error: object, says: str) -> None:
    body = STREAM + b"\n" + json.dumps({**result, "error": error}).encode() + b"\n"
    with pytest.raises(RecognitionFailedError, match=says) as caught:
        check_recognition(Response(200, {}, body), "f8dabc")
    assert "AQVN" not in str(caught.value)


SAID = json.dumps({"result": {"final": {"alternatives": [{"text": 'say "error": now', "words": [{}, {}]}]}}}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>",
        STREAM[:-5],
        SAID + b"\n" + SAID[: SAID.index(b"}") + 1],
        SAID + b"\n" + SAID[:40] + b'\n{"error":{"code":13,"message":"internal"}}\n',
        SAID + b"\n" + SAID[:40] + b"\n" + SAID,
        SAID + b"\n[]",
        b"7",
        b'{"result":[]}',
        b'{"result":{"confidence":NaN}}',
        SAID.replace(b"now", b"\xff"),
        b'{"result":' * 100_000,
    ],
    ids=range(11),
)
def test_what_is_no_result_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(AnswerUnreadableError, match="checks again"):
        check_recognition(Response(200, {}, body), "f8dabc")


@pytest.mark.parametrize("body", [b"", b" \r\n\t", SAID * 2, SAID + b"\n\n" + SAID + b"\n", SAID + b'{"error":null}'])
def test_a_whole_result_is_given_as_it_is_and_an_empty_one_is_silence(body: bytes) -> None:
    assert check_recognition(Response(200, {}, body), "f8dabc") == body


def test_a_result_is_deleted_and_one_that_was_not_there_is_no_failure(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(200), answer(404, GONE)]
    service = service_at(server.url)
    assert carry(service.delete_recognition("f8dabc")) is True
    assert carry(service.delete_recognition("f8dabc")) is False
    assert server.received[0].method == "DELETE"
    assert server.received[0].path == "/stt/v3/deleteRecognition?operationId=f8dabc"


# --- the probe

NOT_FOUND = answer(404, {"code": 5, "message": "Operation not found"})
EMPTY = answer(400, {"code": 3, "message": "audio uri is empty"})


@pytest.mark.parametrize("version", list(ApiVersion))
def test_a_probe_finds_a_sound_connection_sound_and_names_no_recording(
    server: ScriptedServer, carry: Carrier, version: ApiVersion
) -> None:
    server.script = [NOT_FOUND, EMPTY]
    assert "lets it recognise speech" in carry(service_at(server.url).probe(version))
    request = server.received[1].json
    assert request.get("uri", request.get("audio", {}).get("uri")) == ""


def test_a_probe_raises_what_is_wrong(server: ScriptedServer, carry: Carrier) -> None:
    for script, kind in (
        ([answer(401)], AuthenticationError),
        ([NOT_FOUND, answer(403)], PermissionDeniedError),
        ([answer(403)], PermissionDeniedError),
        ([NOT_FOUND, answer(404)], RefusedError),
        ([NOT_FOUND, answer(400, {"message": "Specified folder ID 'a' does not match"})], RefusedError),
    ):
        server.script = list(script)
        with pytest.raises(kind):
            carry(service_at(server.url).probe(ApiVersion.V3))
    with pytest.raises(UnreachableError):
        carry(service_at("http://127.0.0.1:1", attempts=1).probe(ApiVersion.V2))


def test_a_probe_that_meets_a_used_up_quota_has_found_a_sound_connection(
    server: ScriptedServer, carry: Carrier
) -> None:
    server.script = [NOT_FOUND, answer(429)]
    assert "quota" in carry(service_at(server.url).probe(ApiVersion.V2))
