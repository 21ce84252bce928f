"""A client of the emulated service, and recordings to send."""

from __future__ import annotations

import io
import json
import time
import wave
from pathlib import Path
from typing import Any

import requests

from speechkit_emulator.process import EmulatorProcess

SAMPLES = Path(__file__).resolve().parents[1] / "speechkit_emulator/samples"

#: The first bytes of an Ogg Opus recording; its duration comes from its transcript.
OGG_HEAD = b"OggS\x00\x02" + bytes(20) + b"\x01\x13" + b"OpusHead\x01\x01\x38\x01" + bytes(64)


class Caller:
    """An HTTP client of the emulated service."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.authorization = f"Api-Key {emulator.api_key}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        headers = {"Authorization": self.authorization, **{name.replace("_", "-"): v for name, v in headers.items()}}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        return self.session.request(method, self.emulator.url + path, data=data, headers=headers, timeout=60)

    def submit(self, link: str, **specification: Any) -> requests.Response:
        specification = {"languageCode": "en-US", **specification}
        body = {"config": {"specification": specification}, "audio": {"uri": link}}
        return self.ask("POST", "/speech/stt/v2/longRunningRecognize", body)

    def submit_pcm(self, link: str, rate: int = 16000) -> requests.Response:
        return self.submit(link, audioEncoding="LINEAR16_PCM", sampleRateHertz=rate, audioChannelCount=1)

    def submit_v3(self, link: str, container: str = "OGG_OPUS", **message: Any) -> requests.Response:
        audio_format = {"container_audio": {"container_audio_type": container}}
        body = {"uri": link, "recognition_model": {"audio_format": audio_format}, **message}
        return self.ask("POST", "/stt/v3/recognizeFileAsync", body)

    def finished(self, operation_id: str) -> dict[str, Any]:
        while True:
            answer = self.ask("GET", f"/operations/{operation_id}")
            assert answer.status_code == 200, answer.text
            operation: dict[str, Any] = answer.json()
            if operation["done"]:
                return operation
            time.sleep(0.05)

    def stream(self, operation_id: str) -> list[dict[str, Any]]:
        answer = self.ask("GET", f"/stt/v3/getRecognition?operation_id={operation_id}")
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]


def transcript_of(*texts: str, **more: Any) -> dict[str, Any]:
    """A transcript with one utterance for each channel."""
    channels = [{"utterances": [{"text": text, "start_ms": 1000, "end_ms": 3000}]} for text in texts]
    return {"duration_ms": 4000, "channels": channels, **more}


def quick(*arguments: str, **options: Any) -> EmulatorProcess:
    """An emulator with a fast clock, and quotas that no test uses up by chance."""
    quotas = ("--submits-per-hour=100000", "--v2-checks-per-hour=1000000")
    return EmulatorProcess(*quotas, *arguments, speed=600, **options)


def first_sentence(rate: int = 16000) -> bytes:
    """The first sentence of message.ogg as PCM without a header: short, because recognition takes seconds."""
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    with av.open(str(SAMPLES / "message.ogg")) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    pcm = b"".join(frame.to_ndarray().tobytes() for frame in [*frames, *resampler.resample(None)])
    return pcm[: 2 * rate * 7 // 2]


def wav(pcm: bytes, rate: int = 16000) -> bytes:
    """Mono PCM in a WAV container."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm)
    return content.getvalue()
