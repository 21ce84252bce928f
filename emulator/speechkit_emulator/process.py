"""An emulator in a child process, for tests, the demo and benchmarks."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from speechkit_emulator.children import child_environment
from speechkit_emulator.connections import PATH as CONNECTIONS
from speechkit_emulator.connections import ConnectionForm
from speechkit_emulator.storage import StorageServer, s3_client

if TYPE_CHECKING:
    from types import TracebackType


class EmulatorProcess:
    """Starts ``speechkit-emulator`` and calls its control endpoints.

    The bucket's server is a child of this process, not of the emulator: it keeps running when the emulator is killed.

    :param arguments: more command-line arguments, like ``"--submits-per-hour", "5"``, or ``"--samples"``
    :param speed: service seconds per second
    :param port: 0 = any free port; kept when the emulator is restarted
    :param state: directory of its state; None = a temporary directory
    :param storage_url: a running S3 server; None = start one
    :param bucket: name of the bucket; created if missing
    :param recognisers: number of recogniser processes
    :param warm: load the recognisers' models at the start
    """

    def __init__(
        self,
        *arguments: str,
        speed: float = 60.0,
        port: int = 0,
        state: Path | None = None,
        storage_url: str | None = None,
        bucket: str = "recordings",
        recognisers: int = 1,
        warm: bool = False,
    ) -> None:
        self._arguments = [
            f"--speed={speed:g}",
            f"--bucket={bucket}",
            f"--recognisers={recognisers}",
            "--warm" if warm else "--no-warm",
            "--no-samples",
            *arguments,
        ]
        self._port = port
        self._state = state
        self._storage_url = storage_url
        self._process: subprocess.Popen[bytes] | None = None
        self._kept = contextlib.ExitStack()
        self._s3: Any = None
        self.url = self.storage_url = self.api_key = self.access_key_id = self.secret_access_key = ""
        self.bucket = bucket

    def __enter__(self) -> EmulatorProcess:
        try:
            if self._state is None:
                self._state = Path(self._kept.enter_context(tempfile.TemporaryDirectory(prefix="speechkit-emulator-")))
            if self._storage_url is None:
                self._storage_url = self._kept.enter_context(StorageServer()).url
            self.start()
        except BaseException:
            # SIGKILL: after SIGTERM it would first run on without the state and the bucket that are being removed.
            self._end(signal.SIGKILL)
            self._kept.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self._kept.close()

    @property
    def pid(self) -> int | None:
        """Process id; None while the emulator is not running."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the emulator and wait until it is ready. A later start keeps the port and the state."""
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [
                *(sys.executable, "-m", "speechkit_emulator", "--exit-with-stdin"),
                *(f"--port={self._port}", f"--state={self._state}", f"--storage-url={self._storage_url}"),
                *self._arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # After a kill -9, multiprocessing's resource tracker would print warnings while it cleans up.
            env={**child_environment(), "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning"},
            # Ctrl-C reaches the whole process group of a terminal; this child stops when its parent stops it.
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None  # noqa: S101
        line = process.stdout.readline()
        if not line:
            self._end(signal.SIGKILL)
            raise RuntimeError("The emulator did not start. Its error is on standard error, above")
        ready = json.loads(line)
        self.url, self.storage_url, self.bucket = ready["speechkit"], ready["storage"], ready["bucket"]
        self.api_key = ready["api_key"]
        self.access_key_id, self.secret_access_key = ready["access_key_id"], ready["secret_access_key"]
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> int | None:
        """Stop it with SIGTERM; return its exit code, None if it was not running."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int | None:
        """Stop it with SIGKILL; return its exit code, None if it was not running."""
        return self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it, and start it again with the same port and state."""
        self.kill()
        self.start()

    def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            code = process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        return code

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Call a control endpoint.

        :raises RuntimeError: with the emulator's error if it refuses
        """
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode()
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def billing(self) -> list[dict[str, Any]]:
        """Every accepted recognition, oldest first."""
        recognitions: list[dict[str, Any]] = self.ask("GET", "/emulator/billing")["recognitions"]
        return recognitions

    def fault(self, kind: str | int, **more: Any) -> int:
        """Plan a fault (docs/emulator.md lists the kinds); return its id."""
        return int(self.ask("POST", "/emulator/faults", {"kind": str(kind), **more})["id"])

    def faults(self) -> list[dict[str, Any]]:
        """The planned faults, with the counts ``seen`` and ``fired``."""
        planned: list[dict[str, Any]] = self.ask("GET", "/emulator/faults")["faults"]
        return planned

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.ask("DELETE", "/emulator/faults")

    def requests(self) -> dict[str, dict[str, int]]:
        """Requests so far: kind -> HTTP status (or "dropped", "cut") -> count."""
        counts: dict[str, dict[str, int]] = self.ask("GET", "/emulator/requests")["counts"]
        return counts

    def request_log(self) -> list[dict[str, Any]]:
        """Requests one by one: kind, outcome, path, wall_s, at."""
        entries: list[dict[str, Any]] = self.ask("GET", "/emulator/requests?log=true")["log"]
        return entries

    def clear_requests(self) -> None:
        """Reset the counts of requests."""
        self.ask("DELETE", "/emulator/requests")

    def clock(self) -> dict[str, Any]:
        """The service's time: ``now``, ``now_s``, ``speed``."""
        time: dict[str, Any] = self.ask("GET", "/emulator/clock")
        return time

    def advance(self, seconds: float) -> None:
        """Advance the service's clock by service seconds."""
        self.ask("POST", "/emulator/clock", {"advance_s": seconds})

    def credentials(self) -> dict[str, Any]:
        """All credentials: authorized_key, api_key_without_role, folder_id, service_account_id and the rest."""
        known: dict[str, Any] = self.ask("GET", "/emulator/credentials")
        return known

    def airflow_connections(self) -> dict[str, dict[str, Any]]:
        """Airflow connections to it, by their ids: speechkit_default, aws_default, warehouse."""
        found: dict[str, dict[str, Any]] = self.ask("GET", f"{CONNECTIONS}?form={ConnectionForm.JSON}")
        return found

    def revoke_tokens(self) -> None:
        """Revoke all IAM tokens."""
        self.ask("DELETE", "/emulator/tokens")

    def stand_ins(self, count: int = 1, **more: Any) -> list[str]:
        """Register operations without submitting recordings; return their ids.

        :param more: api, processing_s, spread_s, result_bytes, duration_ms, channels, error
        """
        ids: list[str] = self.ask("POST", "/emulator/operations", {"count": count, **more})["operation_ids"]
        return ids

    def seed(
        self, transcript: Any, *, key: str | None = None, glob: str | None = None, sha256: str | None = None
    ) -> int:
        """Seed a transcript for a key, a glob of keys, a content's hash, or (without any of them) the next submit.

        :return: its id
        """
        given = {"key": key, "glob": glob, "sha256": sha256}
        named = {name: value for name, value in given.items() if value is not None}
        return int(self.ask("POST", "/emulator/transcripts", {"transcript": transcript, **named})["id"])

    def seeds(self) -> list[dict[str, Any]]:
        """The seeded transcripts, with the count ``used``."""
        seeded: list[dict[str, Any]] = self.ask("GET", "/emulator/transcripts")["transcripts"]
        return seeded

    def clear_seeds(self) -> None:
        """Remove all seeded transcripts."""
        self.ask("DELETE", "/emulator/transcripts")

    def put(self, key: str, content: bytes, transcript: Any = None) -> str:
        """Put a recording and its transcript into the bucket; return the recording's https link."""
        if transcript is not None:
            self.put(key + ".transcript.json", json.dumps(transcript).encode())
        self.s3().put_object(Bucket=self.bucket, Key=key, Body=content)
        return f"https://storage.yandexcloud.net/{self.bucket}/{quote(key)}"

    def s3(self) -> Any:
        """A boto3 client for the bucket's server; closed with the emulator."""
        if self._s3 is None:
            self._s3 = s3_client(self.storage_url, self.access_key_id, self.secret_access_key)
            self._kept.callback(self._s3.close)
        return self._s3
