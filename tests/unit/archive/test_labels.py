"""Labels that are given after the submission: what counts, whoever writes and reads at the same moment."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_speechkit.archive.inspection import Problem, copy_archive, verify
from airflow_speechkit.archive.labels import LabelChange, label, put_labels
from airflow_speechkit.archive.layout import pack
from airflow_speechkit.archive.maintenance import delete_operation
from airflow_speechkit.archive.records import LabelRecord, label_changes, merged_labels
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import OnFailure, SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import ArchiveError, RefusedError, SettingsError
from airflow_speechkit.models import Submission
from airflow_speechkit.settings import RecognitionSettings
from airflow_speechkit.storage import Folder
from tests.unit.archive.world import T0, Life, Service, answer, archive_at, failure, mortal, recording, submitter

SUBMISSION = Submission(
    operation_id="e03x",
    fingerprint="f",
    audio_uri="s3://calls/1.ogg",
    settings=RecognitionSettings(),
    submitted_at=T0,
    labels={"a": "1"},
)

names = st.sampled_from("abc")
texts = st.sampled_from(["1", "2", "", None])
given_labels = st.dictionaries(names, texts)
records_of_two = st.lists(
    st.builds(
        LabelRecord,
        audio_uri=st.just(SUBMISSION.audio_uri),
        labels=given_labels,
        update=st.booleans(),
        by=st.just("somebody"),
        at=st.just(T0),
    )
)


def record(update: bool = True, audio_uri: str = SUBMISSION.audio_uri, **labels: str | None) -> LabelRecord:
    return LabelRecord(audio_uri=audio_uri, labels=labels, update=update, by="somebody", at=T0)


class TestWhatCounts:
    @pytest.mark.parametrize(
        ("records", "labels"),
        [
            ([], {"a": "1"}),
            ([record(a="2")], {"a": "2"}),
            ([record(update=False, a="2", b="2")], {"a": "1", "b": "2"}),
            ([record(update=False, b="2"), record(update=False, b="3")], {"a": "1", "b": "2"}),
            ([record(b="2"), record(b="3")], {"a": "1", "b": "3"}),
            ([record(a=None)], {}),
            ([record(a=None), record(update=False, a="1")], {}),
            ([record(a=None), record(a="1")], {"a": "1"}),
            ([record(a="")], {"a": ""}),
            ([record(audio_uri="s3://calls/copy.ogg", a="2")], {"a": "1"}),
        ],
    )
    def test_a_correction_sets_what_it_names_and_an_addition_what_is_missing(
        self, records: list[LabelRecord], labels: dict[str, str]
    ) -> None:
        known = merged_labels(SUBMISSION, records)
        assert {name: text for name, text in known.items() if text is not None} == labels

    @given(records_of_two, given_labels, st.booleans())
    def test_what_changes_something_changes_nothing_a_second_time(
        self, records: list[LabelRecord], wanted: dict[str, str | None], update: bool
    ) -> None:
        before = merged_labels(SUBMISSION, records)
        after = merged_labels(SUBMISSION, [*records, record(update, **label_changes(before, wanted, update=update))])
        assert after == before | label_changes(before, wanted, update=update)
        assert label_changes(after, wanted, update=update) == {}
        if update:
            assert all(after.get(name) == text for name, text in wanted.items())
        else:
            assert before.items() <= after.items()

    @given(records_of_two)
    def test_a_record_is_read_back_as_it_was_written(self, records: list[LabelRecord]) -> None:
        assert [LabelRecord.read(json.loads(pack(one))) for one in records] == records


def submit(archive: Archive, service: Service, *names: str, update: bool = False, **labels: str) -> list[SubmitOutcome]:
    items = [recording(name, labels=labels) for name in names]
    return submitter(archive, service, labels_update=update).submit(items)


def submitted(archive: Archive, service: Service, name: str = "1", **labels: str) -> str:
    [outcome] = submit(archive, service, name, **labels)
    return outcome.operation_id or ""


def labels_of(archive: Archive, operation_id: str) -> dict[str, str]:
    submission = archive.submission(operation_id)
    assert submission is not None
    return dict(submission.labels)


def records_of(archive: Archive, operation_id: str) -> list[str]:
    return [one for one in archive.folder.names(f"operations/{operation_id}") if "labels-" in one]


class TestALaterSubmit:
    @pytest.mark.parametrize("state", ["running", "ended", "failed"])
    def test_adds_what_is_missing_and_names_what_differs(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture, state: str
    ) -> None:
        caplog.set_level(logging.DEBUG)
        operation_id = submitted(archive, service, call="17", agent="Anna", site="Perm")
        if state != "running":
            archive.keep(answer(operation_id), failure(3) if state == "failed" else None, now=T0)
        caplog.clear()
        [again] = submit(archive, service, "1", call="17", agent="Boris", team="blue")
        assert again.operation_id == operation_id
        assert labels_of(archive, operation_id) == {"call": "17", "agent": "Anna", "site": "Perm", "team": "blue"}
        [added, differs] = [one for one in caplog.records if one.name.endswith("archive.labels")]
        assert added.getMessage() == (
            "Recorded the labels team of 1 recordings that already had operations: s3://calls/1.ogg"
        )
        assert (differs.levelno, "labels agent of 1 recordings differ" in differs.getMessage()) == (
            logging.WARNING,
            True,
        )
        assert "labels_update=True" in differs.getMessage()
        for value in ("17", "Anna", "Boris", "Perm", "blue"):
            assert value not in added.getMessage() + differs.getMessage()
        assert service.asked == 1

    def test_replaces_what_differs_where_it_is_to(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        operation_id = submitted(archive, service, channel_0="agent", channel_1="customer", call="17")
        submit(archive, service, "1", update=True, channel_0="customer", channel_1="agent")
        assert labels_of(archive, operation_id) == {"channel_0": "customer", "channel_1": "agent", "call": "17"}
        [one] = archive.label_records(operation_id)
        assert (json.loads(one.by)[:3], one.at, one.update) == (["calls", "run-1", "submit"], T0, True)
        assert "differ" not in caplog.text
        assert service.asked == 1

    def test_without_labels_or_with_the_same_ones_reads_and_writes_nothing(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        operation_id = submitted(archive, service, call="17")
        for update in (False, True):
            submit(archive, service, "1", update=update, call="17")
            submit(archive, service, "1", update=update)
        assert labels_of(archive, operation_id) == {"call": "17"}
        assert records_of(archive, operation_id) == []
        assert not [one for one in caplog.records if one.name.endswith("archive.labels")]

    def test_an_operation_whose_submission_is_not_on_record_gets_none(self, archive: Archive, service: Service) -> None:
        operation_id = submitted(archive, service, call="17")
        archive.keep(answer(operation_id), now=T0)
        archive.folder.delete(f"operations/{operation_id}/submission.json")
        assert [one.status for one in submit(archive, service, "1", call="18")] == [SubmitStatus.REUSED]
        assert records_of(archive, operation_id) == []

    @pytest.mark.parametrize(("update", "role"), [(False, "agent"), (True, "customer")])
    def test_a_recording_that_is_listed_twice_has_the_labels_of_both(
        self, archive: Archive, service: Service, update: bool, role: str
    ) -> None:
        twice = [
            recording("1", labels={"call": "17", "role": "agent"}),
            recording("1", labels={"role": "customer", "site": "P"}),
        ]
        one, _ = submitter(archive, service, labels_update=update).submit(twice)
        assert labels_of(archive, one.operation_id or "") == {"call": "17", "role": role, "site": "P"}

    def test_a_damaged_record_is_logged_and_stops_nothing(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second = submitted(archive, service, "1", a="1"), submitted(archive, service, "2", a="1")
        archive.folder.replace(f"operations/{first}/labels-0001.json", b'{"archive_version": 1, "labels": "hunter2"}')
        outcomes = submit(archive, service, "1", "2", "3", b="2")
        assert [one.status for one in outcomes] == [SubmitStatus.JOINED, SubmitStatus.JOINED, SubmitStatus.SUBMITTED]
        assert labels_of(archive, second) == {"a": "1", "b": "2"}
        assert "The labels of s3://calls/1.ogg can't be recorded" in caplog.text
        assert "hunter2" not in caplog.text
        [finding] = verify(archive, T0).findings
        assert (finding.about, finding.problem) == (first, Problem.DAMAGED)


class TestTwoAtOnce:
    @pytest.mark.parametrize("place", ["disk", "s3"])
    def test_all_are_on_record_and_none_overwrites_an_addition_by_one(
        self, archive: Archive, service: Service, request: pytest.FixtureRequest, tmp_path: Path, place: str
    ) -> None:
        if place == "s3":
            archive = archive_at(f"lake/{tmp_path.name}", request.getfixturevalue("s3"))
            archive.probe(T0)
        operation_id = submitted(archive, service, first="kept")

        def write(number: int) -> None:
            mine = {"same": str(number), f"own-{number}": "x"}
            put_labels(archive, operation_id, mine, update=False, by=str(number), now=T0)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        records = archive.label_records(operation_id)
        assert sorted(one.by for one in records) == [str(number) for number in range(8)]
        labels = labels_of(archive, operation_id)
        assert labels == {"first": "kept", "same": records[0].labels["same"], **{f"own-{n}": "x" for n in range(8)}}

    def held(self, tmp_path: Path, before: int, other: Callable[[], object]) -> Archive:
        """Return the archive of a process that is held up before its n-th access."""

        class Held(Life):
            calls = 0

            def before(self) -> None:
                self.calls += 1
                if self.calls == before + 1:
                    other()

        return mortal(tmp_path / "archive", Held())

    def test_the_later_of_two_corrections_counts(self, archive: Archive, service: Service, tmp_path: Path) -> None:
        operation_id = submitted(archive, service, role="?")

        def other() -> None:
            put_labels(archive, operation_id, {"role": "agent", "team": "red"}, update=True, by="other", now=T0)

        # It has read the submission and that there is no record.
        slow = self.held(tmp_path, 2, other)
        put_labels(slow, operation_id, {"role": "customer"}, update=True, by="slow", now=T0)
        assert [one.by for one in archive.label_records(operation_id)] == ["other", "slow"]
        assert labels_of(archive, operation_id) == {"role": "customer", "team": "red"}

    @pytest.mark.parametrize("before", range(5))
    def test_nothing_stays_of_what_is_deleted_meanwhile(
        self, archive: Archive, service: Service, tmp_path: Path, before: int
    ) -> None:
        operation_id = submitted(archive, service, call="17")

        def other() -> None:
            delete_operation(archive, operation_id, now=T0, even_if_running=True)

        slow = self.held(tmp_path, before, other)
        put_labels(slow, operation_id, {"phone": "+7999"}, update=True, by="slow", now=T0)
        if before == 4:  # it had ended
            other()
        assert list(archive.folder.names(f"operations/{operation_id}")) == []

    @pytest.mark.parametrize("before", range(12))
    def test_nothing_stays_of_what_is_labelled_while_it_is_deleted(
        self, archive: Archive, service: Service, tmp_path: Path, before: int
    ) -> None:
        operation_id = submitted(archive, service, call="17")
        slow = self.held(
            tmp_path,
            before,
            lambda: put_labels(archive, operation_id, {"phone": "+7999"}, update=True, by="other", now=T0),
        )
        delete_operation(slow, operation_id, now=T0, even_if_running=True)
        assert list(archive.folder.names(f"operations/{operation_id}")) == []


def correct(archive: Archive, *wanted: LabelChange) -> tuple[int, int]:
    return label(archive, wanted, by="anna@desk", now=T0)


class TestCorrecting:
    def test_changes_only_what_differs_and_nothing_the_second_time(self, archive: Archive, service: Service) -> None:
        first, second = submitted(archive, service, "1", role="agent"), submitted(archive, service, "2", role="agent")
        wanted = [
            LabelChange(about=first, labels={"role": "customer"}),
            LabelChange(about=first, labels={"site": "Perm"}),
            LabelChange(about=second, labels={"role": "agent"}),
        ]
        assert correct(archive, *wanted) == (1, 1)
        assert correct(archive, *wanted) == (0, 2)
        assert labels_of(archive, first) == {"role": "customer", "site": "Perm"}
        assert len(records_of(archive, first)) == 1
        assert records_of(archive, second) == []
        assert correct(archive, LabelChange(about=first, labels={"site": None, "unknown": None})) == (1, 0)
        assert labels_of(archive, first) == {"role": "customer"}
        submit(archive, service, "1", role="agent", site="Perm")
        assert labels_of(archive, first) == {"role": "customer"}, "no later submit brings it back"

    def test_an_address_means_all_operations_of_the_recording(self, archive: Archive, service: Service) -> None:
        first = submitted(archive, service, "1", a="1")
        english = recording("1", settings=RecognitionSettings(language="en-US"), labels={})
        [other] = submitter(archive, service).submit([english, recording("2")])[:1]
        ids = [first, other.operation_id or ""]
        assert len(set(ids)) == 2
        assert correct(archive, LabelChange(about="s3://calls/1.ogg", labels={"b": "2"})) == (2, 0)
        assert [labels_of(archive, one) for one in ids] == [{"a": "1", "b": "2"}, {"b": "2"}]

    @pytest.mark.parametrize(
        ("wanted", "error", "said"),
        [
            (LabelChange(about="e03nobody", labels={"a": "2"}, place="line 7"), SettingsError, r"e03nobody \(line 7\)"),
            (LabelChange(about="s3://calls/x.ogg", labels={"a": "2"}, place="line 7"), SettingsError, "x.ogg .line 7"),
            (LabelChange(about="s3://calls/1.ogg", labels={"a": "hunter2"}, place="line 7"), SettingsError, "line 7"),
        ],
        ids=["no such operation", "no such recording", "two values"],
    )
    def test_one_that_cannot_be_done_has_nothing_written(
        self, archive: Archive, service: Service, wanted: LabelChange, error: type[Exception], said: str
    ) -> None:
        operation_id = submitted(archive, service, "1", a="1")
        with pytest.raises(error, match=said) as caught:
            correct(archive, LabelChange(about=operation_id, labels={"a": "3"}, place="line 1"), wanted)
        assert "hunter2" not in str(caught.value)
        assert records_of(archive, operation_id) == []

    def test_a_damaged_record_touches_no_other_operation(self, archive: Archive, service: Service) -> None:
        ids = [submitted(archive, service, name) for name in "123"]
        archive.folder.replace(f"operations/{ids[1]}/labels-0001.json", b"hunter2")
        with pytest.raises(ArchiveError, match=rf"{ids[1]}/labels-0001\.json is damaged") as caught:
            correct(archive, *(LabelChange(about=one, labels={"a": "1"}) for one in ids))
        assert "hunter2" not in str(caught.value)
        assert "The labels of 1 of 3 operations were not recorded" in str(caught.value)
        assert [labels_of(archive, one) for one in (ids[0], ids[2])] == [{"a": "1"}, {"a": "1"}]

    def test_an_address_is_found_beside_a_damaged_submission(self, archive: Archive, service: Service) -> None:
        good, damaged = submitted(archive, service, "1"), submitted(archive, service, "2")
        entry = archive.entry(good)
        assert entry is not None
        archive.folder.replace(f"operations/{damaged}/submission.json", b"{")
        assert correct(archive, LabelChange(about=entry.submission.audio_uri, labels={"a": "1"})) == (1, 0)
        assert labels_of(archive, good) == {"a": "1"}

    @pytest.mark.parametrize(
        "damaged",
        [
            {"labels": {"a": 1}},
            {"labels": ["a"]},
            {"labels": ...},
            {"update": "yes"},
            {"update": ...},
            {"audio_uri": None},
            {"at": "noon"},
            {"by": 7},
        ],
    )
    def test_a_record_with_impossible_values_is_damaged(
        self, archive: Archive, service: Service, damaged: dict[str, Any]
    ) -> None:
        operation_id = submitted(archive, service)
        correct(archive, LabelChange(about=operation_id, labels={"a": "1"}))
        [name] = records_of(archive, operation_id)
        data = {**json.loads(archive.folder.read(name)), **damaged}
        archive.folder.replace(name, json.dumps({key: one for key, one in data.items() if one is not ...}).encode())
        with pytest.raises(ArchiveError, match=r"labels-0001\.json is damaged"):
            archive.submission(operation_id)

    def test_exported_they_are_there_and_deleted_they_are_deleted(
        self, archive: Archive, service: Service, tmp_path: Path
    ) -> None:
        operation_id = submitted(archive, service, a="1")
        correct(archive, LabelChange(about=operation_id, labels={"a": "2"}))
        copy_archive(archive, Folder.at(tmp_path / "copy"))
        assert labels_of(Archive.at(tmp_path / "copy"), operation_id) == {"a": "2"}
        delete_operation(archive, operation_id, now=T0, even_if_running=True)
        assert [one for one in archive.folder.names() if "labels" in one] == []

    def test_a_recording_that_was_refused_has_its_own(self, archive: Archive, service: Service) -> None:
        [refused] = submitter(archive, service).submit([recording("1", version=None)])
        planned = replace(SUBMISSION, fingerprint=refused.fingerprint)
        operation_id = archive.refuse(planned, failure(3), T0)
        assert correct(archive, LabelChange(about=operation_id, labels={"a": "2"})) == (1, 0)
        assert labels_of(archive, operation_id) == {"a": "2"}

    def test_a_recording_that_is_refused_again_keeps_the_labels_that_it_had(
        self, archive: Archive, service: Service
    ) -> None:
        def refuse(labels: dict[str, str], **policy: Any) -> dict[str, str]:
            service.script["1"] = [RefusedError("no header", http_status=400, grpc_code=3)]
            again = submitter(archive, service, **policy)
            [operation_id] = again.returned_ids(again.submit([recording("1", labels=labels)]), OnFailure.RECORD)
            return labels_of(archive, operation_id)

        assert refuse({"call_id": "1", "channel_0": "agent"}) == {"call_id": "1", "channel_0": "agent"}
        assert refuse({}) == {"call_id": "1", "channel_0": "agent"}
        assert refuse({"call_id": "2", "queue": "a"}) == {"call_id": "1", "channel_0": "agent", "queue": "a"}
        assert refuse({"call_id": "2"}, labels_update=True) == {"call_id": "2", "channel_0": "agent", "queue": "a"}
