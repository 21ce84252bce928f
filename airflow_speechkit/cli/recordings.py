"""``airflow-speechkit probe``: what files are, and what is done with them; ``convert``: one that the API takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_speechkit.parsing import writable
from airflow_speechkit.recordings.files import FileReport, convert_file, inspect_file
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from airflow_speechkit.errors import SpeechKitError

_COLUMNS = ("FILE", "FORMAT", "RATE", "CHANNELS", "LENGTH", "ACTION", "BILLED")
_RIGHT = frozenset({"RATE", "CHANNELS", "LENGTH", "BILLED"})
_UNKNOWN = "-"


def add(subparsers: Any) -> None:
    """Add the commands."""
    parser = subparsers.add_parser(
        "probe",
        help="show what recordings are, and what would be done with them",
        description="Show what recordings are, what SpeechKitSubmitOperator would do with them if it had `upload_to`, "
        "and the seconds that their recognition is billed. Nothing is written or sent. Files that the API doesn't take "
        "are decoded to their end, with the extra `audio`. The exit status is 1 if a file is refused.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a local file; folders aren't searched")
    parser.add_argument("--json", action="store_true", help="a list of JSON objects, one for each file")
    _add_common(parser)
    parser.add_argument(
        "--audio-encoding", metavar="NAME", help="LINEAR16_PCM: the files are 16-bit samples without a header"
    )
    parser.add_argument("--sample-rate-hertz", type=int, metavar="N", help="of such samples: 8000, 16000 or 48000")
    parser.add_argument("--audio-channel-count", type=int, metavar="N", help="of such samples (default: 1)")
    parser.set_defaults(run=_probe)

    parser = subparsers.add_parser(
        "convert",
        help="convert a recording to one that the API takes",
        description="Convert a recording as SpeechKitSubmitOperator does. The copy has the file's name with the "
        "extension .lpcm, .wav or .ogg. No file is overwritten. This needs the extra `audio`, except for a WAV whose "
        "samples API v2 takes.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a local file")
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="the folder for the copy")
    _add_common(parser)
    parser.add_argument(
        "--on-truncated",
        default="fail",
        choices=["fail", "convert"],
        help="`convert` takes what can be decoded of a file that is cut off or damaged (default: fail)",
    )
    parser.set_defaults(run=_convert)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--api-version", default="v2", choices=["v2", "v3"], help="the API that will read the recording (default: v2)"
    )
    parser.add_argument(
        "--audio-stream",
        type=int,
        metavar="N",
        help="which audio stream of a file that is converted, counted from 1 (default: a player's choice)",
    )


def _probe(arguments: argparse.Namespace) -> int:
    settings = RecognitionSettings(
        api_version=arguments.api_version,
        audio_encoding=arguments.audio_encoding,
        sample_rate_hertz=arguments.sample_rate_hertz,
        audio_channel_count=arguments.audio_channel_count,
    )
    reports = [inspect_file(path, settings, audio_stream=arguments.audio_stream) for path in arguments.files]
    if arguments.json:
        print(json.dumps([_facts(one) for one in reports], indent=2))
    else:
        _print_table([_COLUMNS, *map(_row, reports)])
        for one in reports:
            if one.error is not None:
                print(f"error: {_shown(one.path)}: {_text(one.error)}", file=sys.stderr)
    return 1 if any(one.error for one in reports) else 0


def _convert(arguments: argparse.Namespace) -> int:
    made = convert_file(
        arguments.file,
        arguments.to,
        RecognitionSettings(api_version=arguments.api_version),
        audio_stream=arguments.audio_stream,
        on_truncated=arguments.on_truncated,
    )
    print(_name(made.path))
    channels = f"{made.channels} channel{'' if made.channels == 1 else 's'}"
    facts = [made.encoding, f"{made.sample_rate_hertz} Hz", channels, _length(made.duration_ms)]
    print(", ".join(facts), file=sys.stderr)
    if made.encoding is AudioEncoding.LINEAR16_PCM:
        print(
            f"It has no header. Submit it with audio_encoding='{made.encoding}', "
            f"sample_rate_hertz={made.sample_rate_hertz}, audio_channel_count={made.channels}",
            file=sys.stderr,
        )
    return 0


def _facts(report: FileReport) -> dict[str, Any]:
    error = None if report.error is None else _text(report.error)
    return {**vars(report), "path": str(report.path), "error": error}


def _row(report: FileReport) -> tuple[str, ...]:
    return (
        _shown(report.path),
        report.format or _UNKNOWN,
        f"{report.sample_rate_hertz} Hz" if report.sample_rate_hertz else _UNKNOWN,
        str(report.channels or _UNKNOWN),
        _length(report.duration_ms),
        f"{report.action} to {report.converted_to}" if report.converted_to else report.action,
        _UNKNOWN if report.billed_seconds is None else f"{report.billed_seconds:,} s",
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for cell, width, column in zip(row, widths, _COLUMNS, strict=True)
        )
        print("  ".join(cells).rstrip())


def _length(ms: int | None) -> str:
    if ms is None:
        return _UNKNOWN
    minutes, rest = divmod(ms, 60_000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def _name(path: Path) -> str:
    return writable(str(path))


def _shown(path: Path) -> str:
    """Return a file's name without line breaks and what else a terminal would obey."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in _name(path))


def _text(error: SpeechKitError) -> str:
    """Return what happened and what to do about it; the file is named beside it."""
    return " ".join(f"{part.rstrip('.')}." for part in (error.what, error.hint) if part)
