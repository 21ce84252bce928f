"""An archive that can't be written or read.

A disk that is full: the kernel refuses to let files grow (RLIMIT_FSIZE of the process that writes), which works without
privileges and on any machine; the first write that would need room fails, as on a full disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psutil

from tests.faults.gate import Deed
from tests.faults.job import Job
from tests.faults.matrix import Fault, Stage, scene
from tests.faults.scenes.requests import ANSWER_READ, OUTCOME_READ, RECORDING_LOOKED_UP
from tests.fixtures.airflow import Component

ARCHIVED_LATER = "can't be archived yet"
NOT_ON_RECORD = "and that can't be recorded"


@contextmanager
def full_disk(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Let no file of theirs grow."""
    limited = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in processes]
    try:
        for process, (_, hard) in limited:
            process.rlimit(psutil.RLIMIT_FSIZE, (0, hard))
        yield
    finally:
        for process, limits in limited:
            if process.is_running():
                process.rlimit(psutil.RLIMIT_FSIZE, limits)


@scene(
    Fault.FULL_DISK,
    Stage.SUBMIT,
    "before it is sent",
    "full when the claims are written: nothing is sent, and the next try finds space.",
)
def disk_full_at_the_claim(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, RECORDING_LOOKED_UP, times=2)
    job.start(on_disk=True)
    job.until("a recording to be looked up", held.struck.is_set)
    with full_disk(job.worker("submit")[1:]):
        held.let_go()
        job.until_tried("submit", 2)
        assert job.billed() == []
    assert "Can't create" in job.log("submit")
    job.expect_whole()


@scene(
    Fault.FULL_DISK,
    Stage.SUBMIT,
    "after acceptance",
    "full when the operations' ids arrive: they are kept in memory until there is space to write them.",
)
def disk_full_at_the_record(job: Job) -> None:
    held = job.hold_submits(times=2)
    job.start(on_disk=True)
    job.until("both requests to be under way", lambda: held.fired == 2)
    with full_disk(job.worker("submit")[1:]):
        held.let_go()
        job.until_log("submit", NOT_ON_RECORD)
        assert list(job.archive.operations()) == []
    job.expect_whole()


@scene(
    Fault.FULL_DISK,
    Stage.ARCHIVE,
    "for a while",
    "full when the recognitions end: the triggerer tries again until there is space.",
)
def disk_full_at_the_answer(job: Job) -> None:
    job.start(long=True, on_disk=True)
    job.until_waiting()
    # The first is the supervisor, which writes the logs.
    with full_disk(job.airflow.process(Component.TRIGGERER).processes()[1:]):
        job.let_service_finish()
        job.until_log("wait", ARCHIVED_LATER)
    job.expect_whole()


@scene(
    Fault.UNREACHABLE,
    Stage.SUBMIT,
    "from the start",
    "unreachable when the task begins: it is not treated as empty, nothing is sent, and the next try finds it.",
)
def archive_gone_at_the_start(job: Job) -> None:
    job.storage.close()
    job.start()
    job.until_tried("submit", 2)
    assert job.billed() == []
    job.storage.open()
    job.expect_whole()


@scene(
    Fault.UNREACHABLE,
    Stage.SUBMIT,
    "after acceptance",
    "unreachable when the operations' ids arrive: they are kept in memory until it can be written.",
)
def archive_gone_at_the_record(job: Job) -> None:
    held = job.hold_submits(times=2)
    job.start()
    job.until("both requests to be under way", lambda: held.fired == 2)
    job.storage.close()
    held.let_go()
    job.until_log("submit", NOT_ON_RECORD)
    job.storage.open()
    job.expect_whole()


@scene(
    Fault.UNREACHABLE,
    Stage.WAIT,
    "at its beginning",
    "unreachable when the wait begins, which reads the answers that are there already: the next try waits.",
)
def archive_gone_at_the_wait(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, OUTCOME_READ)
    job.start(long=True)
    job.until("the archive to be asked", held.struck.is_set)
    job.storage.close()
    job.until_tried("wait", 2)
    job.storage.open()
    job.until_waiting()
    job.let_service_finish()
    job.expect_whole()


@scene(
    Fault.UNREACHABLE,
    Stage.ARCHIVE,
    "for a while",
    "unreachable when the recognitions end: the triggerer tries again until it is back.",
)
def archive_unreachable(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    job.storage.close()
    job.let_service_finish()
    job.until_log("wait", ARCHIVED_LATER)
    job.storage.open()
    job.expect_whole()


@scene(
    Fault.UNREACHABLE,
    Stage.TRANSFORM,
    "for a while",
    "unreachable when answers are read: the task fails rather than leave them out, and the next try reads them.",
)
def archive_gone_at_the_transform(job: Job) -> None:
    held = job.storage.add(Deed.HOLD, ANSWER_READ)
    job.start()
    job.until("an answer to be read", held.struck.is_set)
    job.storage.close()
    job.until_tried("rows", 2)
    job.storage.open()
    job.expect_whole()
