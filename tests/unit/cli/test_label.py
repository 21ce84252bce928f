"""``airflow-speechkit archive label``: one operation by hand, or a file of them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.cli import main
from tests.unit.archive.world import Service, recording, submitter

PHONE = "+79990001122"


class Desk:
    """Two recordings with their operations, and a command line."""

    def __init__(self, archive: Archive, service: Service, place: Path, output: pytest.CaptureFixture[str]) -> None:
        self.archive = archive
        self.place = place
        self.output = output
        outcomes = submitter(archive, service).submit([recording("1"), recording("2")])
        self.first, self.second = (one.operation_id or "" for one in outcomes)

    def label(self, *arguments: str, status: int = 0) -> str:
        self.output.readouterr()
        assert main(["archive", "label", "--archive", self.archive.url, *arguments]) == status
        out, err = self.output.readouterr()
        assert PHONE not in out + err
        return err if status else out

    def label_from(self, content: str | bytes, *, status: int = 0) -> str:
        file = self.place / "labels"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.label("--from", str(file), status=status)

    def labels(self, operation_id: str) -> dict[str, str]:
        submission = self.archive.submission(operation_id)
        assert submission is not None
        return dict(submission.labels)

    def records(self) -> int:
        return sum("labels-" in name for name in self.archive.folder.names())


@pytest.fixture
def desk(archive: Archive, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(archive, service, tmp_path, capsys)


def test_one_operation_by_hand(desk: Desk) -> None:
    assert "1 operations have new labels, 0 had" in desk.label(desk.first, f"phone={PHONE}", "note=a=b, c", "empty=")
    expected = {"call_id": "1", "phone": PHONE, "note": "a=b, c", "empty": ""}
    assert desk.labels(desk.first) == expected
    assert "0 operations have new labels, 1 had these" in desk.label(desk.first, f"phone={PHONE}")
    desk.label(desk.first, "--remove", "note", "--remove", "empty", "--remove", "call_id")
    assert desk.labels(desk.first) == {"phone": PHONE}
    assert desk.labels(desk.second) == {"call_id": "2"}


def test_show_has_who_gave_which_and_when(desk: Desk) -> None:
    desk.label(desk.first, "role=agent")
    desk.output.readouterr()
    assert main(["archive", "show", "--archive", desk.archive.url, desk.first]) == 0
    shown = json.loads(desk.output.readouterr().out)
    assert shown["labels"] == {"call_id": "1", "role": "agent"}
    first, later = shown["label_history"]
    assert (first["labels"], "run-1" in first["by"]) == ({"call_id": "1"}, True)
    assert later["labels"] == {"role": "agent"}
    assert "@" in later["by"]
    assert later["at"] > first["at"]


@pytest.mark.parametrize(
    "content",
    [
        "operation_id,role,phone\n{first},agent,{phone}\n{second},,\n",
        "operation_id,role,phone\n,\n{first},agent,{phone}\n,,,\n",
        "recognition_id,role,operation_id,phone\n{first},agent,,{phone}\n",
        "operation_id;role;phone\r\n{first};agent;{phone}\r\n\r\n",
        '\ufeffrole, operation_id ,phone\n"agent",{first},{phone}\n',
        "audio_uri\trole\tphone\ns3://calls/1.ogg\tagent\t{phone}\n",
        "operation_id,audio_uri,role,phone\n{first},,agent,\n,s3://conn@calls/1.ogg,,{phone}\n",
        '{{"operation_id": "{first}", "labels": {{"role": "agent", "phone": "{phone}"}}}}',
        '\n{{"audio_uri": "https://storage.yandexcloud.net/calls/1.ogg", "labels": {{"role": "agent"}}}}\n'
        '{{"operation_id": "{first}", "labels": {{"phone": "{phone}"}}}}\n\n',
    ],
    ids=[
        "comma",
        "empty rows",
        "recognition_id",
        "semicolon",
        "byte order mark",
        "tab and address",
        "both",
        "JSON",
        "JSON and link",
    ],
)
def test_a_file_of_them_and_again_it_changes_nothing(desk: Desk, content: str) -> None:
    text = content.format(first=desk.first, second=desk.second, phone=PHONE)
    assert "1 operations have new labels" in desk.label_from(text)
    assert desk.labels(desk.first) == {"call_id": "1", "role": "agent", "phone": PHONE}
    assert desk.labels(desk.second) == {"call_id": "2"}
    assert "0 operations have new labels" in desk.label_from(text)
    assert desk.records() == 1


def test_json_removes_by_null_and_takes_whole_numbers(desk: Desk) -> None:
    desk.label_from(json.dumps({"operation_id": desk.first, "labels": {"call_id": None, "branch": 17, "deal": 2**64}}))
    assert desk.labels(desk.first) == {"branch": "17", "deal": "18446744073709551616"}


def test_it_reads_standard_input_and_nothing_in_it_is_no_fault(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO(f"operation_id,role\n{desk.first},agent\n".encode())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=raw))
    assert "1 operations have" in desk.label("--from", "-")
    for nothing in ("", "operation_id,role\n"):
        assert "0 operations have new labels, 0 had" in desk.label_from(nothing)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("operation_id,role\n{first},agent\n{first}\n", "Line 3"),
        ("recognition_id,labels,call_id\n{first},{{}},17\n", "one of api_version, billed_seconds, labels, settings"),
        ("operation_id,role\n{first},agent\n{first},agent,{phone}\n", "Line 3"),
        ('operation_id,role\n{first},"a\nb"\n{phone},agent\n', "Line 4"),
        ('operation_id,role\n{first},agent\n{first},"{phone}\n', "Line 3"),
        ('operation_id,role\n{first},agent\n{first},"{phone}"x\n', "Line 3"),
        ("operation_id,role\n{first},agent\n,{phone}\n", "Line 3"),
        ("operation_id,role\n{first},agent\ne03unknown,agent\n", r"e03unknown (line 3)"),
        ("operation_id,role\n{first},agent\n{first},customer\n", "(line 3) gives the label 'role' another value"),
        ("audio_uri,role\ns3://calls/1.ogg,agent\ns3://calls/9.ogg,agent\n", "s3://calls/9.ogg (line 3)"),
        ("audio_uri,role\ns3://calls/1.ogg,agent\n{phone},agent\n", "Line 3"),
        ("audio_uri,role\ns3://calls/1.ogg,agent\nhttps://elsewhere/1.ogg,agent\n", "Line 3"),
        ("id,role\n{first},agent\n", "Line 1"),
        ("operation_id\n{first}\n", "Line 1"),
        ("operation_id,role,role\n{first},agent,x\n", "Line 1"),
        ("operation_id,role,\n{first},agent,x\n", "Line 1"),
        ('{{"operation_id": "{first}", "labels": {{"a": "b"}}}}\n{{"operation_id": "{first}"}}', "Line 2"),
        ('{{"operation_id": "{first}", "labels": {{"a": "b"}}}}\n{phone}', "Line 2"),
        (
            '{{"operation_id": "{first}", "labels": {{"a": "b"}}}}\n{{"operation_id": "{first}", "labels": {{"a"',
            "Line 2",
        ),
        ('{{"operation_id": "{first}", "labels": {{"a": ["{phone}"]}}}}', "Line 1"),
        ('{{"operation_id": "{first}", "labels": {{"a": true}}}}', "Line 1"),
        ('{{"operation_id": "{first}", "labels": {{"": "{phone}"}}}}', "Line 1"),
        ('{{"operation_id": 17, "labels": {{"a": "{phone}"}}}}', "Line 1"),
        ('{{"operation_id": "{first}", "role": "{phone}", "labels": {{"a": "b"}}}}', "Line 1"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(desk: Desk, bad: str, said: str) -> None:
    error = desk.label_from(bad.format(first=desk.first, phone=PHONE), status=1)
    assert said in error
    assert "othing was written" in error
    assert desk.records() == 0


@pytest.mark.parametrize("bad", ["operation_id,роль\n".encode("cp1251"), b"\xff\xfe", b"{\xff"])
def test_a_file_that_is_not_utf_8_is_refused(desk: Desk, bad: bytes) -> None:
    assert "it isn't UTF-8" in desk.label_from(bad, status=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Either an OPERATION_ID"),
        (("{first}",), "no label"),
        (("{first}", PHONE), "isn't written as KEY=VALUE"),
        (("{first}", "a=b", f"={PHONE}"), "isn't written as KEY=VALUE"),
        (("{first}", "a=b", "--from", "file"), "Either an OPERATION_ID"),
        (("--from", "/no/such/file"), "/no/such/file"),
        ((f"a={PHONE}",), "can't be an operation id"),
        (("e03unknown", f"a={PHONE}"), "e03unknown is not in the archive"),
    ],
)
def test_arguments_that_cannot_be_taken_are_refused(desk: Desk, arguments: tuple[str, ...], said: str) -> None:
    assert said in desk.label(*(one.format(first=desk.first) for one in arguments), status=1)
    assert desk.records() == 0
