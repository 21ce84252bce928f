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
    "the request does not arrive, which the client can't know: the task fails for this one of the two recordings; "
    "after `archive release` the next run sends it.",
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


@scene(Fault.DROPPED_BEFORE, Stage.WAIT, "checks", "checks never arrive: the wait continues, and checks less often.")
def check_dropped_before(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", "drop_before", times=2)
    job.until_fired(*planned, times=2)
    job.let_service_finish()
    job.expect_whole()


@scene(Fault.DROPPED_BEFORE, Stage.ARCHIVE, "the answer", "an answer does not reach the archive: it is written again.")
def answer_dropped_before(job: Job) -> None:
    planned = job.storage.add(Deed.DROP, ANSWER_WRITTEN, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(Fault.DROPPED_BEFORE, Stage.TRANSFORM, "a file", "a file does not reach its folder: it is written again.")
def file_dropped_before(job: Job) -> None:
    planned = job.storage.add(Deed.DROP, ANY_FILE, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(
    Fault.DROPPED_BEFORE,
    Stage.LOAD,
    "the commit",
    "the commit does not reach the database, which rolls back: the next try loads the rows.",
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
    "the service has accepted it and the id is lost: the task fails for this one of the two recordings, and sends "
    "nothing again; after `archive adopt` with the id the task continues. Paid for once.",
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
    "with `on_lost_submission='resubmit'` both are sent again, as the log says, and paid for twice; the tables have "
    "them once.",
    window=True,
)
def submit_dropped_after_resubmitting(job: Job) -> None:
    planned = job.fault_on_submits("drop_after", times=2)
    job.start("resubmitting")
    job.until_fired(planned, times=2)
    job.until_log("submit", "may be paid for twice")
    job.expect_whole(paid=2)


@scene(
    Fault.DROPPED_AFTER,
    Stage.WAIT,
    "checks",
    "answers to checks never arrive: the wait continues, and checks less often.",
)
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
    "an answer is written, and the confirmation is lost: the write is repeated, and finds the answer there.",
)
def answer_dropped_after(job: Job) -> None:
    planned = job.storage.add(Deed.DROP_ANSWER, ANSWER_WRITTEN, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(
    Fault.DROPPED_AFTER,
    Stage.TRANSFORM,
    "a file",
    "a file is written, and the confirmation is lost: it is replaced by the same content.",
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
    "the rows are committed, and the task fails because the confirmation is lost: the next try replaces them by the "
    "same rows.",
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
    "the answer with the id is cut off: the task fails, for this recording only; after `archive adopt` the task "
    "continues.",
    window=True,
)
def submit_cut(job: Job) -> None:
    job.fault_on_submits("cut", match=job.key("second"))
    job.start()
    job.adopt(job.expect_lost(accepted=2))
    job.expect_whole()


@scene(Fault.CUT_ANSWER, Stage.WAIT, "checks", "answers to checks are cut off: the checks are repeated.")
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
    "the check's answer, which is the result, is cut off: it is fetched again, and archived complete.",
)
def result_cut(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", "cut", times=3, keep=0.9)
    job.until_fired(*planned, times=1)
    job.let_service_finish()
    job.until_fired(*planned, times=3)
    job.expect_whole()


@scene(
    Fault.CUT_ANSWER,
    Stage.ARCHIVE,
    "of v3",
    "the result's stream is cut off: it is fetched again, and archived complete.",
)
def stream_cut(job: Job) -> None:
    job.start("with_v3", long=True)
    job.until_waiting()
    planned = job.fault_on_each("recognition", "cut", times=6)
    job.let_service_finish()
    job.until_fired(*planned, times=6)
    job.expect_whole()


@scene(
    Fault.CUT_ANSWER,
    Stage.TRANSFORM,
    "reading the archive",
    "an archived answer is cut off while it is read: it is read again.",
)
def archived_answer_cut(job: Job) -> None:
    planned = job.storage.add(Deed.CUT_ANSWER, ANSWER_READ, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(Fault.CUT_ANSWER, Stage.LOAD, "a file", "a table's file is cut off while it is read: it is read again.")
def file_cut(job: Job) -> None:
    planned = job.storage.add(Deed.CUT_ANSWER, FILE_READ, times=3)
    job.start()
    job.expect_whole()
    assert planned.fired == 3
