"""What to do about a recording, decided from what is on record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_speechkit.api.submission import v2_body, v3_body
from airflow_speechkit.archive.ledger import (
    RESULTS_KEPT,
    Action,
    Attempt,
    AttemptState,
    Failure,
    Request,
    decide,
    fingerprint,
)
from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import Recording
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINE, THEIRS = "mine", "theirs"


def attempt(number: int, state: AttemptState, **about: Any) -> Attempt:
    defaults: dict[str, Any] = {"scope": THEIRS}
    if state in (AttemptState.IN_FLIGHT, AttemptState.FINISHED, AttemptState.FAILED, AttemptState.EXPIRED):
        defaults |= {"operation_id": f"op{number}", "submitted_at": NOW - timedelta(minutes=5)}
    if state is AttemptState.CLAIMED:
        defaults |= {"lease_expires_at": NOW + timedelta(minutes=5), "owner": "worker-7"}
    return Attempt(number=number, state=state, **(defaults | about))


def decided(*attempts: Attempt, now: datetime = NOW, **request: Any) -> tuple[Action, int, str | None]:
    decision = decide(attempts, Request(scope=MINE, **request), now)
    return decision.action, decision.attempt, decision.operation_id


def failed(number: int, code: int | None, **about: Any) -> Attempt:
    return attempt(number, AttemptState.FAILED, failure=Failure(code, "no"), **about)


class TestDecide:
    def test_nothing_on_record_is_submitted(self) -> None:
        assert decided() == (Action.SUBMIT, 1, None)

    def test_an_operation_in_flight_is_joined(self) -> None:
        assert decided(attempt(1, AttemptState.IN_FLIGHT)) == (Action.JOIN, 1, "op1")

    def test_an_archived_answer_is_used(self) -> None:
        assert decided(attempt(1, AttemptState.FINISHED)) == (Action.REUSE, 1, "op1")

    def test_an_archived_answer_is_used_however_old_it_is(self) -> None:
        assert decided(attempt(1, AttemptState.FINISHED, submitted_at=NOW - timedelta(days=900)))[0] is Action.REUSE

    def test_the_newest_answer_is_used(self) -> None:
        assert decided(attempt(1, AttemptState.FINISHED), attempt(2, AttemptState.FINISHED)) == (Action.REUSE, 2, "op2")

    def test_an_answer_that_is_there_is_better_than_one_to_come(self) -> None:
        assert decided(attempt(1, AttemptState.FINISHED), attempt(2, AttemptState.IN_FLIGHT)) == (
            Action.REUSE,
            1,
            "op1",
        )

    @pytest.mark.parametrize("code", [3, 11, 12])
    def test_what_would_fail_again_ends_at_once(self, code: int) -> None:
        assert decided(failed(1, code)) == (Action.FAIL, 1, "op1")

    @pytest.mark.parametrize("code", [1, 2, 4, 5, 7, 8, 10, 13, 14, 16, None])
    def test_what_a_retry_can_mend_is_submitted_anew(self, code: int | None) -> None:
        assert decided(failed(1, code)) == (Action.SUBMIT, 2, None)

    @pytest.mark.parametrize(("age", "action"), [(RESULTS_KEPT, Action.ASK), (RESULTS_KEPT / 2, Action.JOIN)])
    def test_the_service_is_asked_about_an_operation_older_than_it_keeps_results(
        self, age: timedelta, action: Action
    ) -> None:
        assert decided(attempt(1, AttemptState.IN_FLIGHT, submitted_at=NOW - age)) == (action, 1, "op1")

    @pytest.mark.parametrize("state", [AttemptState.EXPIRED, AttemptState.FORGOTTEN, AttemptState.REFUSED])
    def test_what_left_nothing_is_submitted_anew(self, state: AttemptState) -> None:
        assert decided(attempt(1, state)) == (Action.SUBMIT, 2, None)

    def test_a_live_claim_is_waited_for(self) -> None:
        decision = decide([attempt(1, AttemptState.CLAIMED)], Request(scope=MINE), NOW)
        assert (decision.action, decision.owner) == (Action.WAIT, "worker-7")

    def test_an_expired_claim_is_a_lost_submission(self) -> None:
        assert decided(attempt(1, AttemptState.CLAIMED, lease_expires_at=NOW)) == (Action.LOST, 1, None)

    def test_what_its_owner_calls_lost_is_lost_before_the_lease_ends(self) -> None:
        assert decided(attempt(1, AttemptState.LOST)) == (Action.LOST, 1, None)

    @pytest.mark.parametrize(
        "lost",
        [attempt(1, AttemptState.LOST), attempt(1, AttemptState.CLAIMED, lease_expires_at=NOW - timedelta(hours=1))],
    )
    def test_a_lost_submission_is_sent_again_only_on_request(self, lost: Attempt) -> None:
        assert decided(lost, resubmit_lost=True) == (Action.SUBMIT, 2, None)

    def test_a_lost_submission_stays_lost_behind_one_that_was_refused(self) -> None:
        assert decided(attempt(1, AttemptState.LOST), attempt(2, AttemptState.REFUSED)) == (Action.LOST, 1, None)
        assert decided(attempt(1, AttemptState.LOST), attempt(2, AttemptState.REFUSED), resubmit_lost=True)[1] == 3

    @pytest.mark.parametrize(
        "later",
        [
            failed(2, 13),
            failed(2, 3),
            attempt(2, AttemptState.EXPIRED),
            attempt(2, AttemptState.FORGOTTEN),
            # Sent over another one, or over this one but never really sent.
            failed(3, 13, supersedes=(2,)),
            attempt(2, AttemptState.REFUSED, supersedes=(1,)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize(
        "lost", [attempt(1, AttemptState.LOST), attempt(1, AttemptState.CLAIMED, lease_expires_at=NOW)]
    )
    def test_a_lost_submission_is_not_over_because_another_one_came_to_an_end(
        self, lost: Attempt, later: Attempt
    ) -> None:
        assert decided(lost, later) == (Action.LOST, 1, None)

    @pytest.mark.parametrize(
        "later",
        [
            failed(2, 13, supersedes=(1,)),
            attempt(2, AttemptState.EXPIRED, supersedes=(1,)),
            attempt(2, AttemptState.FORGOTTEN, supersedes=(1,)),
        ],
    )
    def test_a_lost_submission_is_over_once_it_was_sent_again_on_purpose(self, later: Attempt) -> None:
        assert decided(attempt(1, AttemptState.LOST), later) == (Action.SUBMIT, 3, None)

    def test_of_several_lost_submissions_each_has_to_be_settled(self) -> None:
        both = (attempt(1, AttemptState.LOST), attempt(2, AttemptState.LOST))
        assert decided(*both) == (Action.LOST, 2, None)
        assert decided(attempt(1, AttemptState.LOST), attempt(2, AttemptState.REFUSED)) == (Action.LOST, 1, None)
        decision = decide(both, Request(scope=MINE, resubmit_lost=True), NOW)
        assert (decision.action, decision.attempt, decision.supersedes) == (Action.SUBMIT, 3, (2, 1))
        assert decided(*both, failed(3, 13, supersedes=(2, 1))) == (Action.SUBMIT, 4, None)

    def test_what_is_in_place_of_nothing_has_no_such_fact(self) -> None:
        assert decide([], Request(scope=MINE, resubmit_lost=True), NOW).supersedes == ()
        over = attempt(1, AttemptState.LOST), failed(2, 13, supersedes=(1,))
        assert decide(over, Request(scope=MINE, resubmit_lost=True), NOW).supersedes == ()

    @pytest.mark.parametrize(
        "again",
        [
            attempt(2, AttemptState.LOST, scope=MINE, supersedes=(1,)),
            attempt(2, AttemptState.CLAIMED, scope=MINE, supersedes=(1,), lease_expires_at=NOW),
        ],
        ids=["lost", "killed"],
    )
    def test_a_task_instance_sends_a_lost_submission_again_once(self, again: Attempt) -> None:
        before = attempt(1, AttemptState.LOST)
        assert decided(before, again, resubmit_lost=True) == (Action.LOST, 2, None)
        # Another one may, once; and then that one has settled them all, also if the second was never really sent.
        theirs = decide([before, again], Request(scope="another", resubmit_lost=True), NOW)
        assert (theirs.action, theirs.supersedes) == (Action.SUBMIT, (2, 1))
        released = attempt(2, AttemptState.REFUSED, scope=MINE, supersedes=(1,))
        assert decided(before, released, failed(3, 13, supersedes=theirs.supersedes)) == (Action.SUBMIT, 4, None)

    def test_a_task_instance_whose_second_send_was_accepted_may_send_a_lost_one_again(self) -> None:
        story = (
            attempt(1, AttemptState.LOST),
            failed(2, 13, scope=MINE, supersedes=(1,)),
            attempt(3, AttemptState.LOST, scope=MINE),
        )
        assert decided(*story, resubmit_lost=True) == (Action.SUBMIT, 4, None)

    @pytest.mark.parametrize(
        "story", [(attempt(1, AttemptState.LOST), failed(2, 3)), (failed(2, 3), attempt(3, AttemptState.LOST))]
    )
    def test_what_would_fail_again_is_not_sent_over_a_lost_submission(self, story: tuple[Attempt, Attempt]) -> None:
        assert decided(*story, resubmit_lost=True) == (Action.FAIL, 2, "op2")

    def test_a_deleted_failure_counts_as_never_having_been(self) -> None:
        assert decided(failed(1, 3), attempt(2, AttemptState.FORGOTTEN)) == (Action.FAIL, 1, "op1")

    def test_the_order_of_the_records_does_not_matter(self) -> None:
        assert decided(attempt(2, AttemptState.IN_FLIGHT), failed(1, 13)) == (Action.JOIN, 2, "op2")


class TestPayAgainOnPurpose:
    @pytest.mark.parametrize(
        "state",
        [AttemptState.FINISHED, AttemptState.IN_FLIGHT, AttemptState.CLAIMED, AttemptState.LOST, AttemptState.FAILED],
    )
    def test_what_others_have_does_not_count(self, state: AttemptState) -> None:
        assert decided(attempt(1, state), reuse=False) == (Action.SUBMIT, 2, None)

    @pytest.mark.parametrize(
        ("state", "action"),
        [
            (AttemptState.FINISHED, Action.REUSE),
            (AttemptState.IN_FLIGHT, Action.JOIN),
            (AttemptState.CLAIMED, Action.WAIT),
            (AttemptState.LOST, Action.LOST),
        ],
    )
    def test_a_retry_of_the_same_task_instance_does_not_pay_a_third_time(
        self, state: AttemptState, action: Action
    ) -> None:
        found = decided(attempt(1, AttemptState.FINISHED), attempt(2, state, scope=MINE), reuse=False)
        assert found[:2] == (action, 2)

    def test_what_others_settled_is_not_settled_for_it(self) -> None:
        # Its own may have been paid for; that another run paid for another one is no leave to pay a third time.
        found = decided(attempt(1, AttemptState.LOST, scope=MINE), failed(2, 13, supersedes=(1,)), reuse=False)
        assert found == (Action.LOST, 1, None)

    def test_its_own_permanent_failure_ends_at_once(self) -> None:
        assert decided(failed(1, 3, scope=MINE), reuse=False)[0] is Action.FAIL


#: What can be asked for, a few values for each keyword: so that some of many requests mean the same.
ASKED: dict[str, list[Any]] = {
    "language": ["ru-RU", "RU-ru", "en-US", "auto"],
    "languages": [(), ("ru-RU",), ("en-us",), ("en-US", "ru-RU"), ("EN-us", "ru-RU"), ("auto",), ("auto", "en-US")],
    "language_restriction": ["WHITELIST", "BLACKLIST"],
    "raw_results": [True, False],
    "phone_formatting": [True, False],
    "profanity_filter": [True],
    "classifiers": [{}, {"insult": ("ON_FINAL",), "profanity": ["ON_FINAL"]}, {"insult": ("ON_FINAL",)}],
    "speaker_analysis": [True, False],
    "analysis_quantiles": [(), (0.5,)],
    "speaker_labeling": [True],
    "summarization": [
        {"model_uri": "gpt://f/m", "properties": [{"instruction": "i", **form}]}
        for form in ({}, {"json_object": None}, {"json_object": False}, {"json_schema": {"a": None}})
    ],
    "sample_rate_hertz": [8000, 16000],
    "audio_channel_count": [1, 2],
}


@st.composite
def asked(draw: st.DrawFn) -> RecognitionSettings | None:
    chosen = draw(st.sets(st.sampled_from(sorted(ASKED)), max_size=3))
    given = {name: draw(st.sampled_from(ASKED[name])) for name in sorted(chosen)}
    pcm = {"sample_rate_hertz", "audio_channel_count"} & chosen
    encoding = AudioEncoding.LINEAR16_PCM if pcm else draw(st.sampled_from([AudioEncoding.MP3, AudioEncoding.OGG_OPUS]))
    if pcm:
        given.setdefault("sample_rate_hertz", 8000)
    try:
        return RecognitionSettings(api_version=draw(st.sampled_from(ApiVersion)), audio_encoding=encoding, **given)
    except SettingsError:
        return None


def sent(settings: RecognitionSettings) -> str:
    """What goes to the service, but for what it ignores and what the recording decides."""
    if settings.api_version is ApiVersion.V2:
        body = json.loads(v2_body("https://s/b/k", settings))
        said = body["config"]["specification"]
        said["languageCode"] = said["languageCode"].lower()
        if settings.audio_encoding is not AudioEncoding.LINEAR16_PCM:
            del said["audioEncoding"]
        return json.dumps(body, sort_keys=True)
    body = json.loads(v3_body(settings, audio_uri="https://s/b/k"))
    restriction = body["recognition_model"]["language_restriction"]
    restriction["language_code"] = [code.lower() for code in restriction["language_code"]]
    body["recognition_model"]["audio_format"].pop("container_audio", None)
    body.get("recognition_classifier", {}).get("classifiers", []).sort(key=lambda one: one["classifier"])
    return json.dumps(body, sort_keys=True)


def mark(audio_uri: str, version: str | None, settings: RecognitionSettings, **about: Any) -> str:
    return fingerprint(Recording(audio_uri=audio_uri, version=version, settings=settings, **about))


class TestFingerprint:
    ADDRESS = ("s3://calls/2026/1.ogg", "abc")

    def test_a_hash_of_the_bytes_takes_the_place_of_the_address(self) -> None:
        def of(uri: str, etag: str, variant: str = "", content: str = "ab" * 32) -> str:
            return mark(uri, etag, RecognitionSettings(), variant=variant, content_hash=content)

        known = of("s3://calls/1.ogg", "1")
        assert known == "bbbf577ad98e71c35a4a341e1f648548af8916004b7f8c6820badd1444d8c947"
        assert of("s3://other/2.ogg", "2") == known
        assert len({known, of("s3://calls/1.ogg", "1", "audio_stream=2"), of("", "", "", "cd" * 32)}) == 3

    def test_it_never_changes(self) -> None:
        # These stand in the archives of users: another value means that everything is paid for again.
        assert mark(*self.ADDRESS, RecognitionSettings()) == (
            "aee16bfdd0ee38bc3347b5e7b38ba68b699aa80780ed8d5dde88292211342ef9"
        )
        loaded = RecognitionSettings(
            api_version=ApiVersion.V3,
            language="kk-KZ",
            model="deferred-general",
            literature_text=True,
            phone_formatting=False,
            classifiers={"formal_greeting": ("ON_UTTERANCE",)},
            speaker_analysis=True,
            analysis_quantiles=(0.5, 0.9),
            speaker_labeling=True,
            audio_encoding=AudioEncoding.MP3,
        )
        assert mark(*self.ADDRESS, loaded) == "75146404a7421057d1aea6e484d1afd63380144808f79a624f79f75ee392a70b"
        pcm = RecognitionSettings(audio_encoding=AudioEncoding.LINEAR16_PCM, sample_rate_hertz=8000)
        assert mark(*self.ADDRESS, pcm) == "40a4f5807d9761e38ef6c4967645b117cc5284c63e1d5dda0c89f2aa590d1f5a"

    @pytest.mark.parametrize(
        "change",
        [
            {"language": "en-US"},
            {"model": "general:rc"},
            {"profanity_filter": True},
            {"literature_text": True},
            {"raw_results": True},
            {"api_version": "v3"},
            {"api_version": "v3", "phone_formatting": False},
            {"api_version": "v3", "speaker_labeling": True},
            {"audio_encoding": "LINEAR16_PCM", "sample_rate_hertz": 8000},
            {"audio_encoding": "LINEAR16_PCM", "sample_rate_hertz": 16000},
            {"audio_encoding": "LINEAR16_PCM", "sample_rate_hertz": 8000, "audio_channel_count": 2},
        ],
        ids=str,
    )
    def test_whatever_changes_the_answer_changes_it(self, change: dict[str, Any]) -> None:
        changed = mark(*self.ADDRESS, RecognitionSettings(**change))
        assert changed != mark(*self.ADDRESS, RecognitionSettings())
        assert changed != mark(*self.ADDRESS, RecognitionSettings(api_version=ApiVersion.V3)) or (
            change == {"api_version": "v3"}
        )

    @pytest.mark.parametrize(
        "address", [("s3://calls/2026/2.ogg", "abc"), ("s3://calls/2026/1.ogg", "abd"), ("s3://calls/2026/1.ogg", None)]
    )
    def test_another_recording_or_version_changes_it(self, address: tuple[str, str | None]) -> None:
        assert mark(*address, RecognitionSettings()) != mark(*self.ADDRESS, RecognitionSettings())

    @pytest.mark.parametrize("encoding", ["OGG_OPUS", "MP3"])
    def test_what_a_container_has_in_its_header_does_not_matter(self, encoding: str) -> None:
        settled = RecognitionSettings(audio_encoding=AudioEncoding(encoding))
        assert mark(*self.ADDRESS, settled) == mark(*self.ADDRESS, RecognitionSettings())

    def test_one_channel_is_the_same_given_or_not(self) -> None:
        pcm = {"audio_encoding": AudioEncoding.LINEAR16_PCM, "sample_rate_hertz": 8000}
        assert mark(*self.ADDRESS, RecognitionSettings(**pcm)) == mark(
            *self.ADDRESS, RecognitionSettings(**pcm, audio_channel_count=1)
        )

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"languages": ["en-US"]}, {"language": "en-US"}),
            ({"languages": ["EN-us"]}, {"languages": ["en-US"]}),
            ({"languages": ["en-US"], "language_restriction": "WHITELIST"}, {"language": "en-US"}),
            ({"languages": ["en-US", "ru-RU"], "language": "auto"}, {"languages": ["en-US", "ru-RU"]}),
            ({"languages": ["ru-RU"]}, {}),
            ({"phone_formatting": True}, {}),
            ({"classifiers": {}}, {}),
            ({"language": "auto", "raw_results": True}, {"language": "auto"}),
            ({"languages": ["auto"]}, {"language": "AUTO", "raw_results": True}),
        ],
        ids=str,
    )
    def test_the_same_request_to_v3_in_other_words_is_the_same(
        self, one: dict[str, Any], other: dict[str, Any]
    ) -> None:
        assert mark(*self.ADDRESS, RecognitionSettings(api_version=ApiVersion.V3, **one)) == mark(
            *self.ADDRESS, RecognitionSettings(api_version=ApiVersion.V3, **other)
        )

    def test_the_shortest_settings_of_v3_never_changes(self) -> None:
        # These too stand in archives.
        default = RecognitionSettings(api_version=ApiVersion.V3)
        assert mark(*self.ADDRESS, default) == "85683a1bca11bbbf6d2ade27d35a99e7dbe32d27fe7ac0b1391fe2f879f675be"
        several = RecognitionSettings(api_version=ApiVersion.V3, languages=("ru-RU", "kk-KZ"))
        assert mark(*self.ADDRESS, several) == "16843edcdedb6688762fc186eddbed57c1b6a030961eaabf8b306a9a2e19f705"
        unknown = RecognitionSettings(api_version=ApiVersion.V3, language="auto")
        assert mark(*self.ADDRESS, unknown) == "a8b707f0ec4a00a6ab4d911fe66b24e41b5a586f575d900f2830f383d4b7f39b"

    @given(st.lists(asked(), min_size=50, max_size=60))
    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def test_equal_requests_share_one_and_different_ones_do_not(
        self, several: list[RecognitionSettings | None]
    ) -> None:
        pairs = {(sent(one), mark(*self.ADDRESS, one)) for one in several if one is not None}
        assert len({body for body, _ in pairs}) == len({one for _, one in pairs}) == len(pairs)

    def test_quotes_and_case_that_the_services_ignore_do_not_matter(self) -> None:
        assert mark("s3://b/k", '"abc"', RecognitionSettings(language="RU-ru")) == mark(
            "s3://b/k", "abc", RecognitionSettings()
        )
