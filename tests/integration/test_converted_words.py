"""A word's time in the tables is its time in the recording, whatever the recording was converted to.

The emulator recognises the recording's own samples, and what it was converted to.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import Desk
from tests.unit.recordings.clicks import decoded, speech, wav_of, written

#: Two of the frames in which the emulator's recogniser measures, and what the service's users are promised.
MOST_MS = 20

#: Codec, container, rate, and the call. AAC in MP4 has an edit list.
KINDS = [
    ("pcm_alaw", "wav", 8_000, "doctor.ogg"),
    ("aac", "mp4", 44_100, "message.ogg"),
    ("libopus", "webm", 48_000, "message.ogg"),
    ("libmp3lame", "matroska", 44_100, "message.ogg"),
    ("vorbis", "ogg", 44_100, "doctor.ogg"),
]


def words_of(desk: Desk, name: str, content: bytes, target: Path) -> tuple[bool, list[tuple[int, str, int]]]:
    """Return whether a recording was converted, and each word in it: its channel, its text, its start in ms."""
    desk.emulator.put(f"{desk.prefix}/{name}", content)
    audio = f"s3://{desk.bucket}/{desk.prefix}/{name}"
    given = {"language": "en-US", "api_version": "v3", "upload_to": f"s3://{desk.bucket}/{desk.prefix}-copies/"}
    operation_id: Any = SpeechKitSubmitOperator(task_id="submit", audio=audio, **given).execute({})  # type: ignore[arg-type]
    wait = SpeechKitRecognitionSensor(task_id="wait", operation_id=operation_id, poke_interval=0.1, deferrable=False)
    wait.execute({})
    SpeechKitTransformOperator(task_id="rows", operation_id=operation_id, target=str(target)).execute({})
    rows = [row for path in (target / "words").rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    rows.sort(key=lambda row: (row["channel_index"], row["utterance"], row["word_index"]))
    submission = desk.archive.submission(operation_id)
    assert submission is not None
    said = [(row["channel_index"], row["word"].lower().strip(".,?!"), row["start_ms"]) for row in rows]
    return submission.submitted_uri is not None, said


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("codec", "container", "rate", "call"), KINDS)
def test_words_keep_their_times(desk: Desk, tmp_path: Path, codec: str, container: str, rate: int, call: str) -> None:
    samples = speech(call, rate)
    recording = written(codec, container, rate, len(samples), samples=samples)
    own, own_rate = decoded(BytesIO(recording))
    is_converted, expected = words_of(desk, "own.wav", wav_of(own, own_rate), tmp_path / "own")
    assert not is_converted
    is_converted, found = words_of(desk, f"1.{container}", recording, tmp_path / "converted")
    assert is_converted

    assert len(expected) > 20
    alike = SequenceMatcher(None, [word[:2] for word in expected], [word[:2] for word in found], autojunk=False)
    pairs = [
        (expected[one.a + number], found[one.b + number])
        for one in alike.get_matching_blocks()
        for number in range(one.size)
    ]
    # Lossy samples may be heard a little differently; words that both have are at the same time.
    assert len(pairs) >= 0.9 * len(expected)
    late_ms = [there[2] - here[2] for here, there in pairs]
    assert max(map(abs, late_ms)) <= MOST_MS
