"""Recordings become operations: paid once, three days, lost submissions, bad recordings."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.maintenance import adopt, release
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import OnFailure, SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import (
    ArchiveError,
    AuthenticationError,
    RecognitionFailedError,
    RecordingError,
    RefusedError,
    ServiceFaultError,
    SpeechKitError,
    SubmissionLostError,
    SubmissionsFailedError,
)
from airflow_speechkit.models import Recording
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.archive.world import T0, Service, answer, failure, failure_of, lost, recording, submitter


def ends(outcomes: list[SubmitOutcome]) -> list[SubmitStatus]:
    return [one.status for one in outcomes]


class TestOnce:
    def test_a_second_run_joins_and_a_third_reuses(self, archive: Archive, service: Service) -> None:
        [first] = submitter(archive, service, run="one").submit([recording()])
        [second] = submitter(archive, service, run="two").submit([recording()])
        assert first.operation_id is not None
        archive.keep(answer(first.operation_id), now=service.clock.now())
        service.clock.advance(days=400)
        [third] = submitter(archive, service, run="three").submit([recording()])
        assert ends([first, second, third]) == [SubmitStatus.SUBMITTED, SubmitStatus.JOINED, SubmitStatus.REUSED]
        assert first.operation_id == second.operation_id == third.operation_id
        assert service.accepted.total() == 1

    def test_a_recording_given_twice_is_paid_for_once(self, archive: Archive, service: Service) -> None:
        outcomes = submitter(archive, service).submit([recording("1"), recording("2"), recording("1")])
        assert [one.recording.link for one in outcomes] == ["1", "2", "1"]
        assert outcomes[0].operation_id == outcomes[2].operation_id
        assert service.accepted == {"1": 1, "2": 1}

    def test_the_submission_on_record_leads_back_to_the_recording(self, archive: Archive, service: Service) -> None:
        [outcome] = submitter(archive, service).submit([recording()])
        submission = archive.submission(outcome.operation_id or "")
        assert submission is not None
        assert (submission.audio_uri, submission.etag, submission.labels) == (
            "s3://calls/1.ogg",
            "etag-1",
            {"call_id": "1"},
        )
        assert (submission.dag_id, submission.run_id, submission.billed_seconds) == ("calls", "run-1", 60)
        assert submission.fingerprint == outcome.fingerprint

    def test_a_recording_without_an_etag_is_refused_unless_it_is_allowed(
        self, archive: Archive, service: Service
    ) -> None:
        unversioned = recording(version=None)
        [refused] = submitter(archive, service).submit([unversioned])
        assert isinstance(refused.error, RecordingError)
        assert "allow_unversioned" in str(refused.error)
        outcomes = submitter(archive, service, allow_unversioned=True).submit([unversioned])
        assert ends(outcomes) == [SubmitStatus.SUBMITTED]

    def test_paying_again_on_purpose_happens_once_for_each_task_instance(
        self, archive: Archive, service: Service
    ) -> None:
        submitter(archive, service, run="one").submit([recording()])
        for _ in range(3):
            submitter(archive, service, run="two", reuse=False).submit([recording()])
        assert service.accepted.total() == 2

    def test_a_permanent_failure_ends_at_once_and_costs_nothing(self, archive: Archive, service: Service) -> None:
        [first] = submitter(archive, service).submit([recording()])
        archive.keep(answer(first.operation_id or ""), failure(3), now=T0)
        [again] = submitter(archive, service).submit([recording()])
        assert again.status is SubmitStatus.FAILED
        assert again.operation_id == first.operation_id
        assert isinstance(again.error, RecognitionFailedError)
        assert service.asked == 1

    @pytest.mark.parametrize("code", [13, 14, 8, 4, 1])
    def test_a_failure_that_a_retry_can_mend_is_submitted_anew(
        self, archive: Archive, service: Service, code: int
    ) -> None:
        [first] = submitter(archive, service).submit([recording()])
        archive.keep(answer(first.operation_id or ""), failure(code), now=T0)
        [again] = submitter(archive, service).submit([recording()])
        assert again.status is SubmitStatus.SUBMITTED
        assert again.operation_id != first.operation_id

    def test_what_has_to_be_read_of_a_recording_is_read_only_for_those_that_are_sent(
        self, archive: Archive, service: Service
    ) -> None:
        submitter(archive, service).submit([recording("1")])
        read: list[str] = []

        def probe(given: Recording) -> Recording:
            read.append(given.link)
            settings = RecognitionSettings(audio_encoding=AudioEncoding.OGG_OPUS)
            return replace(given, settings=settings, billed_seconds=77, channels=1)

        outcomes = submitter(archive, service, probe=probe).submit([recording("1"), recording("2", channels=None)])
        assert ends(outcomes) == [SubmitStatus.JOINED, SubmitStatus.SUBMITTED]
        assert read == ["2"]
        submission = archive.submission(outcomes[1].operation_id or "")
        assert submission is not None
        assert (submission.billed_seconds, submission.settings.audio_encoding) == (77, "OGG_OPUS")


class TestThreeDays:
    @pytest.mark.parametrize("still_there", [True, False])
    def test_the_service_is_asked_before_an_old_operation_is_paid_for_again(
        self, archive: Archive, service: Service, still_there: bool
    ) -> None:
        [first] = submitter(archive, service).submit([recording()])
        service.clock.advance(days=3, minutes=1)
        asked: list[str] = []

        def has(operation_id: str) -> bool:
            asked.append(operation_id)
            return still_there

        [again] = submitter(archive, service, has=has).submit([recording()])
        assert asked == [first.operation_id]
        assert again.status is (SubmitStatus.JOINED if still_there else SubmitStatus.SUBMITTED)
        assert archive.attempts(first.fingerprint)[0].state is (
            AttemptState.IN_FLIGHT if still_there else AttemptState.EXPIRED
        )

    def test_a_404_of_a_young_operation_is_not_taken_for_an_expiry(self, archive: Archive, service: Service) -> None:
        [first] = submitter(archive, service).submit([recording()])
        assert archive.expire(first.operation_id or "", service.clock.now() + timedelta(days=2)) is False
        assert ends(submitter(archive, service).submit([recording()])) == [SubmitStatus.JOINED]

    def test_an_answer_that_turns_up_after_all_counts_more_than_the_expiry(
        self, archive: Archive, service: Service
    ) -> None:
        [first] = submitter(archive, service).submit([recording()])
        operation_id = first.operation_id or ""
        service.clock.advance(days=4)
        assert archive.expire(operation_id, service.clock.now())
        assert archive.expire(operation_id, service.clock.now())
        archive.keep(answer(operation_id), now=service.clock.now())
        assert ends(submitter(archive, service).submit([recording()])) == [SubmitStatus.REUSED]


class TestLost:
    def test_the_error_has_what_to_check_and_how_to_continue(self, archive: Archive, service: Service) -> None:
        service.script["2"] = [lost()]
        outcomes = submitter(archive, service).submit([recording(name) for name in "123"])
        assert ends(outcomes) == [SubmitStatus.SUBMITTED, SubmitStatus.LOST, SubmitStatus.SUBMITTED]
        text = str(outcomes[1].error)
        assert isinstance(outcomes[1].error, SubmissionLostError)
        for word in ("adopt", "release", outcomes[1].fingerprint, archive.url, "on_lost_submission", "billing"):
            assert word in text

    def test_it_stays_lost_until_a_person_decides(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [lost()]
        for _ in range(3):
            assert ends(submitter(archive, service).submit([recording("1"), recording("2")]))[0] is SubmitStatus.LOST
        assert service.accepted == {"1": 1, "2": 1}

    def test_resubmit_sends_it_again_once(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [lost()]
        [outcome] = submitter(archive, service, on_lost_submission="resubmit").submit([recording("1")])
        assert outcome.status is SubmitStatus.SUBMITTED
        assert service.accepted["1"] == 2

    def test_resubmit_does_not_pay_again_and_again_in_one_run(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [lost() for _ in range(9)]
        [outcome] = submitter(archive, service, on_lost_submission="resubmit").submit([recording("1")])
        assert outcome.status is SubmitStatus.LOST
        assert service.accepted["1"] == 2

    def test_an_operation_id_can_be_adopted(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [lost()]
        [outcome] = submitter(archive, service).submit([recording("1")])
        [operation_id] = service.operations
        adopt(archive, outcome.fingerprint, operation_id, now=T0)
        [again] = submitter(archive, service).submit([recording("1")])
        assert (again.status, again.operation_id) == (SubmitStatus.JOINED, operation_id)
        submission = archive.submission(operation_id)
        assert submission is not None
        assert submission.labels == {"call_id": "1"}

    def test_one_that_surely_was_not_taken_can_be_released(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [lost()]
        [outcome] = submitter(archive, service).submit([recording("1")])
        release(archive, outcome.fingerprint, now=T0)
        assert ends(submitter(archive, service).submit([recording("1")])) == [SubmitStatus.SUBMITTED]

    def test_there_is_nothing_to_adopt_or_release_for_a_recording_with_its_operation(
        self, archive: Archive, service: Service
    ) -> None:
        [outcome] = submitter(archive, service).submit([recording("1")])
        with pytest.raises(ArchiveError, match="no such lost submission"):
            adopt(archive, outcome.fingerprint, "e03other", now=T0)
        with pytest.raises(ArchiveError, match="no such lost submission"):
            release(archive, outcome.fingerprint, now=T0)


class TestRefused:
    def test_one_bad_recording_does_not_fail_the_others(self, archive: Archive, service: Service) -> None:
        service.script["2"] = [RefusedError("ogg header has not been found", http_status=400, grpc_code=3)]
        missing = recording("3", error=RecordingError("It isn't there"))
        outcomes = submitter(archive, service).submit([recording("1"), recording("2"), missing, recording("4")])
        assert ends(outcomes) == [
            SubmitStatus.SUBMITTED,
            SubmitStatus.REFUSED,
            SubmitStatus.REFUSED,
            SubmitStatus.SUBMITTED,
        ]
        assert "s3://calls/2.ogg" in str(outcomes[1].error)

    def test_nobody_waits_for_a_claim_that_was_refused(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [RefusedError("no", http_status=400, grpc_code=3)]
        submitter(archive, service).submit([recording("1")])
        [again] = submitter(archive, service).submit([recording("1")])
        assert again.status is SubmitStatus.SUBMITTED
        assert service.clock.slept_s == []

    def test_a_wrong_key_stops_everything_after_one_request(self, archive: Archive, service: Service) -> None:
        for name in "123":
            service.script[name] = [AuthenticationError("The key was refused", http_status=401)]
        with pytest.raises(AuthenticationError):
            submitter(archive, service).submit([recording(name) for name in "123"])
        assert service.asked == 1

    @pytest.mark.parametrize("on_failure", list(OnFailure))
    def test_on_failure(self, archive: Archive, service: Service, on_failure: OnFailure) -> None:
        service.script["2"] = [RefusedError("ogg header has not been found", http_status=400, grpc_code=3)]
        process = submitter(archive, service)
        outcomes = process.submit([recording(name) for name in "123"])
        assert service.accepted == {"1": 1, "3": 1}
        if on_failure is OnFailure.FAIL:
            with pytest.raises(RefusedError, match="ogg header"):
                process.returned_ids(outcomes, on_failure)
            return
        ids = process.returned_ids(outcomes, on_failure)
        if on_failure is OnFailure.SKIP:
            assert ids == [outcomes[0].operation_id, outcomes[2].operation_id]
            return
        assert ids[1] == f"refused-{outcomes[1].fingerprint}"
        submission, why = archive.submission(ids[1]), failure_of(archive, ids[1])
        assert submission is not None
        assert why is not None
        assert (submission.audio_uri, submission.operation_id, why.code, why.message) == (
            "s3://calls/2.ogg",
            ids[1],
            3,
            "ogg header has not been found",
        )
        assert archive.answer(ids[1]) is None

    def test_several_failures_are_raised_together(self, archive: Archive, service: Service) -> None:
        for name in "12":
            service.script[name] = [RefusedError("no", http_status=400, grpc_code=3)]
        process = submitter(archive, service)
        with pytest.raises(SubmissionsFailedError, match="2 of 3 recordings") as raised:
            process.returned_ids(process.submit([recording(name) for name in "123"]), OnFailure.FAIL)
        assert len(raised.value.errors) == 2
        assert raised.value.retry_can_help is False

    def test_skip_does_not_hide_what_a_retry_may_mend(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [ServiceFaultError("Unavailable", http_status=503) for _ in range(9)]
        process = submitter(archive, service)
        outcomes = process.submit([recording("1"), recording("2")])
        assert ends(outcomes) == [SubmitStatus.REFUSED, SubmitStatus.SUBMITTED]
        with pytest.raises(ServiceFaultError):
            process.returned_ids(outcomes, OnFailure.SKIP)


def test_an_error_names_which_recording_it_was() -> None:
    error = SpeechKitError("No")
    error.about_recording("https://storage.yandexcloud.net/b/1.ogg?X-Amz-Signature=secret")
    error.about_recording("s3://b/2.ogg")
    assert str(error) == "No. [recording https://storage.yandexcloud.net/b/1.ogg]"
