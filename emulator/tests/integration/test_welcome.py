"""The page at ``/``, the sample calls, and the printed connections."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import requests

from speechkit_emulator.process import EmulatorProcess
from speechkit_emulator.samples import samples
from tests.caller import Caller

AWKWARD = "a folder's (2) й"


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """An emulator with the samples, started in a folder whose name a shell has to quote."""
    folder = tmp_path_factory.mktemp("place") / AWKWARD
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with EmulatorProcess("--samples") as emulator:
            yield emulator


def get(emulator: EmulatorProcess, path: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(emulator.url + path, timeout=60)


def printed(emulator: EmulatorProcess, *form: str) -> str:
    port = emulator.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "speechkit_emulator", "--port", port, f"--airflow-connections{''.join(form)}"],
        # An unreachable proxy: requests on loopback must ignore it.
        env={"http_proxy": "http://127.0.0.1:9", "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def expected(emulator: EmulatorProcess) -> dict[str, dict[str, Any]]:
    return {
        "speechkit_default": {
            "conn_type": "speechkit",
            "host": emulator.url,
            "password": emulator.api_key,
            "extra": {"archive": "s3://recordings/archive", "storage_host": emulator.storage_url},
        },
        "aws_default": {
            "conn_type": "aws",
            "login": emulator.access_key_id,
            "password": emulator.secret_access_key,
            "extra": {"endpoint_url": emulator.storage_url, "region_name": "ru-central1"},
        },
        "warehouse": {"conn_type": "duckdb", "host": str(Path.cwd() / "speech.duckdb")},
    }


def test_the_json_form_contains_the_connections(newcomer: EmulatorProcess) -> None:
    assert json.loads(printed(newcomer, "=json")) == expected(newcomer)


def test_a_shell_can_evaluate_the_printed_variables(newcomer: EmulatorProcess) -> None:
    script = f'eval "$1"; exec {shlex.quote(sys.executable)} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", printed(newcomer)],
        env={"PYTHONUTF8": "1"}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    variables = json.loads(done.stdout)
    assert expected(newcomer) == {
        name.removeprefix("AIRFLOW_CONN_").lower(): json.loads(value)
        for name, value in variables.items()
        if name.startswith("AIRFLOW_CONN_")
    }


def test_a_shell_can_run_the_printed_commands(newcomer: EmulatorProcess) -> None:
    script = (
        f'airflow() {{ {shlex.quote(sys.executable)} -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"; }}'
    )
    done = subprocess.run(
        ["sh", "-c", f"{script}\n{printed(newcomer, '=commands')}"],
        env={"PYTHONUTF8": "1"}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    added = {}
    for line in done.stdout.splitlines():
        *words, conn_id = (arguments := json.loads(line))[:3]
        assert words == ["connections", "add"]
        options = dict(zip(arguments[3::2], arguments[4::2], strict=True))
        connection = {name.removeprefix("--conn-"): value for name, value in options.items()}
        connection["conn_type"] = connection.pop("type")
        if "extra" in connection:
            connection["extra"] = json.loads(connection["extra"])
        added[conn_id] = connection
    assert added == expected(newcomer)


def test_the_page_shows_the_connections_and_all_addresses(newcomer: EmulatorProcess) -> None:
    answer = get(newcomer, "/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = unescape(answer.text)
    assert printed(newcomer) in page
    assert printed(newcomer, "=commands") in page
    for shown in (newcomer.url, newcomer.storage_url, newcomer.api_key, newcomer.secret_access_key, AWKWARD):
        assert shown in page
    for sample in samples():
        assert f"s3://recordings/{sample.key}" in page
    [fetch] = [line for line in page.splitlines() if "connections.json" in line and "curl" in line]
    url = shlex.split(fetch.removeprefix("<pre>"))[2]
    assert get(newcomer, url.removeprefix(newcomer.url)).json() == expected(newcomer)


def test_an_unknown_form_is_refused(newcomer: EmulatorProcess) -> None:
    answer = get(newcomer, "/emulator/airflow-connections?form=yaml")
    assert answer.status_code == 400
    assert "env, commands, json" in answer.json()["error"]


def test_the_page_is_not_counted_as_a_request(speechkit: EmulatorProcess) -> None:
    speechkit.clear_requests()
    speechkit.fault(500, on="any", times=0)
    assert get(speechkit, "/").status_code == 200
    assert speechkit.requests() == {}


def test_the_sample_calls_are_in_a_new_bucket(newcomer: EmulatorProcess, running: EmulatorProcess) -> None:
    s3 = newcomer.s3()
    listed = s3.list_objects_v2(Bucket=newcomer.bucket)["Contents"]
    assert {one["Key"] for one in listed} == {sample.key for sample in samples()}
    assert running.s3().list_objects_v2(Bucket=running.bucket, Prefix="samples/")["KeyCount"] == 0


def test_an_existing_bucket_is_not_changed(newcomer: EmulatorProcess) -> None:
    with EmulatorProcess("--samples", storage_url=newcomer.storage_url, bucket="samples-of-mine") as emulator:
        for sample in samples():
            emulator.s3().delete_object(Bucket=emulator.bucket, Key=sample.key)
        emulator.restart()
        assert emulator.s3().list_objects_v2(Bucket=emulator.bucket)["KeyCount"] == 0


def test_a_sample_is_recognised(newcomer: EmulatorProcess) -> None:
    caller = Caller(newcomer)
    try:
        link = f"{newcomer.storage_url}/recordings/samples/message.ogg"
        operation = caller.finished(caller.submit(link).json()["id"])
    finally:
        caller.session.close()
    assert "message" in str(operation["response"]["chunks"])


def test_the_command_prints_a_link_to_the_page() -> None:
    command = [sys.executable, "-m", "speechkit_emulator", "--no-warm", "--port=0", "--storage-port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["speechkit"]
        process.terminate()
        assert f"Open {url} in a browser" in process.communicate(timeout=60)[1]


def test_without_a_running_emulator_printing_connections_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "speechkit_emulator", "--port=1", "--airflow-connections"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "No emulator answers at http://127.0.0.1:1" in done.stderr
