"""Processes that end by SIGKILL: Airflow's, and the service's."""

from __future__ import annotations

from tests.faults.gate import Deed, Rule
from tests.faults.job import Job
from tests.faults.matrix import Fault, Stage, scene
from tests.faults.scenes.requests import ANSWER_READ, ANSWER_WRITTEN, CLAIM, COMMIT, COPY, OUTCOME, RECORD, WORDS_FILE
from tests.fixtures.airflow import Component


def kill_at(job: Job, task_id: str, held: Rule) -> None:
    """Kill the task's worker while its request is held, which then never arrives."""
    job.until(f"{held.pattern!r} to go by", held.struck.is_set)
    job.kill_worker(task_id)
    held.drop()
    job.expect_whole()


@scene(
    Fault.WORKER_KILLED,
    Stage.SUBMIT,
    "before it is sent",
    "killed while it writes a claim: the next try writes a new claim and sends the request.",
)
def worker_before_it_is_sent(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, CLAIM, times=0)
    job.start()
    job.until("a claim to be written", held.struck.is_set)
    job.kill_worker("submit")
    held.times = held.fired
    held.drop()
    job.expect_whole()


@scene(
    Fault.WORKER_KILLED,
    Stage.SUBMIT,
    "request under way",
    "killed while a request is under way, which the service then accepts: when the claim's lease has ended (the test "
    "ends it early) the task fails with an error that explains it; the other recording keeps its operation; after "
    "`archive adopt` with the id the task continues.",
    window=True,
)
def worker_with_request_under_way(job: Job) -> None:
    held = job.hold_submits("first")
    job.start()
    job.until("its request to be under way", held.struck.is_set)
    job.until("the other to be on record", lambda: len(list(job.archive.operations())) == 1)
    job.kill_worker("submit")
    held.let_go()
    job.outlive_leases()
    job.until("the service to take it", lambda: len(job.billed()) == 2)
    job.adopt(job.expect_lost(accepted=2))
    job.expect_whole()


@scene(
    Fault.WORKER_KILLED,
    Stage.SUBMIT,
    "between its two records",
    "killed after the ledger has the operation's id, and before the id leads back to the recording: the next try "
    "completes the record and joins the operation.",
)
def worker_between_records(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, RECORD)
    job.start()
    kill_at(job, "submit", held)


@scene(
    Fault.WORKER_KILLED,
    Stage.SUBMIT,
    "in a later visit",
    "one task for both: killed when it returned to submit what the quota had not allowed, between the two records: "
    "the next try completes the record, joins the operation, and waits for both.",
)
def worker_in_a_later_visit(job: Job) -> None:
    job.fault_on_submits(429, match=job.key("second"), retry_after="30")
    job.start("in_one_task")
    job.until_task("recognize", "deferred")
    kill_at(job, "recognize", job.storage.add(Deed.HOLD, RECORD))


@scene(
    Fault.WORKER_KILLED,
    Stage.WAIT,
    "on a worker",
    "killed while it waits without a triggerer: the next try continues the wait.",
)
def worker_while_it_waits(job: Job) -> None:
    job.start("on_a_worker", long=True)
    job.until_task("wait", "running")
    job.until_asked_for()
    job.kill_worker("wait")
    job.let_service_finish()
    job.expect_whole()


@scene(
    Fault.WORKER_KILLED,
    Stage.ARCHIVE,
    "before the answer",
    "killed while it writes an answer: the next try fetches it again.",
)
def worker_while_it_archives(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, ANSWER_WRITTEN)
    job.start("on_a_worker")
    kill_at(job, "wait", held)


@scene(
    Fault.WORKER_KILLED,
    Stage.ARCHIVE,
    "behind the answer",
    "killed when the answer is written, and not yet marked as complete: the next try marks it.",
)
def worker_before_the_outcome(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, OUTCOME)
    job.start("on_a_worker")
    kill_at(job, "wait", held)


@scene(
    Fault.WORKER_KILLED,
    Stage.TRANSFORM,
    "between two files",
    "killed with some tables written and others not: the next try writes all of them, under the same names.",
)
def worker_while_it_transforms(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, WORDS_FILE)
    job.start()
    kill_at(job, "rows", held)


