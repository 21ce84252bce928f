"""``airflow-speechkit probe`` and ``convert``, on real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_speechkit.cli import main
from tests.unit.recordings.clicks import written
from tests.unit.recordings.sounds import mp3

FIELDS = [
    "path", "format", "sample_rate_hertz", "channels", "duration_ms", "action", "converted_to", "billed_seconds",
    "error",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with four recordings."""
    (tmp_path / "alaw.wav").write_bytes(written("pcm_alaw", "wav", 8_000))
    (tmp_path / "cut.wav").write_bytes(written("pcm_alaw", "wav", 8_000)[:50_000])
    (tmp_path / "call.m4a").write_bytes(written("alac", "mov", 16_000, 1))
    (tmp_path / "a longer name.mp3").write_bytes(mp3(seconds=17))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_table_has_a_line_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "alaw.wav", "call.m4a", "a longer name.mp3"]) == 0
    table, errors = capsys.readouterr()
    assert errors == ""
    assert table.splitlines() == [
        "FILE               FORMAT               RATE  CHANNELS       LENGTH  ACTION                   BILLED",
        "alaw.wav           pcm_alaw in wav   8000 Hz         2  0:00:08.000  convert to LINEAR16_PCM    15 s",
        "call.m4a           alac in m4a      16000 Hz         1  0:00:08.000  convert to LINEAR16_PCM    15 s",
        "a longer name.mp3  MP3              48000 Hz         1  0:00:17.000  submit                     17 s",
    ]


@pytest.mark.usefixtures("folder")
def test_bad_files_do_not_stop_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "cut.wav", "missing.wav", ".", "a longer name.mp3", "--api-version", "v3"]) == 1
    table, errors = capsys.readouterr()
    assert [line.split()[-2] for line in table.splitlines()[1:4]] == ["refuse"] * 3
    assert table.splitlines()[4].endswith("submit    17 s")
    cut, missing, directory = errors.splitlines()
    assert cut.startswith("error: cut.wav: The WAV is truncated: its header promises")
    assert cut.endswith(" on_truncated='convert', which takes what there is.")
    assert missing.startswith("error: missing.wav: The file can't be read (No such file or directory). Check")
    assert directory.startswith("error: .: This isn't a regular file.")


@pytest.mark.usefixtures("folder")
def test_json_is_a_list_with_these_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--json", "--api-version", "v3", "alaw.wav", "a longer name.mp3", "cut.wav"]) == 1
    out, errors = capsys.readouterr()
    assert errors == ""
    alaw, mp3_, cut = json.loads(out)
    assert [list(one) for one in (alaw, mp3_, cut)] == [FIELDS] * 3
    assert list(alaw.values()) == ["alaw.wav", "pcm_alaw in wav", 8_000, 2, 8_000, "convert", "WAV", 15, None]
    assert list(mp3_.values()) == ["a longer name.mp3", "MP3", 48_000, 1, 17_000, "submit", None, 17, None]
    assert (cut["action"], cut["converted_to"], cut["billed_seconds"]) == ("refuse", None, None)
    assert cut["error"].startswith("The WAV is truncated: its header promises")


def test_samples_without_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "1.raw"
    path.write_bytes(bytes(2 * 2 * 8_000 * 20))
    about = ["--audio-encoding=LINEAR16_PCM", "--sample-rate-hertz=8000", "--audio-channel-count=2"]
    assert main(["probe", "--json", str(path), *about]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["format"], one["channels"], one["duration_ms"]) == ("LINEAR16_PCM", 2, 20_000)
    assert main(["probe", str(path), "--audio-encoding=LINEAR16_PCM"]) == 1
    assert "`sample_rate_hertz` is required" in capsys.readouterr().err


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "caf") + b"\xe9.mp3"
    Path(os.fsdecode(path)).write_bytes(mp3())
    for arguments in ([], ["--json"]):
        command = [sys.executable, "-m", "airflow_speechkit.cli", "probe", *arguments, path]
        done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONUTF8": "1"})
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_that_a_terminal_would_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "\33[2J\n.mp3"
    path.write_bytes(mp3()[:-900])
    assert main(["probe", str(path)]) == 1
    table, errors = capsys.readouterr()
    assert len(table.splitlines()) == 2
    assert len(errors.splitlines()) == 1
    assert "\\x1b[2J\\n.mp3" in table


def test_lpcm_comes_with_what_its_header_would_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "alaw.wav", "--to", "out"]) == 0
    out, errors = capsys.readouterr()
    assert out == f"{Path('out/alaw.lpcm')}\n"
    assert errors.splitlines() == [
        "LINEAR16_PCM, 8000 Hz, 2 channels, 0:00:08.000",
        "It has no header. Submit it with audio_encoding='LINEAR16_PCM', sample_rate_hertz=8000, audio_channel_count=2",
    ]
    assert (folder / "out/alaw.lpcm").stat().st_size == 2 * 2 * 8_000 * 8
    assert main(["convert", "alaw.wav", "--to", "out"]) == 1
    assert "out/alaw.lpcm exists already" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_wav_for_v3_and_what_there_is_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert", "cut.wav", "--to", "out", "--api-version", "v3"]
    assert main(command) == 1
    assert "The WAV is truncated" in capsys.readouterr().err
    assert main([*command, "--on-truncated", "convert"]) == 0
    out, errors = capsys.readouterr()
    # Where another test has loaded Airflow 2.11, its log is here too.
    assert out.splitlines()[-1] == str(Path("out/cut.wav"))
    assert errors.splitlines()[-1].startswith("WAV, 8000 Hz, 2 channels, 0:00:03.")


@pytest.mark.usefixtures("folder")
def test_an_audio_stream_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "call.m4a", "--to", "out", "--audio-stream", "2"]) == 1
    assert main(["probe", "call.m4a", "--audio-stream", "2"]) == 1
    message = "`audio_stream` is 2, and the number of audio streams in the file is 1"
    assert capsys.readouterr().err.count(message) == 2


def test_neither_needs_airflow(folder: Path) -> None:
    program = """
import sys
from airflow_speechkit.cli import main
assert not {"airflow", "av", "numpy"} & sys.modules.keys()
status = main(sys.argv[1:])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"airflow", "boto3", "pandas", "pyarrow", "fsspec"}))
sys.exit(status)
"""
    for command in (["probe", "alaw.wav"], ["convert", "alaw.wav", "--to", "out"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *command],
            cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_the_help_lists_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "    probe " in text
    assert "    convert " in text
