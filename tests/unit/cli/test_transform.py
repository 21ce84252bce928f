from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from airflow_speechkit.cli import main
from tests.unit.results.answers import chunk, final, v2, v3, word

SAID = v2(chunk("1", word("да", "1s", "1.500s"), word("нет", "2s", "2.500s")))


def save(path, *parts):
    path.write_bytes(b"\n".join(parts))
    return str(path)


def test_an_answer_of_v2_becomes_files_named_after_its_operation(tmp_path, capsys):
    saved = save(tmp_path / "result.json", SAID.operation)
    assert main(["transform", saved, "--to", str(tmp_path / "out"), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out.split() == [f"{tmp_path}/out/_manifests/e03one.json"]
    assert "words: 2 rows" in err
    assert pa_csv.read_csv(tmp_path / "out/words/day=2026-11-22/e03one.csv")["word"].to_pylist() == ["да", "нет"]


def test_answers_of_both_apis_become_one_batch(tmp_path):
    with_operation = v3(final("0", 0, ("раз", 1, 2)), final("0", 1, ("два", 3, 4)), id="f8first")
    alone = v3(final("0", 0, ("три", 1, 2)))
    saved = [
        save(tmp_path / "1.json.gz", gzip.compress(SAID.operation)),
        save(tmp_path / "2.json", with_operation.operation, with_operation.recognition),
        save(tmp_path / "3.json", alone.recognition),
        save(tmp_path / "f8fourth.json", alone.recognition.replace(b"f8done", b"undefined")),
    ]
    assert main(["transform", *saved, "--to", str(tmp_path / "out")]) == 0
    rows = pq.read_table(tmp_path / "out/recognitions")
    assert rows["operation_id"].to_pylist() == ["f8done", "f8fourth", "e03one", "f8first"]
    assert rows["api_version"].to_pylist() == ["v3", "v3", "v2", "v3"]
    assert rows["words"].to_pylist() == [1, 1, 2, 2]
    assert rows["created_at"].null_count == 2


SNAKE = {
    "result": {
        "session_uuid": {"user_request_id": "f8snake"},
        "channel_tag": "1",
        "final_refinement": {"final_index": "0", "normalized_text": {"alternatives": [{"text": "Да"}]}},
    }
}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ({"error": {"grpcCode": 13, "message": "lost"}}, ("f8stem", "failed", 13, 0, 0)),
        ({"error": "lost"}, ("f8stem", "failed", None, 0, 0)),
        ({"result": {"summarization": {"results": []}}}, ("f8stem", "finished", None, 0, 1)),
        ({"classifierUpdate": {"windowType": "LAST_FINAL"}}, ("f8stem", "finished", None, 0, 1)),
        ({"result": {"classifier_update": {"window_type": "LAST_FINAL"}}}, ("f8stem", "finished", None, 0, 1)),
        ({"result": {"eouUpdate": {"timeMs": "7"}}}, ("f8stem", "finished", None, 0, 0)),
        (SNAKE, ("f8snake", "finished", None, 1, 0)),
    ],
    ids=["error", "text", "summarization", "classifier", "snake classifier", "end", "snake"],
)
def test_a_result_of_v3_is_recognised_by_its_first_message(tmp_path, first, expected):
    saved = save(tmp_path / "f8stem.json", json.dumps(first).encode())
    assert main(["transform", saved, "--to", str(tmp_path)]) == 0
    (row,) = pq.read_table(tmp_path / "recognitions").to_pylist()
    assert row["api_version"] == "v3"
    analyses = sum(pq.read_metadata(file).num_rows for file in tmp_path.glob("analyses/*/*"))
    found = (row["operation_id"], row["status"], row["error_code"], row["utterances"], analyses)
    assert found == expected


@pytest.mark.parametrize(
    ("operation", "version"),
    [
        ({"id": "e03one", "done": True}, "v2"),
        ({"id": "f8done", "done": True}, "v3"),
        ({"id": "abc", "done": False, "description": "STT v3 async recognition"}, "v3"),
        ({"done": True}, "v3"),
    ],
    ids=["v2", "by its id", "by its description", "by the file's name"],
)
def test_a_failed_operation_has_its_api_version(tmp_path, operation, version):
    failed = {**operation, "error": {"code": 3, "message": "no header"}}
    saved = save(tmp_path / "f8dstem.json", json.dumps(failed).encode())
    assert main(["transform", saved, "--to", str(tmp_path)]) == 0
    (row,) = pq.read_table(tmp_path / "recognitions").to_pylist()
    assert (row["api_version"], row["status"], row["error_code"]) == (version, "failed", 3)


