"""The options of an emulator, and their command-line arguments."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from speechkit_emulator.bounds import LONGEST_S, SPEEDS, BadValueError, number, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from speechkit_emulator.bounds import Reader, T

_BUCKET = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:[.-]+[a-z0-9]+)*")
_MANY = 10**9
_MAX_RECOGNISERS = 64
_ANY_FREE = "0 = any free port (default: %(default)s)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one emulator. Durations are in service seconds: `speed` of them pass in a wall-clock second.

    :param port: of the emulated SpeechKit; 0 = any free port
    :param storage_port: of the bucket's server; 0 = any free port
    :param storage_url: a running S3 server to use instead of starting one
    :param bucket: name of the bucket; created if missing
    :param samples: put the sample calls into the bucket when it is created
    :param speed: service seconds per wall-clock second
    :param state: directory for operations, billing record, credentials and clock; None = keep them in memory
    :param authorized_key: file with a service account's authorized key; written if missing
    :param recognisers: number of recogniser processes
    :param warm: load the recognisers' models at the start instead of with the first recording
    :param exit_with_stdin: stop when standard input is closed, which happens when the parent process ends
    :param strict: refuse requests that many clients send although the documentation does not allow them
    :param submits_per_hour: quota of submits
    :param v2_checks_per_hour: quota of v2 operation checks
    :param v3_checks_per_second: quota of v3 operation checks
    :param body_limit: largest request body, in bytes
    :param max_hours: how long a recording may be, its channels added up
    :param retention_s: how long a finished operation and its result are kept
    :param token_lifetime_s: how long an IAM token is valid
    :param seconds_a_minute: processing time for a minute of one channel
    :param unknown_language: result of a recording that has no transcript and that the recogniser can't recognise:
        "error", "silence", or the text to answer
    :param deferred_delay_s: additional processing time of a deferred model
    """

    port: int = 8700
    storage_port: int = 8701
    storage_url: str | None = None
    bucket: str = "recordings"
    samples: bool = True
    speed: float = 60.0
    state: Path | None = None
    authorized_key: Path | None = None
    recognisers: int = 2
    warm: bool = True
    exit_with_stdin: bool = False
    strict: bool = False
    submits_per_hour: int = 500
    v2_checks_per_hour: int = 2500
    v3_checks_per_second: int = 5
    body_limit: int = 60_000_000
    max_hours: float = 4.0
    retention_s: float = 3 * 24 * 3600.0
    token_lifetime_s: float = 12 * 3600.0
    seconds_a_minute: float = 10.0
    deferred_delay_s: float = 60.0
    unknown_language: str = "error"


def _within(convert: Callable[[str], T], reader: Reader[T]) -> Callable[[str], T]:
    """A type for argparse: convert an argument, then check it with `reader`."""

    def read(given: str) -> T:
        try:
            return reader(convert(given), "it")
        except BadValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    # argparse uses this name in its error for a value that can't be converted.
    read.__name__ = "number"
    return read


_PORT = _within(int, whole(0, 65535))
_COUNT = _within(int, whole(0, _MANY))
_SPAN = _within(float, number(0, LONGEST_S))
_HOURS = _within(float, number(0, LONGEST_S / 3600))


def _bucket(given: str) -> str:
    if not _BUCKET.fullmatch(given):
        raise argparse.ArgumentTypeError(
            f"{given!r} is not a bucket name: use 3 to 63 lower-case letters, digits, hyphens and full stops"
        )
    return given


def _url(given: str) -> str:
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{given!r} is not the URL of a server: use http://HOST:PORT")
    return given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line's arguments, one for each field of :class:`Options`."""
    default = Options(recognisers=max(1, min(2, os.cpu_count() or 1)))
    port = parser.add_argument_group("addresses (always on loopback)")
    port.add_argument("--port", type=_PORT, default=default.port, help=f"port of the emulated SpeechKit, {_ANY_FREE}")
    port.add_argument(
        "--storage-port", type=_PORT, default=default.storage_port, help=f"port of the bucket's server, {_ANY_FREE}"
    )
    port.add_argument("--storage-url", type=_url, default=None, help="use a running S3 server")
    port.add_argument(
        "--bucket",
        type=_bucket,
        default=default.bucket,
        help="name of the bucket, created if missing (default: %(default)s)",
    )
    port.add_argument(
        "--samples",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put the sample calls into the bucket when it is created",
    )
    time = parser.add_argument_group("time")
    time.add_argument(
        "--speed",
        type=_within(float, number(*SPEEDS)),
        default=default.speed,
        help="service seconds per second (default: %(default)g)",
    )
    time.add_argument("--seconds-a-minute", type=_SPAN, default=default.seconds_a_minute, metavar="S")
    time.add_argument("--deferred-delay-s", type=_SPAN, default=default.deferred_delay_s, metavar="S")
    time.add_argument("--retention-s", type=_SPAN, default=default.retention_s, metavar="S")
    time.add_argument("--token-lifetime-s", type=_SPAN, default=default.token_lifetime_s, metavar="S")
    quota = parser.add_argument_group("quotas, in service time")
    quota.add_argument("--submits-per-hour", type=_COUNT, default=default.submits_per_hour, metavar="N")
    quota.add_argument("--v2-checks-per-hour", type=_COUNT, default=default.v2_checks_per_hour, metavar="N")
    quota.add_argument("--v3-checks-per-second", type=_COUNT, default=default.v3_checks_per_second, metavar="N")
    quota.add_argument("--body-limit", type=_COUNT, default=default.body_limit, metavar="BYTES")
    quota.add_argument("--max-hours", type=_HOURS, default=default.max_hours, metavar="H")
    rest = parser.add_argument_group("state and recogniser")
    rest.add_argument(
        "--state", type=Path, default=None, metavar="DIR", help="keep the state in this folder across restarts"
    )
    rest.add_argument(
        "--authorized-key", type=Path, default=None, metavar="FILE", help="authorized key; written if missing"
    )
    rest.add_argument(
        "--recognisers",
        type=_within(int, whole(1, _MAX_RECOGNISERS)),
        default=default.recognisers,
        metavar="N",
        help="number of recogniser processes (default: %(default)s)",
    )
    rest.add_argument(
        "--unknown-language",
        default=default.unknown_language,
        metavar="error|silence|TEXT",
        help="result of a recording that has no transcript and is not en-US (default: %(default)s)",
    )
    rest.add_argument("--warm", action=argparse.BooleanOptionalAction, default=True, help="load the model at the start")
    rest.add_argument(
        "--strict",
        action="store_true",
        help="refuse requests that clients send although the documentation does not allow them",
    )
    rest.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input is closed")
