"""Any sequence of submits, losses, crashes, retries, settlements, removals and overlapping runs, against what was paid.

`Payments` plays processes and people, `Books` (the service's own) say at the moment of each request whether it can be
defended, and what has to become of a recording where no other process is at work.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.maintenance import adopt, delete_attempts, delete_operation, release
from airflow_speechkit.archive.runs import SubmitRun
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import ArchiveError
from tests.unit.archive.books import Asked, Books, Paid, mark_of
from tests.unit.archive.world import T0, Clock, Killed, Life, answer, failure, recording, submitter

NAMES = ("a", "b", "c", "d")
FINE = (SubmitStatus.SUBMITTED, SubmitStatus.JOINED, SubmitStatus.REUSED)
RUNS = ("run-1", "run-2", "run-3")

#: Most of it happens to one recording: what goes wrong takes a long story.
names = st.sampled_from([*"aaaaa", *NAMES])
asks = st.builds(
    Asked,
    run=st.sampled_from(RUNS),
    reuse=st.sampled_from([True, True, False]),
    resubmit=st.sampled_from([False, False, True]),
)
#: What the service does with the next requests for a recording.
events = st.lists(st.sampled_from(["ok", "ok", "lost after", "lost after", "lost before", "no", "changed"]), max_size=3)
happenings = st.dictionaries(names, events)
deaths = st.builds(Life, st.integers(0, 16), dies_after=st.booleans())
ends = st.sampled_from([None, None, 3, 13, 13])


class Meanwhile(Life):
    """A process that is held up at one moment, while others do all that they have to do."""

    def __init__(self, moment: int, others: Any) -> None:
        super().__init__()
        self.moment = moment
        self.others = others

    def before(self) -> None:
        self._pass()

    def after(self) -> None:
        self._pass()

    def _pass(self) -> None:
        self.used += 1
        if self.used == self.moment:
            self.others()


class Payments(RuleBasedStateMachine):
    """The archive's processes and its people."""

    #: Over all examples.
    reached: set[SubmitStatus | AttemptState] = set()  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.books = Books(self.clock)
        self.archive = self.books.archive
        #: Operations whose removal was broken off.
        self.half_forgotten: set[str] = set()

    @initialize()
    def begin(self) -> None:
        self.archive.probe(T0)

    # Who is there to choose from

    def those(self, *status: str) -> list[Paid]:
        return [one for one in self.books.paid.values() if one.status in status]

    def running(self) -> list[Paid]:
        return [one for one in self.those("running") if self.books.counts(one) and self.books.still_there(one.id)]

    def ended(self) -> list[Paid]:
        return self.those("finished", "failed 3", "failed 13")

    def lost(self) -> list[tuple[str, int]]:
        books = self.books
        return [(name, one) for name in NAMES for one in books.open(name) if not books.is_live(name, one)]

    # What happens

    def process(
        self,
        archive: Archive,
        recordings: list[str],
        asked: Asked,
        script: dict[str, list[str]],
        since: datetime | None = None,
    ) -> list[SubmitOutcome]:
        """A run, its retry, a cleared task, a backfill: all the same to the archive."""
        process = submitter(
            archive,
            self.books.service,
            run=asked.run,
            send=self.books.send(asked, {name: list(several) for name, several in script.items()}),
            has=self.books.still_there,
            reuse=asked.reuse,
            on_lost_submission="resubmit" if asked.resubmit else "fail",
        )
        pending = [SubmitOutcome(recording=recording(name)) for name in recordings]
        began_at, is_resumed = since or self.clock.now(), since is not None
        outcomes = process.visit(SubmitRun(began_at=began_at, outcomes=pending, is_resumed=is_resumed), waits=True).done
        for outcome in outcomes:
            assert outcome.status is not None
            self.reached.add(outcome.status)
            if outcome.operation_id is not None:
                assert self.books.paid[outcome.operation_id].name == outcome.recording.link
            assert (outcome.error is None) is (outcome.status in FINE)
        return outcomes

    @rule(recordings=st.lists(names, min_size=1, max_size=3), asked=asks, script=happenings)
    def submit(self, recordings: list[str], asked: Asked, script: dict[str, list[str]]) -> None:
        expected = [self.books.expected(name, asked, script.get(name, [])) for name in recordings]
        outcomes = self.process(self.archive, recordings, asked, script)
        assert [one.status for one in outcomes] == expected
        for outcome in outcomes:
            if outcome.status in FINE:
                assert outcome.operation_id is not None
                is_finished = self.books.paid[outcome.operation_id].status == "finished"
                assert is_finished is (outcome.status is SubmitStatus.REUSED)
                submission = self.archive.submission(outcome.operation_id)
                assert submission is not None
                assert submission.audio_uri == outcome.recording.audio_uri

    @rule(
        recordings=st.lists(names, min_size=1, max_size=3),
        asked=asks,
        script=happenings,
        life=st.none() | deaths,
        ago=st.sampled_from([timedelta(0), timedelta(minutes=20), timedelta(days=2), timedelta(days=9)]),
    )
    def go_on(
        self, recordings: list[str], asked: Asked, script: dict[str, list[str]], life: Life | None, ago: timedelta
    ) -> None:
        """A later visit of a run that began a while ago: what the run has sent since isn't sent by it again."""
        since = self.clock.now() - ago
        on_record = {one.operation_id for name in NAMES for one in self.archive.attempts(mark_of(name))}
        sent = {
            one.name
            for one in self.books.paid.values()
            if one.scope == asked.scope and self.books.service.created_at[one.id] >= since
            if one.id in on_record - self.half_forgotten and one.status != "forgotten"
        }
        before = set(self.books.paid)
        with suppress(Killed):
            archive = self.archive if life is None else self.books.process(life)
            self.process(archive, recordings, asked, script, since)
        assert not sent & {one.name for one in self.books.paid.values() if one.id not in before}

    @rule(name=names, asked=asks, resubmit=st.sampled_from([True, True, False]), losses=st.integers(1, 3))
    def submit_on_a_bad_day(self, name: str, asked: Asked, resubmit: bool, losses: int) -> None:
        """Requests are taken, and their answers don't come back."""
        self.submit([name], replace(asked, resubmit=resubmit), {name: ["lost after"] * losses})

    @rule(recordings=st.lists(names, min_size=1, max_size=2), asked=asks, script=happenings, life=deaths)
    def crash(self, recordings: list[str], asked: Asked, script: dict[str, list[str]], life: Life) -> None:
        with suppress(Killed):
            self.process(self.books.process(life), recordings, asked, script)

    @rule(
        recordings=st.lists(names, min_size=1, max_size=2, unique=True),
        asked=asks,
        other=asks,
        script=happenings,
        moment=st.integers(1, 24),
        what=st.lists(
            st.sampled_from(["submit", "submit", "end", "forget", "forget recording", "settle", "settle", "wait"]),
            min_size=1,
            max_size=5,
        ),
    )
    def two_at_once(
        self,
        recordings: list[str],
        asked: Asked,
        other: Asked,
        script: dict[str, list[str]],
        moment: int,
        what: list[str],
    ) -> None:
        """One process is held up at some moment, while others work on the last of its recordings."""
        name = recordings[-1]
        before = set(self.books.paid)

        def others() -> None:
            # Not done with while it is held up: between two writes nothing can keep it from the second one.
            its_own = set(self.books.paid) - before
            for one in what:
                match one:
                    case "submit":
                        self.process(self.archive, [name], other, {})
                    case "end":
                        for paid in self.running():
                            self.keep(paid, None)
                    case "forget":
                        for paid in self.ended():
                            if paid.name == name and paid.id not in its_own:
                                self.remove(paid.id)
                    case "forget recording":
                        self.forget_recording(name)
                    case "settle":
                        for lost in self.lost():
                            self.settle(*lost)
                    case "wait":
                        self.clock.advance(minutes=11)

        self.process(self.books.process(Meanwhile(moment, others)), recordings, asked, script)

    def keep(self, paid: Paid, code: int | None) -> None:
        self.archive.keep(answer(paid.id), None if code is None else failure(code), now=self.clock.now())
        paid.status = "finished" if code is None else f"failed {code}"

    @precondition(lambda self: self.running())
    @rule(data=st.data(), code=ends, life=st.none() | deaths)
    def end(self, data: st.DataObject, code: int | None, life: Life | None) -> None:
        """The service is done with an operation, and its answer is archived, sometimes at the second go."""
        paid = data.draw(st.sampled_from(self.running()))
        if life is not None:
            why = None if code is None else failure(code)
            with suppress(Killed):
                self.books.process(life).keep(answer(paid.id), why, now=self.clock.now())
        self.keep(paid, code)

    @precondition(lambda self: any(self.books.counts(one) for one in self.those("running")))
    @rule(data=st.data())
    def ask_for_one_that_is_gone(self, data: st.DataObject) -> None:
        """A sensor gets a 404. With the wrong connection it gets one for a young operation too."""
        paid = data.draw(st.sampled_from([one for one in self.those("running") if self.books.counts(one)]))
        # A task that got the id has looked it up in the ledger.
        self.archive.attempts(mark_of(paid.name))
        old = self.clock.now() - self.books.service.created_at[paid.id] >= timedelta(days=3)
        if not old or not self.books.still_there(paid.id):
            assert self.archive.expire(paid.id, self.clock.now()) is old

    def remove(self, operation_id: str, archive: Archive | None = None) -> None:
        self.half_forgotten.add(operation_id)
        delete_operation(archive or self.archive, operation_id, now=self.clock.now())
        self.books.paid[operation_id].status = "forgotten"
        self.half_forgotten.discard(operation_id)

    @precondition(lambda self: self.ended())
    @rule(data=st.data(), life=st.none() | deaths)
    def forget_one(self, data: st.DataObject, life: Life | None) -> None:
        """A person forgets an operation; what was broken off is finished at some later time, or never."""
        with suppress(Killed):
            paid = data.draw(st.sampled_from(self.ended()))
            self.remove(paid.id, None if life is None else self.books.process(life))

    @rule(name=names)
    def forget_recording(self, name: str) -> None:
        """A person forgets all attempts that led to no operation."""
        live = any(self.books.is_live(name, one) for one in self.books.open(name))
        try:
            delete_attempts(self.archive, f"s3://calls/{name}.ogg", now=self.clock.now())
        except ArchiveError:
            assert live
        else:
            assert not live

    def settle(self, name: str, number: int) -> None:
        mark, now = mark_of(name), self.clock.now()
        taken = [one for one in self.those("running") if (one.name, one.number) == (name, number)]
        if taken:
            taken[0].adopted_beside = frozenset(self.books.open(name))
            assert adopt(self.archive, mark, taken[0].id, now=now, attempt=number) == number
        else:
            assert release(self.archive, mark, now=now, attempt=number) == number

    @precondition(lambda self: self.lost())
    @rule(data=st.data())
    def settle_one(self, data: st.DataObject) -> None:
        """A person finds the operation of a lost submission, or that there is none, and says so."""
        self.settle(*data.draw(st.sampled_from(self.lost())))

    @precondition(lambda self: self.lost() and any(self.archive.submission(one) for one in self.books.paid))
    @rule(data=st.data())
    def mistype(self, data: st.DataObject) -> None:
        """A person gives the id of an operation that is on record already."""
        name, number = data.draw(st.sampled_from(self.lost()))
        known = [one for one in self.books.paid if self.archive.submission(one)]
        self.archive.attempts(mark_of(name))
        before = dict(self.books.files)
        with pytest.raises(ArchiveError, match="and not as attempt"):
            adopt(
                self.archive,
                mark_of(name),
                data.draw(st.sampled_from(known)),
                now=self.clock.now(),
                attempt=number,
            )
        assert self.books.files == before

    @rule(by=st.sampled_from([timedelta(minutes=2), timedelta(minutes=15), timedelta(hours=40), timedelta(days=4)]))
    def time_passes(self, by: timedelta) -> None:
        self.clock.time += by

    @invariant()
    def every_answer_that_was_kept_is_there(self) -> None:
        for paid in self.books.paid.values():
            if paid.id in self.half_forgotten:
                continue
            if paid.status == "finished":
                assert self.archive.answer(paid.id) == answer(paid.id)
            if paid.status == "forgotten":
                assert self.archive.answer(paid.id) is None
                assert self.archive.submission(paid.id) is None

    @invariant()
    def note_what_was_reached(self) -> None:
        for name in NAMES:
            self.reached.update(map(AttemptState, self.books.states(name).values()))


def test_nobody_pays_twice_unless_they_ask_for_it_and_everybody_gets_what_was_paid_for() -> None:
    Payments.reached.clear()
    logging.disable(logging.CRITICAL)
    try:
        run_state_machine_as_test(
            Payments,
            settings=settings(
                max_examples=400,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
            ),
        )
    finally:
        logging.disable(logging.NOTSET)
    # What a filter leaves out has no attempt.
    assert Payments.reached == {*SubmitStatus, *AttemptState} - {SubmitStatus.FILTERED}