def test_an_unreadable_answer_is_reported_and_the_others_are_written(tmp_path, capsys):
    operation = v3()
    saved = [
        save(tmp_path / "good.json", SAID.operation),
        save(tmp_path / "cut.json", SAID.operation[:-9]),
        save(tmp_path / "twice.json", SAID.operation),
        save(tmp_path / "operation.json", operation.operation),
        save(tmp_path / "waiting.json", b'{"done":false,"id":"e03wait"}'),
        save(tmp_path / "other.json", b'{"a":1}'),
        str(tmp_path / "missing.json"),
    ]
    assert main(["transform", *saved, "--to", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    for name, what in {
        "cut": "cut off, or is not JSON",
        "twice": "holds operation e03one",
        "operation": "save the answer of getRecognition",
        "waiting": "not done",
        "other": "neither",
        "missing": "no such file",
    }.items():
        assert any(f"{name}.json: " in line and what in line for line in err.splitlines()), name
    assert pq.read_table(tmp_path / "out/words").num_rows == 2


def placed(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_operation_given_twice_has_its_rows_once(tmp_path):
    saved = [save(tmp_path / f"{one}.json", v2(operation_id=one).operation) for one in ("e03a", "e03b", "e03c", "e03d")]
    out = tmp_path / "out"
    assert main(["transform", *saved[:2], "--to", str(out)]) == 0
    first = placed(out)
    assert main(["transform", *saved[2:], "--to", str(out)]) == 0
    assert first.items() < placed(out).items()
    assert sorted(pq.read_table(out / "recognitions")["operation_id"].to_pylist()) == ["e03a", "e03b", "e03c", "e03d"]
    everything = placed(out)
    assert main(["transform", saved[1], saved[2], saved[1], "--to", str(out)]) == 0
    (manifest,) = placed(out).keys() - everything.keys()
    assert manifest.startswith("_manifests/batch-")
    assert pq.read_table(out / "recognitions").num_rows == 4


def test_an_unfinished_answer_does_not_replace_a_finished_one(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["transform", save(tmp_path / "ok.json", SAID.operation), "--to", str(out)]) == 0
    before = placed(out)
    waiting = save(tmp_path / "later.json", b'{"done":false,"id":"e03one"}')
    assert main(["transform", waiting, "--to", str(out)]) == 1
    err = capsys.readouterr().err
    assert "later.json: " in err
    assert "nothing is written" in err
    assert placed(out) == before


def test_a_wrong_path_leaves_no_files(tmp_path, capsys):
    assert main(["transform", str(tmp_path / "tpyo.json"), "--to", str(tmp_path / "out")]) == 1
    assert "tpyo.json: There is no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_identical_channels_are_a_warning(tmp_path, capsys):
    said = v2(chunk("1", word("да", "1s", "2s")), chunk("2", word("да", "1s", "2s")))
    assert main(["transform", save(tmp_path / "a.json", said.operation), "--to", str(tmp_path)]) == 0
    assert "1 of 1 recordings have the same words in all channels" in capsys.readouterr().err


def test_an_unwritable_target_is_an_error_in_one_line(tmp_path, capsys):
    saved = save(tmp_path / "a.json", SAID.operation)
    assert main(["transform", saved, "--to", f"{saved}/below"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("airflow-speechkit: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "wrong", [[], ["transform"], ["transform", "a.json"], ["transform", "a", "--to", "b", "--format", "xls"]]
)
def test_invalid_arguments_exit_with_2(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(wrong)
    assert stopped.value.code == 2
    assert "usage: airflow-speechkit" in capsys.readouterr().err


def test_asking_for_help_loads_nothing_heavy():
    heavy = "airflow", "pandas", "pyarrow", "numpy", "boto3", "aiohttp", "duckdb", "moto"
    code = (
        "import sys\nfrom airflow_speechkit.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "transform" in run.stdout
    assert run.stderr.strip() == "[]"


def test_transform_needs_no_airflow(tmp_path):
    saved = save(tmp_path / "a.json", SAID.operation)
    code = (
        "import sys\nfrom airflow_speechkit.cli import main\n"
        f"assert main(['transform', {saved!r}, '--to', {str(tmp_path)!r}]) == 0\n"
        "assert 'airflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
