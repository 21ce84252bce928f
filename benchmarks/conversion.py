"""Time and memory of conversions, beside `ffmpeg` as a program that does the same.

    python benchmarks/conversion.py [--minutes 20] [--rounds 3]

Each conversion runs in a process of its own. Its time is the CPU time of that process from its start to its end, of the
best round. `ffmpeg` is left out where it isn't installed.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / "emulator/speechkit_emulator/samples"
AMR = ROOT / "tests/fixtures/audio/pyav.amr"
AMR_HEADER, AMR_S = b"#!AMR\n", 8.02
LONG_HOURS = 4
LIMIT_MB = 200

#: Prepares what every conversion has to load.
START = "import airflow_speechkit.recordings.conversion.convert, av"
CONVERT = """
import sys
from pathlib import Path
from airflow_speechkit.recordings.conversion.decoding import open_source
from airflow_speechkit.recordings.conversion.encoding import write
from airflow_speechkit.recordings.conversion.plan import plan_conversion
from airflow_speechkit.settings import ApiVersion
with open_source(Path(sys.argv[1])) as source, open(sys.argv[2], "w+b") as target:
    write(source, plan_conversion(source.facts, ApiVersion(sys.argv[3])), target, lambda done_ms: None)
# What Linux says of a child's memory elsewhere includes its parent's.
print(Path("/proc/self/status").read_text())
"""


@dataclass(frozen=True)
class Case:
    """A recording, and what it becomes.

    :param name: the row's name
    :param source: the recording's file name
    :param codec: its codec
    :param rate: its rate
    :param api_version: which API reads the copy
    :param ffmpeg: the program's arguments that make the same
    :param goal: times faster than real time, at least
    """

    name: str
    source: str
    codec: str
    rate: int
    api_version: str
    ffmpeg: tuple[str, ...]
    goal: int | None


OPUS = ("-c:a", "libopus", "-f", "ogg")
CASES = [
    Case("A-law WAV, 8 kHz → LPCM", "1.wav", "pcm_alaw", 8_000, "v2", ("-f", "s16le"), 100),
    Case("A-law WAV, 8 kHz → WAV", "1.wav", "pcm_alaw", 8_000, "v3", ("-c:a", "pcm_s16le", "-f", "wav"), 100),
    Case("FLAC, 44.1 kHz → WAV, 48 kHz", "1.flac", "flac", 44_100, "v3", ("-ar", "48000", "-f", "wav"), 100),
    Case("AAC, 44.1 kHz → OggOpus", "1.m4a", "aac", 44_100, "v3", (*OPUS, "-b:a", "128k", "-ar", "48000"), 30),
    Case("AMR, 8 kHz mono → OggOpus", "1.amr", "amr_nb", 8_000, "v3", (*OPUS, "-b:a", "64k"), 30),
    Case("Opus in WebM → OggOpus", "1.webm", "libopus", 48_000, "v3", ("-c:a", "copy", "-f", "ogg"), 30),
]  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a process took; of one that doesn't say so, the memory is 0."""

    cpu_s: float
    peak_mb: float


def measure(command: list[str]) -> Cost:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed")
    peak = re.search(r"VmHWM:\s+(\d+) kB", said)
    return Cost(used.ru_utime + used.ru_stime, int(peak[1]) / 1000 if peak else 0)


def convert(source: Path, target: Path, api_version: str) -> list[str]:
    return [sys.executable, "-c", CONVERT, str(source), str(target), api_version]


def write_speech(path: Path, case: Case, minutes: float) -> None:
    """Write a call of two speakers, the emulator's samples in turns; or an AMR, for which PyAV has no encoder."""
    if case.codec == "amr_nb":
        frames = AMR.read_bytes().removeprefix(AMR_HEADER)
        path.write_bytes(AMR_HEADER + frames * math.ceil(minutes * 60 / AMR_S))
        return
    import av
    import numpy as np

    voices: list[Any] = []
    for name in ("hotel.ogg", "refund.ogg"):
        with av.open(str(SPEECH / name)) as container:
            resampler = av.AudioResampler("s16p", layout="mono", rate=case.rate)
            frames = [one for frame in container.decode(audio=0) for one in resampler.resample(frame)]
            voices.append(np.concatenate([frame.to_ndarray()[0] for frame in frames]))
    length = min(map(len, voices))
    piece = np.stack([voice[:length] for voice in voices])
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(case.codec, rate=case.rate, layout="stereo")
        to_kind = av.AudioResampler(stream.codec_context.codec.audio_formats[0].name, layout="stereo", rate=case.rate)
        step, at = stream.codec_context.frame_size or 1024, 0
        whole = np.tile(piece, math.ceil(minutes * 60 * case.rate / length))[:, : round(minutes * 60 * case.rate)]
        for start in range(0, whole.shape[1], step):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(whole[:, start : start + step]), format="s16p", layout="stereo"
            )
            frame.sample_rate = case.rate
            for one in to_kind.resample(frame):
                one.pts, one.time_base = at, Fraction(1, case.rate)
                at += one.samples
                output.mux(stream.encode(one))
        output.mux(stream.encode(None))


def write_long(path: Path) -> None:
    """Write an A-law WAV of many hours with two channels."""
    minute = bytes(range(256)) * (60 * 8_000 * 2 // 256)
    size = len(minute) * 60 * LONG_HOURS
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 6, 2, 8_000, 16_000, 2, 8)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", size + len(form) + 12, b"WAVE") + form)
        file.write(struct.pack("<4sI", b"data", size))
        for _ in range(60 * LONG_HOURS):
            file.write(minute)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="length of the recordings")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts")
    arguments = parser.parse_args()
    program = shutil.which("ffmpeg")
    print(f"{arguments.minutes:g} minutes of two channels, load {os.getloadavg()[0]:.1f}")
    print(f"to load Python and PyAV, which is part of each time: {measure([sys.executable, '-c', START]).cpu_s:.2f} s")
    print(
        f"{'':<32}{'CPU s':>8}{'x real time':>13}{'goal':>6}{'peak MB':>9}{'ffmpeg CPU s':>14}{'its time by ours':>18}"
    )
    missed = []
    with tempfile.TemporaryDirectory(prefix="speechkit-bench-") as folder:
        home = Path(folder)
        for case in CASES:
            source, target = home / case.source, home / "copy"
            if not source.exists():
                write_speech(source, case, arguments.minutes)
            ours, theirs = [], []
            call = [program or "", "-nostdin", "-v", "error", "-y", "-threads", "1", "-i", str(source)]
            for _ in range(arguments.rounds):
                ours.append(measure(convert(source, target, case.api_version)))
                if program:
                    theirs.append(measure([*call, "-threads", "1", *case.ffmpeg, str(target)]))
            best, peak = min(one.cpu_s for one in ours), max(one.peak_mb for one in ours)
            times = arguments.minutes * 60 / best
            beside = f"{'not installed':>14}"
            if program:
                other = min(one.cpu_s for one in theirs)
                beside = f"{other:>14.2f}{other / best:>17.2f}x"
            print(f"{case.name:<32}{best:>8.2f}{times:>12.0f}x{case.goal or '':>6}{peak:>9.0f}{beside}")
            if case.goal and times < case.goal:
                missed.append(case.name)
        source = home / "long.wav"
        write_long(source)
        long = measure(convert(source, home / "copy", "v2"))
        print(f"{f'{CASES[0].name}, {LONG_HOURS} hours':<32}{long.cpu_s:>8.2f}{long.peak_mb:>28.0f} of {LIMIT_MB}")
        if long.peak_mb > LIMIT_MB:
            missed.append("memory")
    if missed:
        print("missed:", ", ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
