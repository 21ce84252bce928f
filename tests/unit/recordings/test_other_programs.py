"""Requirements on recordings that other programs have written (tests/fixtures/audio)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from airflow_speechkit.errors import UnsupportedFormatError
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.recordings.conversion.convert import OnTruncated
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings
from tests.unit.recordings.clicks import AUDIO, SECONDS, converted, decoded, errors_ms
from tests.unit.recordings.sounds import decoded_seconds

if TYPE_CHECKING:
    from pathlib import Path

#: The channels of each, where its sound begins on the timeline of the clicks, and how late an encoder made it
#: without saying so in the file.
CONVERTED = {
    "sox.gsm": (1, 0, 0),
    "sox-gsm.wav": (1, 0, 0),
    "pyav.amr": (1, 0, 8),
    "ffmpeg.3gp": (1, 0, 8),
    "ffmpeg.m4a": (2, 0, 0),
    "cut.m4a": (2, 1, 0),
    "ffmpeg.webm": (2, 0, 0),
    # One frame: ffmpeg moves all times until the encoder's delay is at zero.
    "ffmpeg.wma": (2, 0, 46),
    # 1,105 samples: LAME's tag, which has the delay, isn't in Matroska.
    "lame.mkv": (1, 0, 138),
}


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("api_version", [ApiVersion.V2, ApiVersion.V3])
def test_what_is_said_keeps_its_time_and_its_channel(name: str, api_version: ApiVersion) -> None:
    channels, begins_s, late_ms = CONVERTED[name]
    with converted(AUDIO / name, api_version) as (copy, facts):
        samples, rate = decoded(copy)
    assert (facts.encoding, facts.channels, samples.shape[0]) == (AudioEncoding.OGG_OPUS, channels, channels)
    for channel in range(channels):
        assert np.abs(errors_ms(samples, rate, channel, -begins_s) - late_ms).max() < 5
    # A decoder may leave out the last packet's padding or not, which is 23 ms of AAC.
    assert facts.duration_ms == pytest.approx((SECONDS - begins_s) * 1000 + late_ms, abs=40)
    assert facts.duration_ms == pytest.approx(samples.shape[1] * 1000 / rate, abs=14)


def test_rough_timestamps_of_wma_leave_out_nothing(tmp_path: Path) -> None:
    # Windows writes frames that begin in one packet and end in the next: their timestamps are too early or too late.
    path = tmp_path / "1.wma"
    with av.open(str(AUDIO / "ffmpeg.wma")) as source, av.open(str(path), "w", format="asf") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(audio=0)):
            if packet.pts is not None:
                packet.pts = packet.dts = packet.pts + (number - 2) % 4 * 15
                packet.stream = stream
                target.mux(packet)
    with converted(path, ApiVersion.V3) as (copy, _):
        samples, rate = decoded(copy)
    assert np.abs(errors_ms(samples, rate, 0) - CONVERTED["ffmpeg.wma"][2]).max() < 5


@pytest.mark.parametrize(("name", "encoding"), [("lame.mp3", "MP3"), ("opusenc.opus", "OGG_OPUS")])
def test_what_is_taken_as_it_is_has_the_length_that_a_decoder_gets(name: str, encoding: str) -> None:
    data = (AUDIO / name).read_bytes()
    settings = RecognitionSettings(api_version=ApiVersion.V3)
    facts = read_audio(lambda start, length: data[start : start + length], len(data), settings)
    assert facts.encoding == encoding
    assert facts.duration_ms == round(decoded_seconds(data) * 1000)
    samples, rate = decoded(io.BytesIO(data))
    assert np.abs(errors_ms(samples, rate, 0)).max() < 5


@pytest.mark.parametrize("on_truncated", OnTruncated)
def test_amr_that_leaves_out_pauses_is_refused(on_truncated: OnTruncated) -> None:
    # Nearly all that follows the first pause would be missing.
    with (
        pytest.raises(UnsupportedFormatError, match=r"AMR.*pauses.*DTX.*sox\.amr.*WAV"),
        converted(AUDIO / "sox.amr", ApiVersion.V3, on_truncated=on_truncated),
    ):
        pass
