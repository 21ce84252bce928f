"""What goes wrong while a recording is converted: nothing half is ever submitted, and the next try pays once.

The first try is a process of its own, which is killed while a request of it is held on its way to the storage.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.settings import ApiVersion
from tests.faults.gate import Deed, Gate, Rule
from tests.fixtures.direct import Desk
from tests.fixtures.environment import ROOT
from tests.fixtures.until import until
from tests.unit.recordings.clicks import converted
from tests.unit.recordings.sounds import wav

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("instant_answers")]

OPERATOR = """
import resource, sys
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
audio, upload_to, most_bytes = sys.argv[1:]
if int(most_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes),) * 2)
submit = SpeechKitSubmitOperator(task_id="submit", audio=audio, upload_to=upload_to, language="en-US")
print("submitted:", submit.execute({}))
"""
#: A-law: a second of two channels has 16 kB, and twice as much as LPCM.
SHORT = wav(seconds=10, channels=2, codec="pcm_alaw")
OTHER = wav(seconds=12, channels=2, codec="pcm_alaw")
#: Its copy is sent in two parts.
LONG = wav(seconds=300, channels=2, codec="pcm_alaw")
#: Five minutes, which take seconds to convert to OggOpus.
SLOW = (ROOT / "tests/fixtures/audio/sox.gsm").read_bytes() * 40

COPY = "-copies/[^ ]*"


class Attempt:
    """The first try of the task, in a process of its own."""

    def __init__(self, desk: Desk, audio: str, *, most_bytes: int = 0) -> None:
        self.temporary = desk.place / "temporary"
        self.temporary.mkdir(exist_ok=True)
        self._log = (desk.place / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", OPERATOR, audio, upload_to(desk), str(most_bytes)],
            env=os.environ | {"TMPDIR": str(self.temporary)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until(self, so: Callable[[], bool]) -> None:
        """Wait until it is so, while the process runs."""

        def so_or_ended() -> bool:
            assert self.process.poll() is None, self.log()
            return so()

        asyncio.run(until(so_or_ended))

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """Wait for its end, and return what it said."""
        self.process.wait()
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self.kill()
        self._log.close()


@contextmanager
def gate_to_storage(desk: Desk) -> Iterator[Gate]:
    """Let the operator reach the storage through a gate. Afterwards it reaches it directly again."""
    gate = Gate(urlsplit(desk.emulator.storage_url).port or 80)
    direct = os.environ["AIRFLOW_CONN_AWS_DEFAULT"]
    connection = json.loads(direct)
    connection["extra"]["endpoint_url"] = gate.url
    desk.environment.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    try:
        yield gate
    finally:
        desk.environment.setenv("AIRFLOW_CONN_AWS_DEFAULT", direct)
        gate.close()


def upload_to(desk: Desk) -> str:
    return f"s3://{desk.bucket}/{desk.prefix}-copies/"


def copies(desk: Desk) -> dict[str, Any]:
    client = desk.emulator.s3()
    listed = client.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}-copies/").get("Contents", ())
    return {one["Key"]: client.get_object(Bucket=desk.bucket, Key=one["Key"])["Body"].read() for one in listed}


def billed(desk: Desk) -> int:
    return sum(f"{desk.prefix}-copies/" in str(one) for one in desk.emulator.billing())


def expect_nothing(desk: Desk) -> None:
    """See that nothing was sent, and that there is no copy."""
    assert not billed(desk)
    assert not list(desk.archive.operations())
    assert not copies(desk)


def expect_whole(desk: Desk, audio: str, content: bytes) -> None:
    """Run the task again, and see that the whole recording was converted, sent and paid for once."""
    submit_again(desk, audio)
    expect_submitted(desk, audio, content)


def submit_again(desk: Desk, audio: str) -> None:
    SpeechKitSubmitOperator(task_id="submit", audio=audio, upload_to=upload_to(desk), language="en-US").execute({})


def expect_submitted(desk: Desk, audio: str, *versions: bytes) -> None:
    """See that these versions of a recording were converted as a whole, sent, and paid for once each."""
    expected, lengths_ms = set(), []
    for version in versions:
        path = desk.place / audio.rpartition("/")[2]
        path.write_bytes(version)
        with converted(path, ApiVersion.V2) as (file, facts):
            expected.add(file.read())
        lengths_ms.append(facts.duration_ms)
    assert set(copies(desk).values()) == expected
    assert len(copies(desk)) == billed(desk) == len(versions)
    submissions = [desk.archive.submission(operation_id) for operation_id in desk.archive.operations()]
    assert {one.audio_uri for one in submissions if one} == {audio}
    assert sorted(one.duration_ms or 0 for one in submissions if one) == lengths_ms


def kill_at(attempt: Attempt, held: Rule) -> None:
    """Kill a process while a request of it is held, which then never arrives."""
    attempt.wait_until(held.struck.is_set)
    attempt.kill()
    held.drop()


def test_killed_while_it_converts(desk: Desk) -> None:
    audio = desk.put("1.gsm", SLOW)
    with closing(Attempt(desk, audio)) as attempt:

        def is_converting() -> bool:
            sizes = {path.suffix: path.stat().st_size for path in attempt.temporary.iterdir()}
            return sizes.get(".gsm") == len(SLOW) and sizes.get("", 0) > 0

        attempt.wait_until(is_converting)
        attempt.kill()
    expect_nothing(desk)
    expect_whole(desk, audio, SLOW)


@pytest.mark.parametrize(
    ("content", "request_"),
    [
        (SHORT, f"PUT [^ ]*{COPY}"),
        (LONG, f"PUT [^ ]*{COPY}partNumber=2"),
        (LONG, f"POST [^ ]*{COPY}uploadId="),
    ],
    ids=["whole", "a part", "end of the parts"],
)
def test_killed_while_it_uploads_the_copy(desk: Desk, content: bytes, request_: str) -> None:
    audio = desk.put("1.wav", content)
    with gate_to_storage(desk) as gate, closing(Attempt(desk, audio)) as attempt:
        kill_at(attempt, gate.add(Deed.HOLD, request_))
    expect_nothing(desk)
    expect_whole(desk, audio, content)


def test_killed_when_the_copy_is_there_and_not_yet_sent(desk: Desk) -> None:
    """The next try takes this copy."""
    audio = desk.put("1.wav", SHORT)
    with gate_to_storage(desk) as gate, closing(Attempt(desk, audio)) as attempt:
        written = gate.add(Deed.HOLD, f"PUT [^ ]*{COPY}")
        attempt.wait_until(written.struck.is_set)
        looked_at = gate.add(Deed.HOLD, f"HEAD [^ ]*{COPY}")
        written.let_go()
        kill_at(attempt, looked_at)
    assert not billed(desk)
    [key] = copies(desk)
    before = desk.emulator.s3().head_object(Bucket=desk.bucket, Key=key)
    expect_whole(desk, audio, SHORT)
    assert desk.emulator.s3().head_object(Bucket=desk.bucket, Key=key)["LastModified"] == before["LastModified"]


@pytest.mark.parametrize(
    ("name", "content", "most_bytes"),
    [("1.wav", LONG, 1_000_000), ("1.wav", SHORT, 200_000), ("1.gsm", SLOW, 1_000_000)],
    ids=["download", "LPCM", "OggOpus"],
)
def test_a_full_disk(desk: Desk, name: str, content: bytes, most_bytes: int) -> None:
    """Files can't grow beyond a size, as if the disk had no more space."""
    audio = desk.put(name, content)
    with closing(Attempt(desk, audio, most_bytes=most_bytes)) as attempt:
        log = attempt.log()
        assert attempt.process.returncode == 1
        assert "A temporary file can't be written in" in log
        assert "(File too large)" in log
        assert not list(attempt.temporary.iterdir())
    expect_nothing(desk)
    expect_whole(desk, audio, content)


