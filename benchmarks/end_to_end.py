"""A thousand short recordings from the bucket to rows in DuckDB, with an accelerated clock.

    python benchmarks/end_to_end.py [--recordings 1000] [--speed 12] [--json FILE]

`SpeechKitRecognizeOperator(deferrable=True)`, its triggers, `SpeechKitTransformOperator` and `SpeechKitToSqlOperator`
run one after the other against the emulator, with the values that Airflow would pass between them. The service
accepts 500 submits and 2,500 checks an hour, and takes 10 s for a minute of audio. An hour is 3,600 s / speed long,
for the emulator and for the provider: the provider's constants for an hour of the quotas and for the service's speed
are divided by the speed.

For comparison, the same run with a service that is done at once takes as long as the submit quota alone. Both run in
parallel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SUBMITS_PER_HOUR, CHECKS_PER_HOUR = 500, 2500
#: 36 ms of silence: MPEG-2 layer III, 8 kbit/s, 16 kHz, one channel.
MP3_FRAME, MP3_FRAME_S = b"\xff\xf3\x18\xc4" + bytes(32), 0.036


class TaskInstance:
    """The attributes of a task instance that the operators read."""

    dag_id, task_id, run_id, map_index, try_number = "calls", "recognize", "tonight", -1, 1


def speed_up(speed: float) -> None:
    """Shorten the provider's hour."""
    from airflow_speechkit.archive import submit_queue
    from airflow_speechkit.polling import rate_limit, schedule
    from airflow_speechkit.settings import ApiVersion

    submit_queue._HOUR = timedelta(hours=1) / speed
    quota, window_s = rate_limit.QUOTAS[ApiVersion.V2]
    rate_limit.QUOTAS[ApiVersion.V2] = quota, window_s / speed
    rate_limit._MARGIN_S[ApiVersion.V2] /= speed
    schedule.DOCUMENTED_SPEED /= speed
    schedule.QUEUE_S /= speed


def recognized(audio: str) -> list[str]:
    """Run the operator and its triggers until it returns the ids."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator

    async def event_of(trigger: Any) -> Any:
        async for event in trigger.run():
            return event.payload

    def operator() -> SpeechKitRecognizeOperator:
        return SpeechKitRecognizeOperator(task_id="recognize", audio=audio, deferrable=True)

    context: Any = {"ti": TaskInstance()}
    try:
        return operator().execute(context)
    except TaskDeferred as one:
        deferred = one
    while True:
        if hasattr(deferred.trigger, "moment"):
            time.sleep(max(deferred.trigger.moment.timestamp() - time.time(), 0.0))
            event = None
        else:
            event = asyncio.run(event_of(deferred.trigger))
        try:
            return operator().execute_complete(context, event, **(deferred.kwargs or {}))
        except TaskDeferred as one:
            deferred = one


def one_run(speed: float, recordings: int, *, instant: bool) -> dict[str, Any]:
    from airflow_speechkit.operators.transform import SpeechKitTransformOperator
    from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.emulator import airflow_connections

    speed_up(speed)
    quotas = ("--submits-per-hour", str(SUBMITS_PER_HOUR), "--v2-checks-per-hour", str(CHECKS_PER_HOUR))
    with (
        tempfile.TemporaryDirectory(prefix="speechkit-end-to-end-") as folder,
        EmulatorProcess(*quotas, speed=speed) as emulator,
    ):
        os.environ |= airflow_connections(emulator, Path(folder) / "archive")
        os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps({"conn_type": "duckdb", "host": f"{folder}/rows.duckdb"})
        transcript: dict[str, Any] = {"channels": [{"utterances": [{"text": "two words"}]}]}
        emulator.seed(transcript | ({"processing_s": 0} if instant else {}), glob="calls/*.mp3")
        chance = random.Random(1)
        for number in range(recordings):
            emulator.put(f"calls/{number:04}.mp3", MP3_FRAME * round(chance.uniform(15.0, 60.0) / MP3_FRAME_S))
        emulator.clear_requests()
        began = time.time()
        ids = recognized(f"s3://{emulator.bucket}/calls/")
        recognized_s = time.time() - began
        context: Any = {"ti": TaskInstance()}
        rows = SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=f"{folder}/rows").execute(context)
        SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=rows).execute(context)
        took_s = time.time() - began
        log = emulator.request_log()

        import duckdb

        with duckdb.connect(f"{folder}/rows.duckdb") as warehouse:
            found = [
                warehouse.execute(f"SELECT count(DISTINCT operation_id) FROM {table}").fetchone()[0]
                for table in ("recognitions", "utterances")
            ]
        submits = [one["wall_s"] for one in log if one["kind"] == "submit" and str(one["outcome"]) == "200"]
        return {
            "service": "done at once" if instant else "10 s a minute",
            "recordings": recordings,
            "in_recognitions": found[0],
            "in_utterances": found[1],
            "last_submit_s": round(max(submits) - began, 1),
            "recognized_s": round(recognized_s, 1),
            "all_rows_s": round(took_s, 1),
            "checks": sum(one["kind"] == "operation" for one in log),
            "responses_429": sum(str(one["outcome"]) == "429" for one in log),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description="A thousand short recordings from the bucket to rows in DuckDB.")
    parser.add_argument("--recordings", type=int, default=1000)
    parser.add_argument("--speed", type=float, default=12.0, help="speed of the clock (default: 12)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--run", choices=["instant", "real"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if arguments.run:
        print(json.dumps(one_run(arguments.speed, arguments.recordings, instant=arguments.run == "instant")))
        return 0
    common = [sys.executable, __file__, f"--recordings={arguments.recordings}", f"--speed={arguments.speed}"]
    runs = [subprocess.Popen([*common, "--run", name], stdout=subprocess.PIPE) for name in ("instant", "real")]
    instant, real = (json.loads(run.communicate()[0].splitlines()[-1]) for run in runs)
    figures = {"speed": arguments.speed, "runs": [instant, real]}
    figures["times_the_submit_quota_alone"] = round(real["all_rows_s"] / instant["all_rows_s"], 3)
    print(json.dumps(figures, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
