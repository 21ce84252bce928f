"""Time and requests of the ledger's decisions about many recordings, with an archive in a bucket.

    python benchmarks/archive.py [RECORDINGS]

The bucket is a real S3 server on loopback (moto, one process, one core).
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import boto3
import s3fs

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit import Submitter
from airflow_speechkit.archive.submit_rules import Origin, SubmitPolicy
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.models import Answer, Recording
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from airflow_speechkit.storage import Folder

SETTINGS = RecognitionSettings()


class Service:
    """Accepts everything at once."""

    def submit(self, audio_uri: str, settings: RecognitionSettings) -> Operation:
        return self.get_operation(f"e03{audio_uri}")

    def submit_inline(self, content: bytes, settings: RecognitionSettings) -> Operation:
        raise NotImplementedError

    def get_operation(self, operation_id: str) -> Operation:
        now = datetime.now(UTC)
        return Operation(
            id=operation_id,
            state=OperationState.RUNNING,
            api_version=SETTINGS.api_version,
            created_at=now,
            modified_at=now,
            error_code=None,
            error_message=None,
            raw=b"{}",
        )


class Source:
    """Recordings of which everything is known."""

    def probe(self, recording: Recording) -> Recording:
        return recording

    def check_unchanged(self, recording: Recording) -> bytes | None:
        return None


def main(recordings: int) -> None:
    logging.getLogger("airflow_speechkit").setLevel(logging.ERROR)
    server = subprocess.Popen(
        [sys.executable, "-m", "speechkit_emulator.storage_server", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
    try:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="lake")
        fs: Any = s3fs.S3FileSystem(
            key="test", secret="test", endpoint_url=endpoint, config_kwargs={"max_pool_connections": 32}
        )
        requests: Counter[str] = Counter()
        call = fs._call_s3

        async def counted(method: str, *args: Any, **kwargs: Any) -> Any:
            requests[method] += 1
            return await call(method, *args, **kwargs)

        fs._call_s3 = counted
        archive = Archive(Folder(fs, "lake/archive", "s3://lake/archive", ArchiveError))
        archive.probe(datetime.now(UTC))
        items = [
            Recording(audio_uri=f"s3://calls/{n}.ogg", version=f"{n}", settings=SETTINGS, link=f"{n:08}")
            for n in range(recordings)
        ]
        print(f"{'':24}{'seconds':>9}{'each, ms':>10}{'requests each':>15}")
        for what in ("submitted", "in flight", "answered", "answered, 1 by 1"):
            if what == "answered":
                for one in items:
                    archive.keep(Answer(f"e03{one.link}", ApiVersion.V2, b"{}"), now=datetime.now(UTC))
            policy = SubmitPolicy(submits_per_hour=10**6, concurrency=1 if "1 by 1" in what else 16)
            run = Submitter(archive, Source(), Service(), Origin(dag_id="d", run_id=what, task_id="t"), policy)
            requests.clear()
            began = time.perf_counter()
            run.submit(items if "1 by 1" not in what else items[: recordings // 10])
            took = time.perf_counter() - began
            count = recordings if "1 by 1" not in what else recordings // 10
            print(f"{what:24}{took:9.1f}{1000 * took / count:10.1f}{requests.total() / count:15.1f}", flush=True)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
