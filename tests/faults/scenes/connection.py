"""Connections that break: before the other side has the request, after it has acted on it, and within its answer."""

from __future__ import annotations

from tests.faults.gate import Deed
from tests.faults.job import Job
from tests.faults.matrix import Fault, Stage, scene
from tests.faults.scenes.requests import ANSWER_READ, ANSWER_WRITTEN, ANY_FILE, COMMIT, FILE_READ


@scene(
    Fault.DROPPED_BEFORE,
    Stage.SUBMIT,
    "by default",
    "the request is gone, and nobody here can know that: the task fails, of the two recordings for this one only; "
    "`archive release`, and the next run sends it.",
    window=True,
)
def submit_dropped_before(job: Job) -> None:
    job.fault_on_submits("drop_before", match=job.key("second"))
    job.start()
    job.release(job.expect_lost(accepted=1))
    job.expect_whole()


@scene(
    Fault.DROPPED_BEFORE,
    Stage.SUBMIT,
    "resubmitting",
    "with `on_lost_submission='resubmit'` both are sent again, and paid for once.",
    window=True,
)
def submit_dropped_before_resubmitting(job: Job) -> None:
    planned = job.fault_on_submits("drop_before", times=2)
    job.start("resubmitting")
    job.until_fired(planned, times=2)
    job.expect_whole()


@scene(Fault.DROPPED_BEFORE, Stage.WAIT, "checks", "checks never arrive: the wait goes on, and slower.")
def check_dropped_before(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", "drop_before", times=2)
    job.until_fired(*planned, times=2)
    job.let_service_finish()
    job.expect_whole()


@scene(Fault.DROPPED_BEFORE, Stage.ARCHIVE, "the answer", "an answer never gets to the archive: it is written again.")
def answer_dropped_before(job: Job) -> None:
    planned = job.storage.add(Deed.DROP, ANSWER_WRITTEN, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(Fault.DROPPED_BEFORE, Stage.TRANSFORM, "a file", "a file never gets to its folder: it is written again.")
def file_dropped_before(job: Job) -> None:
    planned = job.storage.add(Deed.DROP, ANY_FILE, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(
    Fault.DROPPED_BEFORE,
    Stage.LOAD,
    "the commit",
    "the commit never gets to the database, which rolls back: the next try loads the rows.",
)
def commit_dropped_before(job: Job) -> None:
    planned = job.warehouse.add(Deed.DROP, COMMIT)
    job.start()
    job.expect_whole()
    assert planned.fired == 1


@scene(
    Fault.DROPPED_AFTER,
    Stage.SUBMIT,
    "by default",
    "the service has taken it and the id is lost: the task fails, of the two recordings for this one only, and sends "
    "nothing again; `archive adopt` with the id, and it goes on. Paid for once.",
    window=True,
)
def submit_dropped_after(job: Job) -> None:
    job.fault_on_submits("drop_after", match=job.key("second"))
    job.start()
    job.adopt(job.expect_lost(accepted=2))
    job.expect_whole()


@scene(
    Fault.DROPPED_AFTER,
    Stage.SUBMIT,
    "resubmitting",
    "with `on_lost_submission='resubmit'` both are sent again, as the log says, and paid for twice; in the tables they "
    "are once.",
    window=True,
)
def submit_dropped_after_resubmitting(job: Job) -> None:
    planned = job.fault_on_submits("drop_after", times=2)
    job.start("resubmitting")
    job.until_fired(planned, times=2)
    job.until_log("submit", "may be paid for twice")
    job.expect_whole(paid=2)


@scene(Fault.DROPPED_AFTER, Stage.WAIT, "checks", "answers to checks never arrive: the wait goes on, and slower.")
def check_dropped_after(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", "drop_after", times=2)
    job.until_fired(*planned, times=2)
    job.let_service_finish()
    job.expect_whole()


@scene(
    Fault.DROPPED_AFTER,
    Stage.ARCHIVE,
    "the answer",
    "an answer is in the archive, and nobody is told: the write is repeated, finds it there, and takes it for its own.",
)
def answer_dropped_after(job: Job) -> None:
    planned = job.storage.add(Deed.DROP_ANSWER, ANSWER_WRITTEN, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(
    Fault.DROPPED_AFTER, Stage.TRANSFORM, "a file", "a file is there, and nobody is told: the same is put in its place."
)
def file_dropped_after(job: Job) -> None:
    planned = job.storage.add(Deed.DROP_ANSWER, ANY_FILE, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(
    Fault.DROPPED_AFTER,
    Stage.LOAD,
    "the commit",
    "the rows are committed, and the task fails all the same: the next try puts the same in their place.",
)
def commit_dropped_after(job: Job) -> None:
    planned = job.warehouse.add(Deed.DROP_ANSWER, COMMIT)
    job.start()
    job.expect_whole()
    assert planned.fired == 1


@scene(
    Fault.CUT_ANSWER,
    Stage.SUBMIT,
    "by default",
    "the answer with the id breaks off: the task fails, for this recording only; `archive adopt`, and it goes on.",
    window=True,
)
def submit_cut(job: Job) -> None:
    job.fault_on_submits("cut", match=job.key("second"))
    job.start()
    job.adopt(job.expect_lost(accepted=2))
    job.expect_whole()


@scene(Fault.CUT_ANSWER, Stage.WAIT, "checks", "answers to checks break off: they are asked again.")
def check_cut(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", "cut", times=2)
    job.until_fired(*planned, times=2)
    job.let_service_finish()
    job.expect_whole()


@scene(
    Fault.CUT_ANSWER,
    Stage.ARCHIVE,
    "of v2",
    "the check's answer, which is the result, breaks off: what is archived is a whole one.",
)
def result_cut(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", "cut", times=3, keep=0.9)
    job.until_fired(*planned, times=1)
    job.let_service_finish()
    job.until_fired(*planned, times=3)
    job.expect_whole()


@scene(Fault.CUT_ANSWER, Stage.ARCHIVE, "of v3", "the result's stream breaks off: what is archived is a whole one.")
def stream_cut(job: Job) -> None:
    job.start("with_v3", long=True)
    job.until_waiting()
    planned = job.fault_on_each("recognition", "cut", times=6)
    job.let_service_finish()
    job.until_fired(*planned, times=6)
    job.expect_whole()


@scene(
    Fault.CUT_ANSWER, Stage.TRANSFORM, "reading the archive", "an archived answer breaks off as it is read: read again."
)
def archived_answer_cut(job: Job) -> None:
    planned = job.storage.add(Deed.CUT_ANSWER, ANSWER_READ, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(Fault.CUT_ANSWER, Stage.LOAD, "a file", "a table's file breaks off as it is read: read again.")
def file_cut(job: Job) -> None:
    planned = job.storage.add(Deed.CUT_ANSWER, FILE_READ, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3
