"""Archives that earlier releases wrote are read as they were: every state, by every way to read one."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.cli import main
from airflow_speechkit.errors import RecognitionFailedError, ResultExpiredError, SubmissionLostError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.environment import ROOT
from tests.fixtures.manifests import paths_of

ARCHIVES = ROOT / "tests/fixtures/archives"

#: The states of each recording's operations.
STATES = {
    "done": ["finished"],
    "elsewhere": ["finished"],
    "expired": ["expired"],
    "failed": ["failed"],
    "handed-on": ["finished"],
    "invalid": ["failed"],
    "lost-adopted": ["running"],
    "lost-resubmitted": ["finished"],
    "paid-twice": ["finished", "finished"],
    "raw": ["finished"],
    "refused": ["refused"],
    "retried": ["failed", "running"],
    "silence": ["finished"],
    "superseded": ["finished"],
    "waiting": ["running"],
}
STATES_OF_V3 = {"analysed": ["finished"], "broken": ["failed"]}


@dataclass(frozen=True)
class Old:
    """A copy of an archive."""

    release: str
    version: str
    path: Path

    @property
    def prefix(self) -> str:
        return {"v2": "e03", "v3": "f8d"}[self.version]

    @property
    def states(self) -> dict[str, list[str]]:
        return STATES | (STATES_OF_V3 if self.version == "v3" else {})

    def id(self, name: str, number: int = 1) -> str:
        return f"{self.prefix}{name.replace('-', '')}"[:18].ljust(18, "0") + f"{number:02d}"


@pytest.fixture(params=["0.1/v2", "0.1/v3"])
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Old:
    release, _, version = request.param.partition("/")
    with tarfile.open(ARCHIVES / f"{request.param}.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    # Nobody listens there: whatever is sent would fail.
    extra = {"archive": str(tmp_path / version), "api_version": version, "storage_host": "http://127.0.0.1:1"}
    connection = {"conn_type": "speechkit", "host": "http://127.0.0.1:1", "password": "AQVNtest", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps(connection))
    return Old(release, version, tmp_path / version)


def printed(capsys: pytest.CaptureFixture[str], old: Old, command: str, *arguments: str, status: int = 0) -> list[str]:
    capsys.readouterr()
    assert main(["archive", command, *arguments, "--archive", str(old.path)]) == status
    return capsys.readouterr().out.splitlines()


def listed(capsys: pytest.CaptureFixture[str], old: Old, *arguments: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in printed(capsys, old, "list", "--json", *arguments):
        facts = json.loads(line)
        found.setdefault(Path(facts.get("audio_uri", "elsewhere")).stem, []).append(facts["state"])
    return found


def rows_of(manifest: dict[str, Any], table: str) -> list[dict[str, Any]]:
    return [row for path in paths_of(manifest, table) for row in pq.ParquetFile(path).read().to_pylist()]


def transformed(target: Path, **source: Any) -> dict[str, Any]:
    return SpeechKitTransformOperator(task_id="rows", target=str(target), **source).execute({})


def test_each_operation_is_listed_with_its_state(old: Old, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, old) == old.states
    assert listed(capsys, old, "--state", "superseded") == {"superseded": ["superseded"]}


def test_all_that_is_on_record_of_one_is_shown(old: Old, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads("".join(printed(capsys, old, "show", old.id("done"))))
    assert facts["labels"] == {"call_id": "17", "channel_0": "оператор"}
    assert facts["settings"]["api_version"] == old.version
    assert (facts["billed_seconds"], facts["duration_ms"], facts["task_id"]) == (15, 11915, "submit")
    assert set(facts["files"]) == {"operation.json.gz"} | ({"recognition.json.gz"} if old.version == "v3" else set())
    assert "Это done" in "".join(printed(capsys, old, "show", old.id("done"), "--answer"))
    failed = json.loads("".join(printed(capsys, old, "show", old.id("invalid"))))
    assert failed["error"] == {"code": 3, "message": "audio: unsupported format"}
    assert json.loads("".join(printed(capsys, old, "show", old.id("raw"))))["settings"]["raw_results"] is True
    assert printed(capsys, old, "show", old.id("forgotten"), status=1) == []


def test_what_has_neither_an_answer_nor_a_reason_is_found(old: Old, capsys: pytest.CaptureFixture[str]) -> None:
    *findings, summary = printed(capsys, old, "verify", status=1)
    assert Counter(line.split()[0] for line in findings) == {"lost": 2, "overdue": 4}
    for name in ("claimed.ogg", "lost.ogg"):
        assert any(name in line for line in findings if line.startswith("lost"))
    for name in ("adopted", "halfrecorded", "retried", "waiting"):
        assert any(name in line for line in findings if line.startswith("overdue"))
    counts = Counter(state for states in old.states.values() for state in states)
    # Of one the ledger alone knew: its submission has been put beside the others'.
    counts["running"] += 1
    for state, count in counts.items():
        assert f"{count} {state}" in summary
    assert listed(capsys, old) == old.states | {"half-recorded": ["running"]}


def test_every_answer_becomes_rows(old: Old, tmp_path: Path) -> None:
    manifest = transformed(tmp_path / "rows", operation_prefix="")
    recognitions = rows_of(manifest, "recognitions")
    named = Counter((Path(row["audio_uri"] or "elsewhere").stem, row["status"]) for row in recognitions)
    # What the service has forgotten is `lost` in the tables, and what still runs has no row.
    ends = {"expired": "lost"}
    assert named == Counter(
        (name, ends.get(state, state)) for name, states in old.states.items() for state in states if state != "running"
    ) + Counter({("superseded", "refused"): 1})
    assert set(manifest["unread"]["operations"]) == {
        old.id("waiting"),
        old.id("retried", 2),
        f"{old.prefix}adopted0000000001",
    }
    texts: dict[str, list[str]] = {}
    for row in rows_of(manifest, "utterances"):
        texts.setdefault(row["operation_id"], []).append(row["text"])
    assert texts[old.id("done")] == ["Это done", "Это done"]
    assert old.id("silence") not in texts
    (words,) = {
        (row["word"], row["start_ms"], row["end_ms"])
        for row in rows_of(manifest, "words")
        if row["operation_id"] == old.id("raw")
    }
    assert words == ("raw", 100, 880)
    labels = {row["operation_id"]: row["labels"] for row in recognitions}
    assert json.loads(labels[old.id("done")]) == {"call_id": "17", "channel_0": "оператор"}
    assert len(rows_of(manifest, "analyses")) == (1 if old.version == "v3" else 0)


def test_exported_it_is_the_same_archive_or_plain_answers(
    old: Old, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, old, "export", "--to", str(tmp_path / "copy"))
    copied = Old(old.release, old.version, tmp_path / "copy")
    assert listed(capsys, copied) == old.states
    printed(capsys, old, "export", "--to", str(tmp_path / "plain"), "--answers")
    files = [str(path) for path in (tmp_path / "plain").iterdir()]
    statuses = Counter(row["status"] for row in rows_of(transformed(tmp_path / "rows", files=files), "recognitions"))
    ended = Counter(state for states in old.states.values() for state in states)
    assert statuses == {"finished": ended["finished"], "failed": ended["failed"]}


def test_a_wait_ends_at_once_with_what_is_on_record(old: Old) -> None:
    def wait(*ids: str, **how: Any) -> Any:
        return SpeechKitRecognitionSensor(task_id="wait", operation_id=list(ids), **how).execute({})

    finished = [old.id("done"), old.id("silence"), f"{old.prefix}elsewhere00000000"]
    assert wait(*finished) == finished
    with pytest.raises(RecognitionFailedError, match="audio: unsupported format"):
        wait(old.id("invalid"))
    with pytest.raises(ResultExpiredError):
        wait(old.id("expired"))


class TestSubmittingAgain:
    """The fingerprints are the same, or everything would be paid for again."""

    @pytest.fixture(autouse=True)
    def bucket(self, old: Old, s3_client: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        content = (ROOT / "emulator/speechkit_emulator/samples/message.ogg").read_bytes()
        s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
        for name in ("done", "raw", "silence", "paid-twice", "superseded", "analysed", "invalid", "lost", "claimed"):
            s3_client.put_object(Bucket="calls", Key=f"{name}.ogg", Body=content)
        aws = {"conn_type": "aws", "login": "test", "password": "test", "extra": {"endpoint_url": s3_endpoint}}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(aws))

    def submit(self, name: str, **how: Any) -> Any:
        return SpeechKitSubmitOperator(task_id="submit", audio=f"s3://calls/{name}.ogg", **how).execute({})

    def test_an_answer_is_used_again(self, old: Old) -> None:
        assert self.submit("done") == old.id("done")
        assert self.submit("silence") == old.id("silence")
        assert self.submit("raw", raw_results=True) == old.id("raw")
        assert self.submit("paid-twice") == old.id("paid-twice", 2)
        assert self.submit("superseded") == old.id("superseded", 2)
        if old.version == "v3":
            analyses = {"classifiers": {"formal_greeting": ["ON_FINAL"]}, "speaker_analysis": True}
            assert self.submit("analysed", **analyses) == old.id("analysed")

    def test_a_failure_that_would_come_again_ends_at_once(self, old: Old) -> None:
        with pytest.raises(RecognitionFailedError, match="audio: unsupported format"):
            self.submit("invalid")

    @pytest.mark.parametrize("name", ["lost", "claimed"])
    def test_a_lost_submission_still_stops_the_recording(self, old: Old, name: str) -> None:
        with pytest.raises(SubmissionLostError):
            self.submit(name)

    def test_what_was_delivered_once_is_not_new(self, old: Old, s3_client: Any) -> None:
        content = (ROOT / "emulator/speechkit_emulator/samples/message.ogg").read_bytes()
        s3_client.put_object(Bucket="calls", Key="handed-on.ogg", Body=content)
        submit = SpeechKitSubmitOperator(task_id="submit_new", audio="s3://calls/handed-on.ogg", only_new=True)
        run = {"dag_id": "calls", "task_id": "submit_new", "map_index": -1}
        monday, tuesday = (SimpleNamespace(**run, run_id=name) for name in ("monday", "tuesday"))
        assert submit.execute({"ti": monday}) == old.id("handed-on")
        with pytest.raises(AirflowSkipException):
            submit.execute({"ti": tuesday})
