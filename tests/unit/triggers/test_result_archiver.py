"""When an answer is fetched, archived and deleted, and for how long: in virtual time, with an archive in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import (
    ArchiveError,
    AuthenticationError,
    ConnectionSettingsError,
    NotFinishedError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RecognitionFailedError,
    ResultExpiredError,
    ServiceFaultError,
    SpeechKitError,
)
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.triggers import result_archiver
from airflow_speechkit.triggers.result_archiver import ResultArchiver
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.triggers.results import Results, ended

V3 = ended(1, ApiVersion.V3)
FAILED = OperationState.FAILED
BROKEN = RecognitionFailedError("The result breaks off with an error", code=13)
OUTAGE = ServiceFaultError("in trouble", http_status=503)
OUT_OF_REACH = ArchiveError("out of reach")


class Access:
    """An archive in memory; writing fails with these errors at first."""

    def __init__(self) -> None:
        self.errors: Iterator[SpeechKitError] = iter(())
        self.kept: list[tuple[bytes | None, bool]] = []
        self.tries = self.reads = 0

    async def use(self, url: str, do: Callable[[object], object]) -> None:
        self.tries += 1
        if (error := next(self.errors, None)) is not None:
            raise error
        do(self)

    def outcome(self, operation_id: str) -> None:
        self.reads += 1

    def keep_operation(self, operation: Operation, recognition: bytes | None, broken: Exception | None) -> None:
        self.kept.append((recognition, broken is not None or operation.state is FAILED))


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> Access:
    made = Access()
    monkeypatch.setattr(result_archiver, "use_archive", made.use)
    return made


def archiver(*, delete: bool = True) -> ResultArchiver:
    return ResultArchiver("memory", delete_after_archiving=delete)


async def archive(results: Results, operation: Operation = V3, *, delete: bool = True) -> bool:
    return await archiver(delete=delete).archive(operation, results)  # type: ignore[arg-type]


class Pauses:
    """Virtual seconds between what happens."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    @property
    def elapsed_s(self) -> float:
        return self._loop.time() - self._began


@in_virtual_time
async def test_a_v3_result_is_fetched_archived_and_then_deleted(access: Access) -> None:
    results = Results()
    assert await archive(results, V3) is False
    assert access.kept == [(b'{"result":{}}', False)]
    assert results.deleted == [V3.id]


@pytest.mark.parametrize(
    ("version", "state"), [(ApiVersion.V2, OperationState.DONE), (ApiVersion.V2, FAILED), (ApiVersion.V3, FAILED)]
)
@in_virtual_time
async def test_all_else_is_only_archived(access: Access, version: ApiVersion, state: OperationState) -> None:
    results = Results()
    assert await archive(results, ended(1, version, state)) is (state is FAILED)
    assert access.kept == [(None, state is FAILED)]
    assert not results.fetched
    assert not results.deleted


@in_virtual_time
async def test_nothing_is_deleted_unasked_nor_where_deleting_fails_is_anything_lost(access: Access) -> None:
    results = Results()
    assert await archive(results, V3, delete=False) is False
    assert not results.deleted
    results.delete_error = OUTAGE
    assert await archive(results, V3) is False
    assert len(access.kept) == 2


@in_virtual_time
async def test_a_result_that_breaks_off_is_fetched_four_times_more_and_then_counts_as_failed(access: Access) -> None:
    results, pauses = Results([BROKEN] * 99), Pauses()
    assert await archive(results, V3) is True
    assert len(results.fetched) == 5
    assert access.kept == [(None, True)]
    assert not results.deleted
    assert 30.0 < pauses.elapsed_s < 180.0


@in_virtual_time
async def test_a_result_that_broke_off_in_a_bad_moment_is_a_result(access: Access) -> None:
    results = Results([BROKEN, BROKEN])
    assert await archive(results, V3) is False
    assert access.kept == [(b'{"result":{}}', False)]
    assert results.deleted == [V3.id]


@pytest.mark.parametrize("error", [OUTAGE, NotFinishedError("not ready")], ids=lambda one: type(one).__name__)
@in_virtual_time
async def test_a_result_that_can_not_be_had_is_tried_again_ever_later(access: Access, error: SpeechKitError) -> None:
    results, pauses = Results([error] * 6), Pauses()
    assert await archive(results, V3) is False
    assert pauses.elapsed_s == 5 + 10 + 20 + 40 + 80 + 160
    assert access.kept == [(b'{"result":{}}', False)]


