"""API v3 over HTTP, and that both APIs say the same of one recording."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, Caller, first_sentence, transcript_of, wav

ENABLED = {"text_normalization": "TEXT_NORMALIZATION_ENABLED"}


def model(container: str = "OGG_OPUS", **more: Any) -> dict[str, Any]:
    return {"audio_format": {"container_audio": {"container_audio_type": container}}, **more}


def recognised(caller: Caller, link: str, **message: Any) -> tuple[str, list[dict[str, Any]]]:
    operation_id = caller.submit_v3(link, **message).json()["id"]
    caller.finished(operation_id)
    return operation_id, caller.stream(operation_id)


def test_submit_and_operation_answers_have_the_services_shape(speechkit: EmulatorProcess, caller: Caller) -> None:
    answer = caller.submit_v3(speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello")))
    assert answer.status_code == 200, answer.text
    accepted = answer.json()
    assert list(accepted) == ["id", "description", "createdAt", "createdBy", "modifiedAt", "done", "metadata"]
    assert accepted["id"].startswith("f8d")
    assert (accepted["done"], accepted["metadata"]) == (False, None)
    operation = caller.finished(accepted["id"])
    assert list(operation) == ["done", "id", "description", "createdAt", "createdBy", "modifiedAt"]


def test_each_utterance_has_a_final_a_refinement_and_an_end_event(speechkit: EmulatorProcess, caller: Caller) -> None:
    utterance = {"text": "twenty one", "normalized_text": "21", "start_ms": 3460, "end_ms": 7400}
    link = speechkit.put("b.ogg", OGG_HEAD, {"duration_ms": 7400, "channels": [{"utterances": [utterance]}]})
    operation_id, events = recognised(caller, link, recognition_model=model(text_normalization=ENABLED))
    results = [event["result"] for event in events]
    assert [list(result)[3] for result in results] == ["final", "finalRefinement", "eouUpdate"]
    for result in results:
        assert list(result) == ["sessionUuid", "audioCursors", "responseWallTimeMs", list(result)[3], "channelTag"]
        assert result["sessionUuid"]["userRequestId"] == operation_id
        assert result["channelTag"] == "0"
    cursors = results[0]["audioCursors"]
    assert cursors == {
        "receivedDataMs": "7400",
        "resetTimeMs": "0",
        "partialTimeMs": "7400",
        "finalTimeMs": "7400",
        "finalIndex": "0",
        "eouTimeMs": "0",
    }
    (final,) = results[0]["final"]["alternatives"]
    assert list(final) == ["words", "text", "startTimeMs", "endTimeMs", "confidence", "languages"]
    assert (final["text"], final["startTimeMs"], final["words"][0]["startTimeMs"]) == ("twenty one", "0", "3460")
    refinement = results[1]["finalRefinement"]
    assert refinement["finalIndex"] == "0"
    assert refinement["normalizedText"]["alternatives"][0]["text"] == "21"
    assert refinement["normalizedText"]["alternatives"][0]["words"] == final["words"]
    assert results[2]["eouUpdate"] == {"timeMs": "7400"}


def test_without_normalisation_a_refinement_only_has_a_capital_letter(
    speechkit: EmulatorProcess, caller: Caller
) -> None:
    utterance = {"text": "twenty one", "normalized_text": "21", "end_ms": 900}
    link = speechkit.put("c.ogg", OGG_HEAD, {"duration_ms": 900, "channels": [{"utterances": [utterance]}]})
    _, events = recognised(caller, link)
    refinement = events[1]["result"]["finalRefinement"]["normalizedText"]
    assert refinement["alternatives"][0]["text"] == "Twenty one"


def test_a_transcript_can_leave_out_a_refinement(speechkit: EmulatorProcess, caller: Caller) -> None:
    first = {"text": "one", "end_ms": 900, "refined": False}
    second = {"text": "two", "start_ms": 1000, "end_ms": 1900}
    link = speechkit.put("d.ogg", OGG_HEAD, {"duration_ms": 2000, "channels": [{"utterances": [first, second]}]})
    _, events = recognised(caller, link)
    refined = [e["result"]["finalRefinement"]["finalIndex"] for e in events if "finalRefinement" in e["result"]]
    assert refined == ["1"]


def test_silence_is_an_empty_stream(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("silence.ogg", OGG_HEAD, {"duration_ms": 900})
    assert recognised(caller, link)[1] == []


def test_a_result_is_not_ready_before_the_operation_is_done_or_with_a_fault(
    speechkit: EmulatorProcess, caller: Caller
) -> None:
    link = speechkit.put("e.ogg", OGG_HEAD, transcript_of("hello", processing_s=5000))
    operation_id = caller.submit_v3(link).json()["id"]
    path = f"/stt/v3/getRecognition?operationId={operation_id}"
    early = caller.ask("GET", path)
    assert early.status_code == 404
    assert early.json()["error"]["message"] == f"operation data is not ready {operation_id}"
    speechkit.advance(5000)
    caller.finished(operation_id)
    speechkit.fault("not_ready", times=2)
    assert [caller.ask("GET", path).status_code for _ in range(3)] == [404, 404, 200]


def test_a_result_can_be_indented(speechkit: EmulatorProcess, caller: Caller) -> None:
    operation_id, compact = recognised(caller, speechkit.put("f.ogg", OGG_HEAD, transcript_of("hello")))
    speechkit.fault("pretty")
    text = caller.ask("GET", f"/stt/v3/getRecognition?operation_id={operation_id}").text
    assert text.startswith('{\n   "result": {\n')
    decoder, place, objects = json.JSONDecoder(), 0, []
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        objects.append(value)
        place += len(text[place:]) - len(text[place:].lstrip())
    assert objects == compact


def test_a_stream_can_end_with_an_error(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put(
        "g.ogg", OGG_HEAD, transcript_of("hello", stream_error={"code": 13, "message": "lost", "after": 2})
    )
    _, events = recognised(caller, link)
    assert [next(iter(event)) for event in events] == ["result", "result", "error"]
    assert (events[-1]["error"]["grpcCode"], events[-1]["error"]["message"]) == (13, "lost")
    speechkit.fault("stream_error")
    _, events = recognised(caller, speechkit.put("h.ogg", OGG_HEAD, transcript_of("hello")))
    assert "error" in events[-1]


def test_faults_can_leave_out_refinements_and_words(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("i.ogg", OGG_HEAD, transcript_of("hello"))
    speechkit.fault("missing_refinements")
    speechkit.fault("no_words")
    _, events = recognised(caller, link)
    assert [list(event["result"])[3] for event in events] == ["final", "eouUpdate"]
    assert events[0]["result"]["final"]["alternatives"][0]["words"] == []


def test_requested_speakers_and_analyses_come_from_the_transcript(speechkit: EmulatorProcess, caller: Caller) -> None:
    utterances = [
        {"text": "hello", "end_ms": 900, "speaker": "0"},
        {"text": "hi", "start_ms": 1000, "end_ms": 1900, "speaker": "1"},
    ]
    analyses = [
        {"channel": 0, "speakerAnalysis": {"speakerTag": "0"}},
        {"conversationAnalysis": {"conversationBoundaries": {}}},
        {"summarization": {"results": [{"response": "a greeting"}]}},
        {"classifierUpdate": {"windowType": "LAST_UTTERANCE"}},
    ]
    transcript = {"duration_ms": 2000, "channels": [{"utterances": utterances}], "analyses": analyses}
    link = speechkit.put("j.ogg", OGG_HEAD, transcript)
    _, plain = recognised(caller, link)
    assert {event["result"]["channelTag"] for event in plain} == {"0"}
    assert not any("Analysis" in kind for event in plain for kind in event["result"])
    _, events = recognised(
        caller,
        link,
        speaker_labeling={"speaker_labeling": "SPEAKER_LABELING_ENABLED"},
        speech_analysis={"enable_speaker_analysis": True, "enable_conversation_analysis": True},
        summarization={"model_uri": "gpt://folder/model"},
        recognition_classifier={"classifiers": [{"classifier": "insult", "triggers": ["ON_UTTERANCE"]}]},
    )
    assert [e["result"]["channelTag"] for e in events if "final" in e["result"]] == ["0", "1"]
    kinds = [list(event["result"])[3] for event in events][-4:]
    assert kinds == ["speakerAnalysis", "conversationAnalysis", "summarization", "classifierUpdate"]
    assert events[-2]["result"]["summarization"] == {"results": [{"response": "a greeting"}]}


def test_a_result_can_be_deleted(speechkit: EmulatorProcess, caller: Caller) -> None:
    operation_id, _ = recognised(caller, speechkit.put("k.ogg", OGG_HEAD, transcript_of("hello")))
    delete = f"/stt/v3/deleteRecognition?operationId={operation_id}"
    assert caller.ask("DELETE", delete).json() == {}
    assert caller.ask("GET", f"/stt/v3/getRecognition?operation_id={operation_id}").status_code == 404
    assert caller.ask("DELETE", delete).status_code == 404


def test_a_wav_is_recognised_by_link_and_inline(speechkit: EmulatorProcess, caller: Caller) -> None:
    content = wav(first_sentence())
    link = speechkit.put("message.wav", content)
    english = {"restriction_type": "WHITELIST", "language_code": ["en-US"]}
    _, events = recognised(caller, link, recognition_model=model("WAV", language_restriction=english))
    audio_format = {"containerAudio": {"containerAudioType": "WAV"}}
    body = {"content": base64.b64encode(content).decode(), "recognitionModel": {"audioFormat": audio_format}}
    accepted = caller.ask("POST", "/stt/v3/recognizeFileAsync", body)
    assert accepted.status_code == 200, accepted.text
    caller.finished(accepted.json()["id"])
    inline = caller.stream(accepted.json()["id"])
    texts = [[e["result"]["final"] for e in stream if "final" in e["result"]] for stream in (events, inline)]
    assert texts[0] == texts[1]
    assert "message for" in json.dumps(texts[0])


def test_both_apis_answer_the_same_words_of_a_transcript(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("both.ogg", OGG_HEAD, transcript_of("hello big world", "what can i do for you"))
    _, events = recognised(caller, link)
    assert len(same_words(caller.finished(caller.submit(link).json()["id"]), events)) == 9


def test_both_apis_recognise_the_same_words(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("both.pcm", first_sentence())
    raw = {"audio_encoding": "LINEAR16_PCM", "sample_rate_hertz": "16000", "audio_channel_count": "1"}
    _, events = recognised(caller, link, recognition_model={"audio_format": {"raw_audio": raw}})
    assert len(same_words(caller.finished(caller.submit_pcm(link).json()["id"]), events)) > 6


def same_words(operation: dict[str, Any], events: list[dict[str, Any]]) -> list[tuple[int, str, int]]:
    """The words of both results as (channel, word, start), which are the same."""
    first = [
        (int(chunk["channelTag"]) - 1, word["word"], round(float(word["startTime"][:-1]) * 1000))
        for chunk in operation["response"]["chunks"]
        for word in chunk["alternatives"][0]["words"]
    ]
    second = [
        (int(event["result"]["channelTag"]), word["text"], int(word["startTimeMs"]))
        for event in events
        if "final" in event["result"]
        for word in event["result"]["final"]["alternatives"][0]["words"]
    ]
    assert first == second
    return first


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"content": "AAAA"}, "exactly one"),
        ({"recognition_model": {}}, "audio_format"),
        ({"recognition_model": model("FLAC")}, "container_audio_type"),
        ({"recognition_model": {"audio_format": {"raw_audio": {"sample_rate_hertz": 44100}}}}, "44100"),
        ({"recognition_model": model(model="hqa")}, "model"),
        ({"recognition_model": model(text_normalization={"text_normalization": "YES"})}, "text_normalization"),
        ({"recognition_model": model(language_restriction={"language_code": ["xx"]})}, "language"),
        ({"recognition_model": model(text_normalization={"phone_formatting_mode": "FOO"})}, "phone_formatting_mode"),
        ({"recognition_model": model(audio_processing_type="NOPE")}, "audio_processing_type"),
        ({"recognition_model": model(language_restriction={"language_code": "ru-RU"})}, "language_code"),
        ({"speaker_labeling": {"speaker_labeling": "ON"}}, "speaker_labeling"),
        ({"speech_analysis": {"descriptive_statistics_quantiles": [5]}}, "descriptive_statistics_quantiles"),
        ({"speech_analysis": {"descriptive_statistics_quantiles": 0.5}}, "descriptive_statistics_quantiles"),
        ({"speech_analysis": {"speaker_options": {"silence_threshold_ms": "long"}}}, "silence_threshold_ms"),
        ({"speech_analysis": {"converstation_options": "x"}}, "converstation_options"),
        ({"summarization": {"properties": []}}, None),
        ({"summarization": {"properties": [{}] * 17, "model_uri": "gpt://a/b"}}, "16"),
        ({"summarization": {"properties": ["x"], "model_uri": "gpt://a/b"}}, "properties"),
        (
            {
                "summarization": {
                    "properties": [{"json_object": True, "json_schema": {"schema": {}}}],
                    "model_uri": "gpt://a/b",
                }
            },
            "json_object",
        ),
        ({"recognition_classifier": {"classifiers": [{"triggers": ["NEVER"]}]}}, "triggers"),
        ({"recognition_classifier": {"classifiers": {"insult": ["ON_FINAL"]}}}, "classifiers"),
    ],
)
def test_an_invalid_v3_submit_is_refused(
    speechkit: EmulatorProcess, caller: Caller, message: dict[str, Any], words: str | None
) -> None:
    answer = caller.submit_v3(speechkit.put("l.ogg", OGG_HEAD, transcript_of("hello")), **message)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["grpcCode"], error["httpCode"], error["httpStatus"], error["details"]) == (3, 400, "Bad Request", [])
    assert words is None or words in error["message"]


def test_speaker_labels_are_refused_for_two_channels(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("m.ogg", OGG_HEAD, transcript_of("a", "b"))
    answer = caller.submit_v3(link, speaker_labeling={"speaker_labeling": "SPEAKER_LABELING_ENABLED"})
    assert answer.status_code == 400


def test_another_folder_is_refused_by_v3(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("n.ogg", OGG_HEAD, transcript_of("a"))
    body = {"uri": link, "recognition_model": model()}
    answer = caller.ask("POST", "/stt/v3/recognizeFileAsync", body, **{"x-folder-id": "b1gother"})
    assert answer.status_code == 400
    assert "does not match" in answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_413() -> None:
    with EmulatorProcess("--body-limit=10000") as small:
        caller = Caller(small)
        body = {"content": "A" * 20_000, "recognition_model": model()}
        answer = caller.ask("POST", "/stt/v3/recognizeFileAsync", body)
        assert answer.status_code == 413
        assert answer.json()["error"]["httpCode"] == 413
        assert caller.ask("POST", "/speech/stt/v2/longRunningRecognize", body).status_code == 413
        caller.session.close()


def test_the_sixth_v3_check_in_a_second_is_refused() -> None:
    with EmulatorProcess(speed=0.1) as slow:
        caller = Caller(slow)
        operation_id = slow.stand_ins(1, api="v3")[0]
        statuses = [caller.ask("GET", f"/operations/{operation_id}").status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        slow.advance(1)
        assert caller.ask("GET", f"/operations/{operation_id}").status_code == 200
        caller.session.close()


def test_a_v2_operation_has_no_v3_result(speechkit: EmulatorProcess, caller: Caller) -> None:
    operation_id = speechkit.stand_ins(1)[0]
    time.sleep(0.01)
    assert caller.ask("GET", f"/stt/v3/getRecognition?operation_id={operation_id}").status_code == 404
    assert caller.ask("GET", "/stt/v3/getRecognition").status_code == 400
