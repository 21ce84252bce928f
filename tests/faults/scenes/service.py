"""Answers that are errors: the service's, and the storage's where a step asks nobody else."""

from __future__ import annotations

from tests.faults.gate import Deed
from tests.faults.job import Job
from tests.faults.matrix import Fault, Stage, scene
from tests.faults.scenes.requests import ANSWER_READ, ANSWER_WRITTEN, CLAIM, FILE_READ, RECORD


@scene(
    Fault.UNAUTHORIZED,
    Stage.SUBMIT,
    "a token",
    "the token is refused once: a new one is fetched, and the request is sent again.",
)
def submit_401(job: Job) -> None:
    planned = [job.fault_on_submits(401, match=job.key(name)) for name in ("first", "second")]
    job.start(authorized_key=job.emulator.credentials()["authorized_key"])
    job.until_fired(*planned)
    job.expect_whole()


@scene(
    Fault.UNAUTHORIZED,
    Stage.WAIT,
    "a token",
    "all tokens become invalid during the wait, which fetches a new one.",
)
def token_revoked(job: Job) -> None:
    job.start(long=True, authorized_key=job.emulator.credentials()["authorized_key"])
    job.until_waiting()
    # Deferred isn't asking yet: without this the first token would only be fetched after it.
    job.until_asked_for()
    job.emulator.revoke_tokens()
    job.until_token_refused()
    job.let_service_finish()
    job.expect_whole()


@scene(Fault.UNAUTHORIZED, Stage.WAIT, "a key", "the API key is refused twice: the wait continues, and ends as usual.")
def key_refused(job: Job) -> None:
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", 401, times=2)
    job.until_fired(*planned, times=2)
    job.let_service_finish()
    job.expect_whole()


@scene(
    Fault.UNAUTHORIZED,
    Stage.ARCHIVE,
    "a token",
    "the token is refused when a v3 result is fetched: a new one is fetched, and then the result.",
)
def result_401(job: Job) -> None:
    job.start("with_v3", long=True, authorized_key=job.emulator.credentials()["authorized_key"])
    job.until_waiting()
    planned = job.fault_on_each("recognition", 401, times=1)
    job.let_service_finish()
    job.until_fired(*planned)
    job.expect_whole()


@scene(
    Fault.TOO_MANY,
    Stage.SUBMIT,
    "a storm",
    "three submits are refused: nothing is sent during the pause, then both are.",
)
def submit_429(job: Job) -> None:
    planned = job.fault_on_submits(429, times=3)
    job.start()
    job.until_fired(planned, times=3)
    job.expect_whole()


def submits_refused(job: Job, status: int) -> None:
    """Refuse a submit of each recording, in the service's own words."""
    planned = job.fault_on_submits(status, times=2)
    job.start()
    job.until_fired(planned, times=2)
    job.expect_whole()


@scene(
    Fault.ERRORS_500,
    Stage.SUBMIT,
    "in its own words",
    "the service says that it aborted the request; its FAQ says that such requests aren't billed: sent again after a "
    "pause.",
)
def submit_500(job: Job) -> None:
    submits_refused(job, 500)


@scene(
    Fault.ERRORS_500,
    Stage.SUBMIT,
    "from a gateway",
    "a 504 doesn't say whether an operation exists: the task fails, for that recording only; after `archive release` "
    "the next run sends it.",
    window=True,
)
def submit_504(job: Job) -> None:
    job.fault_on_submits(504, match=job.key("second"))
    job.start()
    job.release(job.expect_lost(accepted=1))
    job.expect_whole()


@scene(
    Fault.ERRORS_503,
    Stage.SUBMIT,
    "in its own words",
    "the service says that it isn't available: sent again after a pause.",
)
def submit_503(job: Job) -> None:
    submits_refused(job, 503)


@scene(
    Fault.ERRORS_503,
    Stage.SUBMIT,
    "resubmitting",
    "a 503 that isn't in the service's words, with `on_lost_submission='resubmit'`: both are sent again, and may be "
    "paid for twice.",
    window=True,
)
def submit_503_resubmitting(job: Job) -> None:
    # INTERNAL goes with 500: somebody between here and the service made this answer.
    planned = job.fault_on_submits(503, times=2, code=13)
    job.start("resubmitting")
    job.until_fired(planned, times=2)
    job.expect_whole()


def checks_refused(job: Job, status: int) -> None:
    """Refuse some checks of both operations."""
    job.start(long=True)
    job.until_waiting()
    planned = job.fault_on_each("operation", status, times=2)
    job.until_fired(*planned, times=2)
    job.let_service_finish()
    job.expect_whole()