@pytest.mark.parametrize(
    ("error", "least", "least_s"),
    [
        (OUTAGE, 8, 3600.0),
        (PermissionDeniedError("no", http_status=403), 5, 600.0),
        (AuthenticationError("no", http_status=401), 5, 600.0),
    ],
    ids=lambda one: type(one).__name__,
)
@in_virtual_time
async def test_a_result_is_given_up_after_as_many_errors_as_a_check(
    access: Access, error: SpeechKitError, least: int, least_s: float
) -> None:
    results, pauses = Results([error] * 99), Pauses()
    with pytest.raises(type(error)):
        await archive(results, V3)
    assert len(results.fetched) >= least
    assert least_s <= pauses.elapsed_s <= least_s + 300.0


@in_virtual_time
async def test_a_key_refused_once_after_an_outage_gives_up_nothing(access: Access) -> None:
    refused = PermissionDeniedError("no", http_status=403)
    assert await archive(Results([*[OUTAGE] * 10, refused, OUTAGE]), V3) is False


@in_virtual_time
async def test_a_quota_is_waited_for_as_long_as_the_service_says_and_however_often(access: Access) -> None:
    results, pauses = Results([QuotaExceededError("used up", retry_after_s=600.0)] * 20), Pauses()
    assert await archive(results, V3) is False
    assert pauses.elapsed_s == 20 * 600.0


@pytest.mark.parametrize(
    "error",
    [
        ResultExpiredError("gone"),
        OperationNotFoundError("unknown", http_status=404),
        ConnectionSettingsError("no such connection"),
    ],
    ids=lambda one: type(one).__name__,
)
@in_virtual_time
async def test_what_can_not_pass_is_raised_at_once(access: Access, error: SpeechKitError) -> None:
    results = Results([error])
    with pytest.raises(type(error)):
        await archive(results, V3)
    assert len(results.fetched) == 1


class TestAnArchiveThatCannotBeWritten:
    @pytest.mark.parametrize("operation", [ended(1), V3, ended(1, state=FAILED)], ids=["v2", "v3", "failed"])
    @in_virtual_time
    async def test_ends_the_try_at_once(self, access: Access, operation: Operation) -> None:
        results, pauses = Results(), Pauses()
        access.errors = iter([OUT_OF_REACH])
        with pytest.raises(ArchiveError):
            await archive(results, operation)
        assert pauses.elapsed_s == 0.0
        assert not results.deleted
        assert await archive(results, operation) is (operation.state is FAILED)
        assert len(access.kept) == 1

    @in_virtual_time
    async def test_is_read_again_until_it_is_back(self, access: Access) -> None:
        pauses = Pauses()
        access.errors = iter([OUT_OF_REACH] * 6)
        await archiver().until_back("e031", OUT_OF_REACH)
        assert access.tries == 7
        assert 300.0 < pauses.elapsed_s < 700.0

    @in_virtual_time
    async def test_is_given_up_after_as_many_errors_as_a_check_though_it_can_be_read(self, access: Access) -> None:
        subject, pauses = archiver(), Pauses()
        drops = 0

        async def drop_answers() -> None:
            nonlocal drops
            while True:
                drops += 1
                await subject.until_back("e031", OUT_OF_REACH)

        with pytest.raises(ArchiveError):
            await drop_answers()
        assert drops >= 8
        assert access.reads == drops - 1
        assert 3600.0 <= pauses.elapsed_s <= 4300.0

    @in_virtual_time
    async def test_begins_to_count_anew_after_an_answer_that_was_archived(self, access: Access) -> None:
        subject, results = archiver(), Results()
        for _ in range(20):
            await subject.until_back("e031", OUT_OF_REACH)
            assert await subject.archive(ended(1), results) is False  # type: ignore[arg-type]

    @in_virtual_time
    async def test_and_does_not_come_back_by_itself_is_raised_at_once(self, access: Access) -> None:
        with pytest.raises(ArchiveError):
            await archiver().until_back("e031", ArchiveError("damaged", retry_can_help=False))
        assert access.tries == 0