@scene(
    Fault.WORKER_KILLED,
    Stage.LOAD,
    "before the commit",
    "killed when all rows are inserted, and not yet committed: the database rolls back, and the next try loads them.",
)
def worker_while_it_loads(job: Job) -> None:
    held = job.warehouse.add(Deed.HOLD, COMMIT)
    job.start()
    kill_at(job, "load", held)


@scene(
    Fault.TRIGGERER_KILLED,
    Stage.SUBMIT,
    "between visits",
    "one task for both: killed when one recording was submitted and the other has to wait for the quota: the next "
    "triggerer archives the first, and a worker submits the other.",
)
def triggerer_between_visits(job: Job) -> None:
    job.fault_on_submits(429, match=job.key("second"), retry_after="60")
    job.start("in_one_task")
    job.until_task("recognize", "deferred")
    job.meet(lambda: job.airflow.kill(Component.TRIGGERER))
    job.meet(lambda: job.airflow.launch(Component.TRIGGERER))
    job.expect_whole()


@scene(
    Fault.TRIGGERER_KILLED,
    Stage.WAIT,
    "while it waits",
    "killed while the recognitions run, which end while there is no triggerer: the next one continues the wait.",
)
def triggerer_while_it_waits(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    job.meet(lambda: job.airflow.kill(Component.TRIGGERER))
    job.let_service_finish()
    job.meet(lambda: job.airflow.launch(Component.TRIGGERER))
    job.expect_whole()


@scene(
    Fault.TRIGGERER_KILLED,
    Stage.ARCHIVE,
    "before the answer",
    "killed while it writes an answer: the next one fetches it again.",
)
def triggerer_while_it_archives(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, ANSWER_WRITTEN)
    job.start()
    job.until("an answer to be written", held.struck.is_set)
    job.meet(lambda: job.airflow.kill(Component.TRIGGERER))
    held.drop()
    job.meet(lambda: job.airflow.launch(Component.TRIGGERER))
    job.expect_whole()


def kill_scheduler_at(job: Job, held: Rule) -> None:
    """Kill the scheduler and its workers while a request is held, which then never arrives."""
    job.start()
    job.until(f"{held.pattern!r} to go by", held.struck.is_set)
    job.meet(lambda: job.airflow.kill(Component.SCHEDULER))
    held.times = held.fired
    held.drop()
    job.meet(lambda: job.airflow.launch(Component.SCHEDULER))
    job.expect_whole()


@scene(
    Fault.SCHEDULER_KILLED,
    Stage.SUBMIT,
    "before it is sent",
    "killed with its workers while one of them writes a claim: the next scheduler runs the task again, which writes a "
    "new claim and sends the request.",
)
def scheduler_while_it_submits(job: Job) -> None:
    kill_scheduler_at(job, job.storage.add(Deed.HOLD, CLAIM, times=0))


@scene(
    Fault.SCHEDULER_KILLED,
    Stage.SUBMIT,
    "request under way",
    "killed with its workers while a request is under way, which the service then accepts: when the claim's lease has "
    "ended the task fails with an error that explains it; the other recording keeps its operation; after `archive "
    "adopt` with the id the task continues.",
    window=True,
)
def scheduler_with_request_under_way(job: Job) -> None:
    held = job.hold_submits("first")
    job.start()
    job.until("its request to be under way", held.struck.is_set)
    job.until("the other to be on record", lambda: len(list(job.archive.operations())) == 1)
    job.meet(lambda: job.airflow.kill(Component.SCHEDULER))
    held.let_go()
    job.outlive_leases()
    job.until("the service to take it", lambda: len(job.billed()) == 2)
    job.meet(lambda: job.airflow.launch(Component.SCHEDULER))
    job.adopt(job.expect_lost(accepted=2))
    job.expect_whole()


@scene(
    Fault.SCHEDULER_KILLED,
    Stage.WAIT,
    "while deferred",
    "killed while the recognitions run, which end and are archived while there is no scheduler: the next one resumes "
    "the task.",
)
def scheduler_while_it_waits(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    job.meet(lambda: job.airflow.kill(Component.SCHEDULER))
    job.let_service_finish()
    job.until_archived()
    job.meet(lambda: job.airflow.launch(Component.SCHEDULER))
    job.expect_whole()


@scene(
    Fault.SCHEDULER_KILLED,
    Stage.ARCHIVE,
    "while it archives",
    "killed while the triggerer writes an answer: the triggerer continues, and the answer is there when the next "
    "scheduler starts.",
)
def scheduler_while_it_archives(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, ANSWER_WRITTEN)
    job.start()
    job.until("an answer to be written", held.struck.is_set)
    job.meet(lambda: job.airflow.kill(Component.SCHEDULER))
    held.let_go()
    job.until_archived()
    job.meet(lambda: job.airflow.launch(Component.SCHEDULER))
    job.expect_whole()


@scene(
    Fault.SCHEDULER_KILLED,
    Stage.TRANSFORM,
    "between two files",
    "killed with its workers when some tables are written and others not: the next one has all of them written, under "
    "the same names.",
)
def scheduler_while_it_transforms(job: Job) -> None:
    kill_scheduler_at(job, job.storage.add(Deed.HOLD, WORDS_FILE))


@scene(
    Fault.SCHEDULER_KILLED,
    Stage.LOAD,
    "before the commit",
    "killed with its workers when all rows are inserted, and not yet committed: the database rolls back, and they are "
    "loaded again.",
)
def scheduler_while_it_loads(job: Job) -> None:
    kill_scheduler_at(job, job.warehouse.add(Deed.HOLD, COMMIT))


def while_the_service_is_away(job: Job, then: str) -> None:
    """Meet twice: the service is killed, and started again. In between, do what is asked for."""
    job.meet(job.emulator.kill)
    if then == "run to the end":
        job.until_success()
    job.meet(job.emulator.start)


@scene(
    Fault.EMULATOR_RESTARTED,
    Stage.SUBMIT,
    "while it is down",
    "down when the task begins: no connection is made, so nothing can have been accepted; the request is sent again "
    "until the service is back.",
)
def service_away_at_submit(job: Job) -> None:
    job.meet(job.emulator.kill)
    job.start()
    job.until_log("submit", "The service is in trouble")
    job.meet(job.emulator.start)
    job.expect_whole()


@scene(
    Fault.EMULATOR_RESTARTED,
    Stage.SUBMIT,
    "request under way",
    "killed with both requests under way: the task fails with an error that says what to check; `archive release` "
    "marks them as not accepted, and the next run sends them.",
    window=True,
)
def service_killed_with_request_under_way(job: Job) -> None:
    slow = job.fault_on_submits("slow", times=2, seconds=3600)
    job.start()
    job.until_fired(slow, times=2)
    while_the_service_is_away(job, "nothing")
    job.release(job.expect_lost(accepted=0))
    job.expect_whole()


@scene(
    Fault.EMULATOR_RESTARTED,
    Stage.WAIT,
    "while it waits",
    "down during some checks: the wait continues; the emulator still has its operations.",
)
def service_away_while_waiting(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    while_the_service_is_away(job, "nothing")
    job.let_service_finish()
    job.expect_whole()


@scene(
    Fault.EMULATOR_RESTARTED,
    Stage.ARCHIVE,
    "result under way",
    "killed while a v3 result is fetched to be archived: it is fetched again.",
)
def service_killed_while_archiving(job: Job) -> None:
    # The only one of its row that asks for results of v3.
    slow = job.emulator.fault("slow", on="recognition", times=0, seconds=3600)
    job.start("with_v3")
    job.until_fired(slow)
    while_the_service_is_away(job, "nothing")
    job.expect_whole()


@scene(
    Fault.EMULATOR_RESTARTED,
    Stage.TRANSFORM,
    "while it is down",
    "down from before the first answer is read until the run has ended: the service is not called.",
)
def service_away_while_transforming(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, ANSWER_READ)
    job.start()
    job.until("an answer to be read", held.struck.is_set)
    job.meet(job.emulator.kill)
    held.let_go()
    job.until_success()
    job.meet(job.emulator.start)
    job.expect_whole()


@scene(
    Fault.EMULATOR_RESTARTED,
    Stage.LOAD,
    "while it is down",
    "down from before the first row is loaded until the run has ended: the service is not called.",
)
def service_away_while_loading(job: Job) -> None:
    held = job.warehouse.add(Deed.HOLD, COPY)
    job.start()
    job.until("rows to be loaded", held.struck.is_set)
    job.meet(job.emulator.kill)
    held.let_go()
    job.until_success()
    job.meet(job.emulator.start)
    job.expect_whole()
