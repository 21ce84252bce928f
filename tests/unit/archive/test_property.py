"""Any sequence of submits, crashes, retries, clears, reruns and overlapping runs, against what the service was paid."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.archive.batch import How
from airflow_speechkit.archive.forgetting import forget
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.settings import RecognitionSettings
from tests.unit.archive.world import (
    T0,
    Clock,
    Killed,
    Life,
    MortalFolder,
    Service,
    answer,
    failure,
    item,
    mortal,
    origin,
    submitter,
)

NAMES = ("a", "b")
RUNS = ("run-1", "run-2")
HOPELESS, MENDABLE = 3, 13
#: The service keeps an operation this long after it was created; a little longer than it promises.
KEPT = timedelta(days=3, hours=12)


class Meanwhile(Life):
    """A process that is held up at one moment, while another one does all its work."""

    def __init__(self, moment: int, other: Any) -> None:
        super().__init__()
        self.moment = moment
        self.other = other

    def before(self) -> None:
        if self.used == self.moment:
            self.used += 1
            self.other()

    def after(self) -> None:
        self.used += 1


class Payments(RuleBasedStateMachine):
    """The model is the service's own books: what each operation came to, and who may have to pay once more."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.clock = Clock()
        self.service = Service(self.clock)
        self.archive = Archive.at(self.path)
        #: What became of each operation: "running", "finished", "failed 3", "gone", "forgotten".
        self.status: dict[str, str] = {}
        self.scope: dict[str, str | None] = {}
        #: Recordings of which a process was killed, or held up for longer than its lease: a claim may be left over.
        self.claim_left: set[str] = set()
        #: What another process paid while this one was held up.
        self.paid_meanwhile: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        self.archive.probe(T0)

    def teardown(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    # What the books say

    def on_record(self, operation_id: str) -> bool:
        return any(operation_id in file.read_text() for file in self.path.glob("ledger/*/*.operation.json"))

    def has_something_of_value(self, operation_id: str) -> bool:
        match self.status[operation_id]:
            case "finished" | "failed 3":
                return True
            case "running":
                return self.still_there(operation_id)
            case _:
                return False

    def still_there(self, operation_id: str) -> bool:
        return self.clock.now() - self.service.created_at[operation_id] < KEPT

    def may_pay(self, name: str, run: str, *, reuse: bool, resubmit: bool) -> bool:
        """Whether one more payment for this recording can be defended."""
        for operation_id in self.of(name):
            if not reuse and self.scope[operation_id] != origin(run).scope:
                continue
            if self.on_record(operation_id):
                if self.has_something_of_value(operation_id) and self.status[operation_id] != "failed 3":
                    return False
            elif self.status[operation_id] == "running" and not resubmit:
                return False
        return True

    def of(self, name: str) -> list[str]:
        return [one for one, link in self.service.operations.items() if link == name]

    # What happens

    def process(self, archive: Archive, run: str, names: list[str], **policy: Any) -> list[Any]:
        before = dict(self.service.accepted)
        defended = {
            name: self.may_pay(name, run, reuse=policy["reuse"], resubmit=policy["on_lost_submission"] == "resubmit")
            for name in names
        }

        def send(link: str, asked: RecognitionSettings) -> Operation:
            operation = self.service.send(link, asked)
            self.status[operation.id] = "running"
            self.scope[operation.id] = origin(run).scope
            return operation

        try:
            return submitter(archive, self.service, run=run, send=send, ask=self.still_there, **policy).submit(
                [item(name) for name in names]
            )
        finally:
            for name in names:
                paid = self.service.accepted[name] - before.get(name, 0) - self.paid_meanwhile.get(name, 0)
                assert paid <= defended[name], f"{name} was paid for {paid} times"

    @rule(
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
        run=st.sampled_from(RUNS),
        reuse=st.booleans(),
        lost=st.sampled_from(["fail", "resubmit"]),
    )
    def submit(self, names: list[str], run: str, reuse: bool, lost: str) -> None:
        """A run, its retry, a cleared task, a backfill: all the same to the archive."""
        untouched = [
            name
            for name in names
            if name not in self.claim_left and all(self.status[one] != "failed 3" for one in self.of(name))
        ]
        outcomes = self.process(self.archive, run, names, reuse=reuse, on_lost_submission=lost)
        for outcome in outcomes:
            name = outcome.item.link
            if outcome.how in (How.SUBMITTED, How.JOINED, How.REUSED):
                assert self.service.operations[outcome.operation_id] == name
                assert outcome.how is not How.REUSED or self.status[outcome.operation_id] == "finished"
                submission = self.archive.submission(outcome.operation_id)
                assert submission is not None
                assert submission.audio_uri == outcome.item.audio_uri
            elif outcome.how is How.LOST:
                assert name in self.claim_left
                assert lost == "fail"
            assert outcome.how in (How.SUBMITTED, How.JOINED, How.REUSED) or name not in untouched

    @rule(
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
        run=st.sampled_from(RUNS),
        reuse=st.booleans(),
        lost=st.sampled_from(["fail", "resubmit"]),
        step=st.integers(0, 14),
        dies_after=st.booleans(),
    )
    def crash(self, names: list[str], run: str, reuse: bool, lost: str, step: int, dies_after: bool) -> None:
        self.claim_left |= set(names)
        with suppress(Killed):
            self.process(
                mortal(self.path, Life(step, dies_after=dies_after)), run, names, reuse=reuse, on_lost_submission=lost
            )

    @rule(
        name=st.sampled_from(NAMES),
        runs=st.permutations(RUNS),
        step=st.integers(0, 9),
        same_run=st.booleans(),
        lost=st.sampled_from(["fail", "resubmit"]),
    )
    def two_at_once(self, name: str, runs: list[str], step: int, same_run: bool, lost: str) -> None:
        """One process is held up at some moment while another one does the same from beginning to end."""
        self.claim_left.add(name)
        before = self.service.accepted[name]
        allowed = self.may_pay(name, runs[0], reuse=True, resubmit=False)
        policy = {"reuse": True, "on_lost_submission": lost}

        def other() -> None:
            count = self.service.accepted[name]
            self.process(self.archive, runs[0] if same_run else runs[1], [name], **policy)
            self.paid_meanwhile = {name: self.service.accepted[name] - count}

        folder = self.archive.folder
        held_up = Archive(MortalFolder(folder.fs, folder.root, folder.url, folder.fault, Meanwhile(step, other)))
        self.process(held_up, runs[0], [name], **policy)
        self.paid_meanwhile = {}
        if lost == "fail":
            assert self.service.accepted[name] - before <= allowed

    @rule(data=st.data(), failed=st.sampled_from([None, HOPELESS, MENDABLE]), step=st.none() | st.integers(0, 7))
    def end(self, data: st.DataObject, failed: int | None, step: int | None) -> None:
        """The service is done with an operation, and its answer is archived, sometimes at the second go."""
        running = [one for one in self.status if self.status[one] == "running" and self.on_record(one)]
        running = [one for one in running if self.still_there(one)]
        assume(running)
        operation_id = data.draw(st.sampled_from(running))
        why = None if failed is None else failure(failed)
        if step is not None:
            with suppress(Killed):
                mortal(self.path, Life(step)).keep(answer(operation_id), why, now=self.clock.now())
        self.archive.keep(answer(operation_id), why, now=self.clock.now())
        self.status[operation_id] = "finished" if failed is None else f"failed {failed}"

    @rule(data=st.data())
    def ask_for_one_that_is_gone(self, data: st.DataObject) -> None:
        """A sensor gets a 404. With the wrong connection it gets one for a young operation too."""
        running = [one for one in self.status if self.status[one] == "running" and self.on_record(one)]
        assume(running)
        operation_id = data.draw(st.sampled_from(running))
        old = self.clock.now() - self.service.created_at[operation_id] >= timedelta(days=3)
        assume(not old or not self.still_there(operation_id))
        assert self.archive.expire(operation_id, self.clock.now()) is old
        if old:
            self.status[operation_id] = "gone"

    @rule(data=st.data(), step=st.none() | st.integers(0, 7))
    def forget_one(self, data: st.DataObject, step: int | None) -> None:
        ended = [one for one in self.status if self.status[one] in ("finished", "failed 3", "failed 13")]
        assume(ended)
        operation_id = data.draw(st.sampled_from(ended))
        if step is not None:
            with suppress(Killed):
                forget(mortal(self.path, Life(step)), operation_id, now=self.clock.now())
        forget(self.archive, operation_id, now=self.clock.now())
        self.status[operation_id] = "forgotten"

    @rule(by=st.sampled_from([timedelta(minutes=2), timedelta(minutes=15), timedelta(hours=40), timedelta(days=4)]))
    def time_passes(self, by: timedelta) -> None:
        self.clock.time += by

    @invariant()
    def every_answer_that_was_kept_is_there(self) -> None:
        for operation_id, status in self.status.items():
            kept = self.archive.answer(operation_id)
            if status == "finished":
                assert kept == answer(operation_id)
            if status == "forgotten":
                assert kept is None
                assert self.archive.submission(operation_id) is None


Payments.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestPayments = Payments.TestCase