def check_over_quota(job: Job, **more: str) -> None:
    """Refuse a check of one operation for the quota of all."""
    job.start(long=True)
    operation_id, _ = job.until_waiting()
    job.until_fired(job.emulator.fault(429, on="operation", match=operation_id, **more))
    job.let_service_finish()
    job.expect_whole()


def results_refused(job: Job, status: int) -> None:
    """Refuse both v3 results more often than one try of fetching them asks."""
    job.start("with_v3", long=True)
    job.until_waiting()
    planned = job.fault_on_each("recognition", status, times=6)
    job.let_service_finish()
    job.until_fired(*planned, times=6)
    job.expect_whole()


def storage_refuses(job: Job, request: str, status: int) -> None:
    """Have the storage refuse a request some times."""
    planned = job.storage.add(Deed.REFUSE, request, times=3, status=status)
    job.start()
    job.expect_whole()
    assert planned.fired == 3


@scene(
    Fault.TOO_MANY,
    Stage.WAIT,
    "a storm",
    "a check is refused: all checks of the connection pause for minutes, and continue less often.",
)
def checks_429(job: Job) -> None:
    check_over_quota(job)


@scene(
    Fault.TOO_MANY,
    Stage.WAIT,
    "with Retry-After",
    "a check is refused for some seconds: all checks continue when that time is over.",
)
def checks_429_for_a_while(job: Job) -> None:
    check_over_quota(job, retry_after="4")


@scene(Fault.TOO_MANY, Stage.ARCHIVE, "a storm", "v3 results are refused, six times each, and then fetched.")
def results_429(job: Job) -> None:
    results_refused(job, 429)


@scene(
    Fault.ERRORS_500,
    Stage.WAIT,
    "checks",
    "checks fail, two of each operation: the wait continues, and checks less often.",
)
def checks_500(job: Job) -> None:
    checks_refused(job, 500)


@scene(Fault.ERRORS_500, Stage.ARCHIVE, "results", "v3 results fail, six times each, and then are fetched.")
def results_500(job: Job) -> None:
    results_refused(job, 500)


@scene(
    Fault.ERRORS_500,
    Stage.SUBMIT,
    "writing the archive",
    "the archive's storage answers 500 to claims and records: they are written again, and each is paid for once.",
)
def records_500(job: Job) -> None:
    storage_refuses(job, f"{CLAIM}|{RECORD}", 500)


@scene(
    Fault.ERRORS_500,
    Stage.ARCHIVE,
    "the answers",
    "the archive's storage answers 500 to an answer: it is written again.",
)
def answers_500(job: Job) -> None:
    storage_refuses(job, ANSWER_WRITTEN, 500)


@scene(
    Fault.ERRORS_503,
    Stage.ARCHIVE,
    "the answers",
    "the archive's storage answers 503 to an answer: it is written again.",
)
def answers_503(job: Job) -> None:
    storage_refuses(job, ANSWER_WRITTEN, 503)


@scene(
    Fault.ERRORS_500,
    Stage.TRANSFORM,
    "reading the archive",
    "the archive's storage answers 500: answers are read again.",
)
def archive_500(job: Job) -> None:
    storage_refuses(job, ANSWER_READ, 500)


@scene(
    Fault.ERRORS_500,
    Stage.LOAD,
    "reading the files",
    "the storage of the tables' files answers 500: they are read again.",
)
def files_500(job: Job) -> None:
    storage_refuses(job, FILE_READ, 500)


@scene(
    Fault.ERRORS_503,
    Stage.WAIT,
    "checks",
    "checks fail, two of each operation: the wait continues, and checks less often.",
)
def checks_503(job: Job) -> None:
    checks_refused(job, 503)


@scene(Fault.ERRORS_503, Stage.ARCHIVE, "results", "v3 results fail, six times each, and then are fetched.")
def results_503(job: Job) -> None:
    results_refused(job, 503)


@scene(
    Fault.ERRORS_503,
    Stage.TRANSFORM,
    "reading the archive",
    "the archive's storage answers 503: answers are read again.",
)
def archive_503(job: Job) -> None:
    storage_refuses(job, ANSWER_READ, 503)


@scene(
    Fault.ERRORS_503,
    Stage.LOAD,
    "reading the files",
    "the storage of the tables' files answers 503: they are read again.",
)
def files_503(job: Job) -> None:
    storage_refuses(job, FILE_READ, 503)
