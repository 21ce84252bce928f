"""Makes the sample calls: sentences spoken by flite's voices, each speaker on a separate channel.

It needs flite (Debian: ``apt-get install flite``), and PyAV and numpy, which the emulator installs.
``python make_samples.py`` writes the recordings and ``manifest.json`` into the package. ``--listen`` recognises them
too, and prints the recognised text and the share of right words.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "speechkit_emulator" / "samples"
RATE = 16000
PAUSE_S = 0.7


@dataclass(frozen=True)
class Voice:
    """A voice of flite.

    :param name: in flite
    :param stretch: 1.1 = a tenth slower
    """

    name: str
    stretch: float = 1.0


AGENT = Voice("rms")
WOMAN = Voice("slt")
SLOW_WOMAN = Voice("slt", 1.1)
MAN = Voice("awb")


@dataclass(frozen=True)
class Call:
    """One recording.

    :param roles: of the channels, in their order
    :param turns: (channel, voice, sentence), one after the other
    """

    call_id: str
    file: str
    direction: str
    roles: tuple[str, ...]
    turns: tuple[tuple[int, Voice, str], ...]


CALLS = (
    Call(
        "call-001",
        "delivery.ogg",
        "inbound",
        ("agent", "customer"),
        (
            (0, AGENT, "good morning how can i help you today"),
            (1, WOMAN, "i have a question about my order"),
            (1, WOMAN, "my order has not arrived yet"),
            (0, AGENT, "i am sorry to hear that"),
            (0, AGENT, "i will send you a new one today"),
            (1, WOMAN, "that sounds very good"),
        ),
    ),
    Call(
        "call-002",
        "refund.ogg",
        "inbound",
        ("agent", "customer"),
        (
            (1, MAN, "i paid for it last month"),
            (1, MAN, "they have taken the money twice"),
            (0, AGENT, "let me look at your account"),
            (0, AGENT, "we will send the money back to your bank"),
            (1, MAN, "when will i get my money back"),
            (0, AGENT, "it will take three days"),
        ),
    ),
    Call(
        "call-003",
        "doctor.ogg",
        "outbound",
        ("agent", "customer"),
        (
            (0, AGENT, "the doctor can see you on thursday afternoon"),
            (0, AGENT, "what time would you like to come"),
            (1, WOMAN, "i can come on thursday after work"),
            (0, AGENT, "i will see you on thursday"),
        ),
    ),
    Call(
        "call-004",
        "hotel.ogg",
        "inbound",
        ("agent", "customer"),
        (
            (1, WOMAN, "i would like to stay from friday to sunday"),
            (0, AGENT, "breakfast is included in the price"),
            (1, WOMAN, "is there a garden behind the hotel"),
            (0, AGENT, "yes we have a garden with a view of the sea"),
            (1, WOMAN, "i will take it"),
        ),
    ),
    Call(
        "call-005",
        "message.ogg",
        "inbound",
        ("customer",),
        (
            (0, AGENT, "this is a message for the sales department"),
            (0, AGENT, "our company needs five hundred boxes every month"),
            (0, AGENT, "please call me back when you have time"),
        ),
    ),
    Call(
        "call-006",
        "station.mp3",
        "inbound",
        ("agent", "customer"),
        (
            (1, SLOW_WOMAN, "where can i buy a ticket"),
            (0, AGENT, "you can buy a ticket at the station"),
            (1, SLOW_WOMAN, "we are coming by train"),
            (0, AGENT, "it is about twenty minutes late because of the snow"),
        ),
    ),
)


def speak(voice: Voice, sentence: str) -> Any:
    """Speak a sentence; return float samples at `RATE`."""
    import av
    import numpy

    with tempfile.NamedTemporaryFile(suffix=".wav") as wav:
        stretch = f"duration_stretch={voice.stretch}"
        subprocess.run(
            ["flite", "-voice", voice.name, "--setf", stretch, "-t", sentence, "-o", wav.name],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with av.open(wav.name) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            frames += resampler.resample(None)
    samples = numpy.concatenate([frame.to_ndarray()[0] for frame in frames])
    return samples * (0.5 / numpy.abs(samples).max())


def lay_out(call: Call) -> tuple[Any, list[dict[str, Any]]]:
    """The call's samples (channels x samples), and the times of each turn."""
    import numpy

    pause = round(PAUSE_S * RATE)
    at, pieces, turns = pause, [], []
    for channel, voice, sentence in call.turns:
        samples = speak(voice, sentence)
        pieces.append((channel, at, samples))
        turns.append(
            {
                "channel": channel,
                "start_ms": round(at / RATE * 1000),
                "end_ms": round((at + len(samples)) / RATE * 1000),
                "text": sentence,
            }
        )
        at += len(samples) + pause
    track = numpy.zeros((len(call.roles), at), dtype=numpy.float32)
    for channel, start, samples in pieces:
        track[channel, start : start + len(samples)] += samples
    return track, turns


def encode(track: Any, path: Path) -> None:
    """Write the recording as Ogg Opus or MP3, by its name."""
    import av
    import numpy

    ogg = path.suffix == ".ogg"
    layout = "mono" if len(track) == 1 else "stereo"
    options = {"fflags": "bitexact"}
    with av.open(str(path), "w", format="ogg" if ogg else "mp3", options=options) as container:
        stream = container.add_stream("libopus" if ogg else "libmp3lame", rate=RATE)
        stream.layout = layout
        stream.bit_rate = 16000 * len(track)
        frame = av.AudioFrame.from_ndarray(numpy.ascontiguousarray(track), format="fltp", layout=layout)
        frame.sample_rate = RATE
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=RATE, frame_size=stream.codec_context.frame_size
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def word_errors(spoken: list[str], recognised: list[str]) -> int:
    """The number of words to insert, remove or change to turn one list into the other."""
    row = list(range(len(recognised) + 1))
    for number, word in enumerate(spoken, 1):
        above, row[0] = row[:], number
        for place, other in enumerate(recognised, 1):
            row[place] = min(above[place] + 1, row[place - 1] + 1, above[place - 1] + (word != other))
    return row[-1]


def listen(manifest: list[dict[str, Any]]) -> None:
    """Recognise the recordings as the emulator does, and print the share of right words."""
    from speechkit_emulator.hearing import hear

    errors = words = 0
    for call in manifest:
        encoding = "OGG_OPUS" if call["file"].endswith(".ogg") else "MP3"
        recognised = hear((FOLDER / call["file"]).read_bytes(), encoding, 48000, None)
        for channel, role in enumerate(call["channels"]):
            spoken = " ".join(turn["text"] for turn in call["turns"] if turn["channel"] == channel).split()
            got = " ".join(utterance.text for utterance in recognised if utterance.channel == channel).split()
            wrong = word_errors(spoken, got)
            errors, words = errors + wrong, words + len(spoken)
            sys.stdout.write(f"{call['file']:14} {role:9} {len(spoken) - wrong}/{len(spoken)}  {' '.join(got)}\n")
    sys.stdout.write(f"{words} words, {errors} wrong: {1 - errors / words:.1%} right\n")


def main() -> None:
    """Make the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", action="store_true")
    arguments = parser.parse_args()
    manifest = []
    for call in CALLS:
        track, turns = lay_out(call)
        encode(track, FOLDER / call.file)
        manifest.append(
            {
                "call_id": call.call_id,
                "file": call.file,
                "direction": call.direction,
                "language": "en-US",
                "channels": list(call.roles),
                "duration_ms": round(track.shape[1] / RATE * 1000),
                "turns": turns,
            }
        )
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    if arguments.listen:
        listen(manifest)


if __name__ == "__main__":
    main()
