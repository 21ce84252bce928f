"""One scene's recordings, on their way through the main job, and what has to hold at the end of it."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import psutil

from tests.faults.gate import Deed, Gate, Rule
from tests.faults.matrix import Scene
from tests.faults.row import Meeting
from tests.faults.world import ARCHIVES, LAKE, SAMPLES, World
from tests.fixtures.leash import is_running

if TYPE_CHECKING:
    from airflow_speechkit.archive.store import Archive

#: Far more than anything takes, also on a machine that is busy with something else.
PATIENCE_S = 900
LOOK_EVERY_S = 1.5

#: What the service takes for a recognition, in seconds of its own clock, sixty of which are a second of ours.
SHORT_S = 60
LONG_S = 7200
T = TypeVar("T")

#: The two commands that the message about a lost submission names.
COMMANDS = re.compile(r"`airflow-speechkit (archive adopt [^`]+)`[^`]*`airflow-speechkit (archive release [^`]+)`")

#: What is said in the recordings, so that nobody has to recognise it. Each word is a row.
SAID = {"first": "добрый день чем могу помочь", "second": "здравствуйте у меня вопрос про доставку заказа"}


class Job:
    """The recordings of a scene from the bucket to the warehouse, with gates on the way that the scene can shut.

    :param world: what it shares with others
    :param scene: whose it is
    :param meeting: where it waits for the others of its row
    :param clock: where it waits for those whose recognitions also run until the service's clock is put forward
    """

    def __init__(self, world: World, scene: Scene, meeting: Meeting, clock: Meeting) -> None:
        self.world = world
        self.airflow = world.airflow
        self.emulator = world.emulator
        self.slug = scene.slug
        self.storage = Gate(world.storage_port)
        self.warehouse = Gate(world.postgres.port)
        self._service: Gate | None = None
        self._meeting = meeting
        self._clock = clock
        self._long = False
        self._storage_conn_id = f"storage-{self.slug}"
        self._warehouse_conn_id = f"warehouse-{self.slug}"
        self._speechkit_conn_id = f"speechkit-{self.slug}"
        self._on_disk = False
        self.dag_id = ""
        self.run_id = ""

    def shut_down(self) -> None:
        """Close the gates for good, and keep nobody waiting."""
        self._leave_clock()
        for gate in (self.storage, self.warehouse, self._service):
            if gate is not None:
                gate.close()

    # Before and while it runs

    def start(
        self, way: str = "in_the_triggerer", *, long: bool = False, on_disk: bool = False, **credential: Any
    ) -> None:
        """Put the recordings into the bucket and start a run for them.

        :param way: which of the DAGs
        :param long: let the recognitions run until the service's clock is put forward
        :param on_disk: keep the archive on the local disk
        :param credential: how the connection proves who it is, where it isn't by the API key
        """
        if long:
            self._clock.join()
            self._long = True
        for name, text in SAID.items():
            utterance = {"text": text, "start_ms": 0, "end_ms": 3000}
            said = {"channels": [{"utterances": [utterance]}], "processing_s": LONG_S if long else SHORT_S}
            with self.world.lock:
                self.emulator.put(self.key(name), (SAMPLES / "message.ogg").read_bytes(), said)
        self.world.add_storage(self._storage_conn_id, self.storage.url)
        self.world.add_warehouse(self._warehouse_conn_id, self.warehouse.port)
        url = self._service.url if self._service is not None else self.emulator.url
        self.world.add_speechkit(self._speechkit_conn_id, self._storage_conn_id, url, **credential)
        self._on_disk = on_disk
        self.dag_id = f"recordings_to_rows_{way}"
        conf = {
            "audio": [f"s3://{self.emulator.bucket}/{self.key(name)}" for name in SAID],
            "speechkit": self._speechkit_conn_id,
            "archive": self._disk.as_uri() if on_disk else f"s3://{ARCHIVES}/{self.slug}",
            "target": f"s3://{LAKE}/{self.slug}",
            "warehouse": self._warehouse_conn_id,
        }
        self.run_id = self.airflow.trigger(self.dag_id, conf)

    def key(self, name: str) -> str:
        """A recording's key in the bucket."""
        return f"{self.slug}/{name}.ogg"

    def meet(self, deed: Callable[[], None] = lambda: None) -> None:
        """Wait for the other scenes of the row; one does the deed, then all go on."""
        self._meeting.meet(deed)

    def until(self, what: str, look: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
        """Look until there is something to see, and return it.

        :raises TimeoutError: with the tasks' states and the last log
        """
        deadline = time.monotonic() + within_s
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.slug}: waited {within_s} s for {what}; {self._story()}")
            self._meeting.pause(LOOK_EVERY_S)
        return seen

    def until_task(self, task_id: str, *states: str, within_s: float = PATIENCE_S) -> str:
        """Wait until the task is in one of the states, and return it."""

        def state() -> str | None:
            found = self._task(task_id)["state"]
            assert found in states or found != "failed", f"{self.slug}: {task_id} failed; {self._story()}"
            return found if found in states else None

        return str(self.until(f"{task_id} to be {' or '.join(states)}", state, within_s=within_s))

    def until_waiting(self) -> list[str]:
        """Wait until the service works on all recordings and the sensor is deferred; return the operation ids."""
        self.until_task("wait", "deferred")
        return [line["operation_id"] for line in self.billed()]

    def until_tried(self, task_id: str, times: int) -> None:
        """Wait until the task is at that try."""
        self.until(f"try {times} of {task_id}", lambda: int(self._task(task_id)["try_number"]) >= times)

    def until_fired(self, *numbers: int, times: int = 1) -> None:
        """Wait until each of the planned faults has struck so often."""

        def all_fired() -> bool:
            fired = {one["id"]: one["fired"] for one in self.emulator.faults()}
            return all(fired[number] >= times for number in numbers)

        self.until(f"faults to strike {times} times", all_fired)

    def until_log(self, task_id: str, text: str) -> None:
        """Wait until one of the task's tries has logged the text."""
        self.until(f"{text!r} in the log of {task_id}", lambda: text in self.log(task_id))

    def until_success(self) -> None:
        """Wait until the run has succeeded, asking Airflow alone."""
        self.until("the run to end", lambda: self._run_state() in ("success", "failed"))
        assert self._run_state() == "success", f"{self.slug}: the run failed"

    def until_archived(self) -> None:
        """Wait until every operation has its answer in the archive."""
        ids = [line["operation_id"] for line in self.billed()]
        archive = self.archive
        self.until("answers to be archived", lambda: all(archive.outcome(one) for one in ids))

    def until_asked_for(self) -> None:
        """Wait until the service has said of each of the operations how it is."""
        ids = {line["operation_id"] for line in self.billed()}
        self.until("the service to be asked", lambda: ids <= self._answered("200"))

    def until_token_refused(self) -> None:
        """Wait until the service has refused a check for its token. Triggers with the same key share one."""

        def refused() -> bool:
            planned = {one["match"] for one in self.emulator.faults() if one["on"] == "operation"}
            checked = {line["operation_id"] for line in self.emulator.billing()} - planned
            return bool(checked & self._answered("401"))

        self.until("a check to be answered 401", refused)

    def hold_submits(self, name: str = "", *, times: int = 1) -> Rule:
        """Hold requests to submit this recording, or any, on their way to the service. Call it before `start`.

        The client gives up after a minute. Whoever kills it by then or later: the request is lost either way.
        """
        self._service = Gate(urlsplit(self.emulator.url).port or 80)
        return self._service.add(Deed.HOLD, re.escape(self.key(name) if name else f"{self.slug}/"), times=times)

    def fault_on_submits(self, kind: str | int, **more: Any) -> int:
        """Plan a fault for requests that submit one of the recordings."""
        return self.emulator.fault(kind, **{"on": "submit", "match": f"{self.slug}/", **more})

    def fault_on_each(self, point: str, kind: str | int, **more: Any) -> list[int]:
        """Plan a fault for the requests about each of the operations."""
        return [self.emulator.fault(kind, on=point, match=line["operation_id"], **more) for line in self.billed()]

    def let_service_finish(self) -> None:
        """Put the service's clock forward past the end of all recognitions, once all of the row want that."""
        self._clock.meet(lambda: self.emulator.advance(LONG_S))
        self._leave_clock()

    def _leave_clock(self) -> None:
        if self._long:
            self._long = False
            self._clock.leave()

    def worker(self, task_id: str) -> list[psutil.Process]:
        """The processes that run the task: the executor's worker, which supervises, then the task's own."""
        task = psutil.Process(int(self._task(task_id)["pid"]))
        worker = task.parent()
        assert worker is not None, f"{self.slug}: {task} has no parent"
        assert "LocalExecutor" in " ".join(worker.cmdline()), f"{worker.cmdline()} is no worker"
        return [worker, task]

    def kill_worker(self, task_id: str) -> None:
        """End the task's worker and the task by SIGKILL, and wait until both are gone."""
        processes = self.worker(task_id)
        for process in processes:
            process.kill()
        # A dead one may stay as a zombie for as long as its parent lives.
        self.until("the worker to be dead", lambda: not any(is_running(one) for one in processes))

    # What is there

    def billed(self) -> list[dict[str, Any]]:
        """The lines of the emulator's billing record that are about these recordings."""
        return [line for line in self.emulator.billing() if f"/{self.slug}/" in (line["recording"] or "")]

    @property
    def archive(self) -> Archive:
        """The archive, past the gates."""
        from airflow_speechkit.archive.store import Archive

        return Archive.at(self._disk) if self._on_disk else self.world.archive_in_bucket(self.slug)

    def log(self, task_id: str) -> str:
        """What all tries of the task have logged."""
        tries = range(1, int(self._task(task_id)["try_number"]) + 1)
        return "".join(self.airflow.task_log(self.dag_id, self.run_id, task_id, attempt=number) for number in tries)

    def lost(self) -> list[str]:
        """The fingerprints of submissions of which the archive says that they are lost."""
        from airflow_speechkit.archive.inspection import Problem, verify

        findings = verify(self.archive, datetime.now(UTC)).findings
        assert {one.problem for one in findings} <= {Problem.LOST}, findings
        return [one.about for one in findings]

    def outlive_leases(self) -> None:
        """Make the claims without an operation as old as their leases, in place of waiting for ten minutes."""
        folder = self.archive.folder
        for name in folder.names("ledger"):
            if name.endswith(".claim.json"):
                claim = json.loads(folder.read(name))
                claim["lease_expires_at"] = claim["claimed_at"]
                folder.replace(name, json.dumps(claim).encode())

    # How it ends

    def expect_whole(self, *, paid: int = 1, within_s: float = PATIENCE_S) -> None:
        """Wait for the run's end, and see that nothing was lost, doubled or paid for more often than it has to be.

        :param paid: finished operations that each recording may have: more than one only where the user said so
        """
        self.until("the run to end", lambda: self._run_state() in ("success", "failed"), within_s=within_s)
        assert self._run_state() == "success", f"{self.slug}: the run failed; {self._story()}"
        billed = self.billed()
        by_recording = {name: [line for line in billed if line["recording"].endswith(self.key(name))] for name in SAID}
        assert {name: len(lines) for name, lines in by_recording.items()} == dict.fromkeys(SAID, paid), billed
        assert {line["state"] for line in billed} == {"done"}, billed
        assert self.lost() == []
        for name, lines in by_recording.items():
            self._expect_rows(name, {line["operation_id"] for line in lines})

    def _expect_rows(self, name: str, operation_ids: set[str]) -> None:
        query = self.world.query
        uri = f"s3://{self.emulator.bucket}/{self.key(name)}"
        found = query("SELECT operation_id, status, words FROM recognitions WHERE audio_uri = %s", uri)
        assert [(status, words) for _, status, words in found] == [("finished", len(SAID[name].split()))], found
        operation_id = found[0][0]
        assert operation_id in operation_ids
        utterances = query("SELECT words FROM utterances WHERE operation_id = %s", operation_id)
        assert utterances == [(len(SAID[name].split()),)], utterances
        words = query("SELECT word FROM words WHERE operation_id = %s ORDER BY word_index", operation_id)
        assert [word for (word,) in words] == SAID[name].split(), words
        others = operation_ids - {operation_id}
        assert not query("SELECT 1 FROM utterances WHERE operation_id = ANY(%s)", list(others))
        self._expect_archived(operation_id)

    def _expect_archived(self, operation_id: str) -> None:
        answer = self.archive.answer(operation_id)
        assert answer is not None, f"{operation_id} is not archived"
        assert answer.operation == self._ask(f"/operations/{operation_id}")
        if answer.recognition is not None:
            assert answer.recognition == self._ask(f"/stt/v3/getRecognition?operationId={operation_id}")

    def expect_lost(self, *, accepted: int) -> list[tuple[str, str]]:
        """Wait until the submit has failed for good, and see that it says what to do and sent nothing again.

        :param accepted: how many operations the service has of these recordings
        :return: the commands that it names for each lost recording: to adopt, and to release
        """
        self.until("the run to end", lambda: self._run_state() == "failed")
        assert self._task("submit")["state"] == "failed", self._story()
        assert len(self.billed()) == accepted
        log = self.log("submit")
        assert "the operation's id never came back" in log
        commands = dict.fromkeys(COMMANDS.findall(log))
        assert {adopt.split()[2] for adopt, _ in commands} == set(self.lost()), log[-3000:]
        return list(commands)

    def adopt(self, commands: list[tuple[str, str]]) -> None:
        """Put the operations of lost submissions on record, as the messages say, and run the task again."""
        for adopt, _ in commands:
            recording = self._recording_of(adopt.split()[2])
            (operation_id,) = [
                line["operation_id"]
                for line in self.billed()
                if recording.endswith(line["recording"].partition(self.slug)[2])
            ]
            self._run_command(adopt, operation_id)
        self._run_again()

    def release(self, commands: list[tuple[str, str]]) -> None:
        """Say of lost submissions that they were not taken, as the messages say, and run the task again."""
        for _, release in commands:
            self._run_command(release)
        self._run_again()

    def _run_command(self, command: str, operation_id: str = "") -> None:
        """Run a command that a message named, with the operation id put in."""
        archive = f"s3://{ARCHIVES}/{self.slug}"
        words = command.replace("OPERATION_ID", operation_id).split()
        place = words.index("--archive") + 1
        assert words[place] == f"s3://{self._storage_conn_id}@{ARCHIVES}/{self.slug}"
        words[place] = archive
        self.world.command(*words)

    def _recording_of(self, fingerprint: str) -> str:
        """Which recording a lost submission was about."""
        claim = self.archive.planned(fingerprint, 1)
        assert claim is not None
        return claim.planned.audio_uri

    def _run_again(self) -> None:
        """Clear the failed task and what comes after it."""
        self.airflow.clear(self.dag_id, self.run_id, "submit", "wait", "rows", "load")

    # Inside

    @property
    def _disk(self) -> Path:
        return self.world.disk / self.slug

    def _task(self, task_id: str) -> dict[str, Any]:
        path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{task_id}"
        return dict(self.airflow.call("GET", path))

    def _run_state(self) -> str:
        return self.airflow.run_state(self.dag_id, self.run_id)

    def _ask(self, path: str) -> bytes:
        request = urllib.request.Request(
            self.emulator.url + path, headers={"Authorization": f"Api-Key {self.emulator.api_key}"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE_S) as answer:
            return bytes(answer.read())

    def _answered(self, outcome: str) -> set[str]:
        log = self.emulator.request_log()
        return {one["path"].rpartition("/")[2] for one in log if one["outcome"] == outcome}

    def _story(self) -> str:
        states = {task_id: state for (task_id, _), state in self.airflow.task_states(self.dag_id, self.run_id).items()}
        logs = {task_id: self.log(task_id)[-1800:] for task_id in states if states[task_id] != "success"}
        return f"tasks: {states}; billed: {len(self.billed())}\n" + "\n".join(f"--- {k}\n{v}" for k, v in logs.items())
