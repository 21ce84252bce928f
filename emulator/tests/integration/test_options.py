"""Invalid arguments are errors in one line, before anything is started."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from speechkit_emulator.cli import main

COMMAND = [sys.executable, "-m", "speechkit_emulator", "--no-warm", "--port=0", "--storage-port=0"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--port=99999", "from 0 to 65535"),
        ("--port=-1", "from 0 to 65535"),
        ("--port=http", "invalid number"),
        ("--storage-port=99999", "from 0 to 65535"),
        ("--storage-url=nonsense", "not the URL of a server"),
        ("--storage-url=ftp://127.0.0.1", "not the URL of a server"),
        ("--storage-url=http://127.0.0.1:99999", "not the URL of a server"),
        ("--storage-url=http://[bad", "not the URL of a server"),
        ("--bucket=B_", "is not a bucket name"),
        ("--bucket=ab", "is not a bucket name"),
        ("--bucket=-abc", "is not a bucket name"),
        ("--speed=nan", "from 0.01 to 100000"),
        ("--speed=inf", "from 0.01 to 100000"),
        ("--speed=0", "from 0.01 to 100000"),
        ("--speed=1e300", "from 0.01 to 100000"),
        ("--seconds-a-minute=nan", "from 0 to 1000000000"),
        ("--deferred-delay-s=-1", "from 0 to 1000000000"),
        ("--retention-s=nan", "from 0 to 1000000000"),
        ("--token-lifetime-s=inf", "from 0 to 1000000000"),
        ("--submits-per-hour=-1", "from 0 to 1000000000"),
        ("--v2-checks-per-hour=-1", "from 0 to 1000000000"),
        ("--v3-checks-per-second=-1", "from 0 to 1000000000"),
        ("--body-limit=-1", "from 0 to 1000000000"),
        ("--recognisers=0", "from 1 to 64"),
        ("--recognisers=1000000", "from 1 to 64"),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(
    argument: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        # --help ends it with exit code 0 if the argument is accepted by mistake.
        main([argument, "--help"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert argument.partition("=")[0] in error.splitlines()[-1]


def error_line(*arguments: str) -> str:
    """The command's error for arguments with which it can't start."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_port_in_use_is_an_error_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = error_line(f"--storage-port={port}")
        assert f"can't listen on port {port}" in error
        assert "in use" in error
        assert "can't listen" in error_line(f"--port={port}")


def test_an_unreachable_storage_is_an_error_in_one_line() -> None:
    error = error_line("--storage-url=http://127.0.0.1:1", "--bucket=calls")
    assert "The bucket calls can't be found or created at http://127.0.0.1:1" in error


@pytest.mark.parametrize("content", ["nonsense", "[]", "{}", '"key"', json.dumps({"id": "a", "public_key": "b"})])
def test_a_file_without_an_authorized_key_is_an_error_in_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(content)
    assert "has no authorized key" in error_line(f"--authorized-key={file}")


def test_an_invalid_state_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "can't" in error_line(f"--state={tmp_path / 'file'}")
    (tmp_path / "emulator.sqlite").write_bytes(b"nonsense" * 1000)
    assert "file is not a database" in error_line(f"--state={tmp_path}")