def test_the_source_is_replaced_before_it_is_read(desk: Desk) -> None:
    """It fails, and the next try takes the new version."""
    audio = desk.put("1.wav", SHORT)
    with gate_to_storage(desk) as gate, closing(Attempt(desk, audio)) as attempt:
        held = gate.add(Deed.HOLD, r"GET [^ ]*/1\.wav(?s:.*)If-Match")
        attempt.wait_until(held.struck.is_set)
        desk.put("1.wav", OTHER)
        held.let_go()
        assert "replaced after it was found" in attempt.log()
    expect_nothing(desk)
    expect_whole(desk, audio, OTHER)


def test_the_source_is_replaced_while_its_copy_is_uploaded(desk: Desk) -> None:
    """The version that was found is recognised, and the new one is another recording."""
    audio = desk.put("1.wav", SHORT)
    with gate_to_storage(desk) as gate, closing(Attempt(desk, audio)) as attempt:
        held = gate.add(Deed.HOLD, f"PUT [^ ]*{COPY}")
        attempt.wait_until(held.struck.is_set)
        desk.put("1.wav", OTHER)
        held.let_go()
        assert "submitted: " in attempt.log(), attempt.log()
    expect_submitted(desk, audio, SHORT)
    submit_again(desk, audio)
    expect_submitted(desk, audio, SHORT, OTHER)
