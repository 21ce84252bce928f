"""The service behind the endpoints: accepts recognitions, completes them in time, and deletes them later."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from speechkit_emulator import v2, v3
from speechkit_emulator.audio import Facts, UndecodableError, measure, wrong_container
from speechkit_emulator.bounds import LATEST_S, BadValueError
from speechkit_emulator.clock import ScaledClock, timestamp
from speechkit_emulator.operation import Operation, State, billed_seconds, new_id
from speechkit_emulator.quota import Quota
from speechkit_emulator.refusal import CANCELLED, INTERNAL, NOT_FOUND, RESOURCE_EXHAUSTED, RefusedError
from speechkit_emulator.request import Request, invalid
from speechkit_emulator.seeds import Seed, Seeds
from speechkit_emulator.storage import NoSuchObjectError, NotALinkError, Storage, find_object
from speechkit_emulator.transcript import (
    SUFFIX,
    Failure,
    Transcript,
    TranscriptError,
    no_transcript,
    read_transcript,
    transcript_from,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from speechkit_emulator.credentials import Credentials
    from speechkit_emulator.options import Options
    from speechkit_emulator.recogniser import Recogniser
    from speechkit_emulator.store import Store

log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000_000


class Service:
    """The emulated service.

    :param store: the state that is kept across restarts
    """

    def __init__(
        self, options: Options, store: Store, credentials: Credentials, storage: Storage, recogniser: Recogniser
    ) -> None:
        self.options = options
        self.store = store
        self.credentials = credentials
        self._storage = storage
        self._recogniser = recogniser
        self.seeds = Seeds()
        self.clock = self._start_clock()
        self.submits = Quota(options.submits_per_hour, 3600)
        self.v2_checks = Quota(options.v2_checks_per_hour, 3600)
        self.v3_checks = Quota(options.v3_checks_per_second, 1)
        self.operations = {operation.id: operation for operation in store.operations()}
        self._hearing = asyncio.Semaphore(options.recognisers)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def _start_clock(self) -> ScaledClock:
        wall_s = time.time()
        kept = self.store.fact("clock")
        if kept is None:
            clock = ScaledClock(self.options.speed, wall_s, wall_s)
        else:
            clock = ScaledClock(**kept).at_speed(self.options.speed, wall_s)
        return self._keep_clock(clock)

    def _keep_clock(self, clock: ScaledClock) -> ScaledClock:
        self.clock = clock
        self.store.put_fact("clock", {"speed": clock.speed, "wall_s": clock.wall_s, "service_s": clock.service_s})
        return clock

    def advance(self, seconds: float) -> None:
        """Advance the clock.

        :param seconds: of service time
        :raises BadValueError: if the clock would pass its last date
        """
        if self.now() + seconds > LATEST_S:
            raise BadValueError(f"the service's time ends at {timestamp(LATEST_S)}: advance it by less")
        self._keep_clock(self.clock.advanced(seconds))

    def now(self) -> float:
        """The service's time."""
        return self.clock.at(time.time())

    def resume(self) -> None:
        """Resume the recognitions that the previous process did not finish."""
        for operation in self.operations.values():
            if operation.settled_s is None:
                self._start(operation)

    async def close(self) -> None:
        """Stop the running recognitions; the next process resumes them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(
        self,
        request: Request,
        content: bytes | None = None,
        *,
        client_request_id: str | None = None,
        failure: Failure | None = None,
        flaws: tuple[str, ...] = (),
    ) -> Operation:
        """Accept a recognition.

        :param content: the recording, if it was sent inline
        :param client_request_id: the request's ``x-client-request-id``
        :param failure: the planned error of the operation, if any
        :param flaws: kinds of faults in its result
        :raises RefusedError: if the service would refuse the request
        """
        if not self.submits.take(self.now()):
            raise RefusedError(
                RESOURCE_EXHAUSTED,
                f"ai.speechkitSttLongRunning.count rate quota limit exceed: allowed {self.submits.limit} requests",
            )
        if content is None:
            facts, transcript = await self._look_at_link(request)
        else:
            facts, transcript = await self._look_at_content(request, content)
        channels = facts.channels if facts is not None else request.channels or 1
        duration_ms = facts.duration_ms if facts is not None else None
        self._check_length(request, duration_ms, channels)
        now = self.now()
        operation = Operation(
            id=new_id(request.api),
            request=request,
            created_by=self.credentials.service_account_id,
            created_s=now,
            due_s=now + self._processing_s(request, transcript, duration_ms or 0, channels),
            duration_ms=duration_ms,
            channels=channels,
            billed_seconds=billed_seconds(duration_ms or 0, channels),
            failure=failure,
            client_request_id=client_request_id,
            result_flaws=flaws,
        )
        if content is not None:
            self.store.put_recording(operation.id, content)
        if failure is not None:
            operation.settled_s = now
        elif transcript is not None:
            self._settle(operation, transcript)
        self.add([operation])
        if operation.settled_s is None:
            self._start(operation)
        return operation

    def add(self, operations: Iterable[Operation]) -> None:
        """Store operations."""
        operations = list(operations)
        self.store.put_operations(operations)
        self.operations.update((operation.id, operation) for operation in operations)

    async def _look_at_link(self, request: Request) -> tuple[Facts | None, Transcript | None]:
        try:
            bucket, key = find_object(request.link or "", self._storage.url)
        except NotALinkError as error:
            raise invalid(f"audio uri: {error}") from error
        try:
            found = await asyncio.to_thread(self._storage.look, bucket, key)
        except NoSuchObjectError as error:
            raise invalid("audio uri: the object was not found or can't be read") from error
        except Exception as error:
            log.warning("The bucket can't be read: %s", type(error).__name__)
            raise RefusedError(INTERNAL, "failed to read the audio from Object Storage") from error
        if found.size > MAX_BYTES:
            raise invalid("audio is larger than 1 GB")
        if wrong := wrong_container(found.head, request.encoding):
            raise invalid(wrong)
        content: bytes | None = None
        try:
            if self.seeds.need_content:
                content = await asyncio.to_thread(self._storage.read, bucket, key)
            seed = self.seeds.find(key, content)
            transcript = await self._transcript_beside(bucket, key) if seed is None else _seeded(seed)
            if content is None and (transcript is None or transcript.duration_ms is None):
                content = await asyncio.to_thread(self._storage.read, bucket, key)
        except NoSuchObjectError as error:
            raise invalid("audio uri: the object was not found") from error
        return await self._facts(request, transcript, content)

    async def _look_at_content(self, request: Request, content: bytes) -> tuple[Facts | None, Transcript | None]:
        if wrong := wrong_container(content[:64], request.encoding):
            raise invalid(wrong)
        seed = self.seeds.find(None, content)
        return await self._facts(request, None if seed is None else _seeded(seed), content)

    async def _facts(
        self, request: Request, transcript: Transcript | None, content: bytes | None
    ) -> tuple[Facts | None, Transcript | None]:
        """The facts of a recording, and its transcript (or an error if it does not fit the recording)."""
        if transcript is not None and transcript.duration_ms is not None:
            facts = Facts(transcript.duration_ms, request.channels or max(1, transcript.channels))
        else:
            try:
                facts = await asyncio.to_thread(
                    measure, content or b"", request.encoding, request.sample_rate, request.channels
                )
            except UndecodableError:
                return None, transcript
        if transcript is not None and transcript.channels > facts.channels:
            transcript = _unfit(f"it has {transcript.channels} channels, and the recording has {facts.channels}")
        return facts, transcript

    async def _transcript_beside(self, bucket: str, key: str) -> Transcript | None:
        try:
            content = await asyncio.to_thread(self._storage.read, bucket, key + SUFFIX)
        except NoSuchObjectError:
            return None
        try:
            return read_transcript(content)
        except TranscriptError as error:
            return _unfit(str(error))

    def _check_length(self, request: Request, duration_ms: int | None, channels: int) -> None:
        most_hours = self.options.max_hours
        if duration_ms is not None and duration_ms * channels > most_hours * 3_600_000:
            raise invalid(f"audio is longer than {most_hours:g} hours (the sum of all channels)")
        if request.speaker_labels and channels > 1:
            raise invalid("speaker labeling is supported for one-channel audio only")

    def _processing_s(self, request: Request, transcript: Transcript | None, duration_ms: int, channels: int) -> float:
        if transcript is not None and transcript.processing_s is not None:
            return transcript.processing_s
        seconds = duration_ms / 60_000 * channels * self.options.seconds_a_minute
        return seconds + (self.options.deferred_delay_s if request.deferred else 0.0)

    def _start(self, operation: Operation) -> None:
        task = asyncio.create_task(self._recognise(operation))
        self._tasks[operation.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation.id, None))

    async def _recognise(self, operation: Operation) -> None:
        transcript = await self._hear(operation)
        if operation.settled_s is None:
            self._settle(operation, transcript)
            self.store.put_operations([operation])
            self.store.delete_recording(operation.id)

    async def _hear(self, operation: Operation) -> Transcript:
        request = operation.request
        try:
            content = self.store.recording(operation.id)
            if content is None:
                bucket, key = find_object(request.link or "", self._storage.url)
                transcript = await self._transcript_beside(bucket, key)
                if transcript is not None:
                    return transcript
            if not request.english:
                return self._of_unknown_language(request)
            async with self._hearing:
                if content is None:
                    content = await asyncio.to_thread(self._storage.read, bucket, key)
                utterances = await self._recogniser.hear(
                    content, request.encoding, request.sample_rate, request.channels
                )
            utterances.sort(key=lambda utterance: (utterance.end_ms, utterance.channel))
            return Transcript(tuple(utterances))
        except NoSuchObjectError:
            return Transcript(error=Failure(NOT_FOUND, "The recording was removed from the bucket"))
        except UndecodableError:
            return Transcript(error=Failure(INTERNAL, "Internal server error"))
        except Exception:
            log.exception("Recognition of operation %s failed", operation.id)
            return Transcript(error=Failure(INTERNAL, "Internal server error"))

    def _of_unknown_language(self, request: Request) -> Transcript:
        answer = self.options.unknown_language
        if answer == "error":
            found = find_object(request.link, self._storage.url) if request.link else None
            return Transcript(error=no_transcript(found, request.languages))
        return transcript_from({} if answer == "silence" else {"utterances": [{"text": answer}]})

    def _settle(self, operation: Operation, transcript: Transcript) -> None:
        operation.settled_s = self.now()
        operation.failure = transcript.error
        if transcript.error is None:
            operation.result_id = operation.id
            self.store.put_result(operation.id, self._render(operation, transcript))

    def _render(self, operation: Operation, transcript: Transcript) -> bytes:
        request, flaws = operation.request, operation.result_flaws
        if request.api == "v2":
            return v2.render_response(transcript, request, flaws)
        return v3.render_recognition(transcript, request, operation.id, operation.duration_ms or 0, flaws)

    def find(self, operation_id: str) -> Operation:
        """An operation.

        :raises RefusedError: 404 if it does not exist or its retention has ended
        """
        operation = self.operations.get(operation_id)
        if operation is None:
            raise RefusedError(NOT_FOUND, f"Operation {operation_id} not found")
        if operation.expired(self.now(), self.options.retention_s):
            if operation.result_id == operation.id:
                self.store.delete_result(operation.id)
                operation.result_id = None
                self.store.put_operations([operation])
            raise RefusedError(NOT_FOUND, f"Operation {operation_id} not found")
        return operation

    def check(self, operation_id: str) -> Operation:
        """An operation; counts as a check.

        :raises RefusedError: 404, or 429 if the quota of checks is used up
        """
        quota = self.v3_checks if operation_id.startswith("f8d") else self.v2_checks
        if not quota.take(self.now()):
            raise RefusedError(
                RESOURCE_EXHAUSTED,
                f"ai.speechkitSttOperationGet.count rate quota limit exceed: allowed {quota.limit} requests",
            )
        return self.find(operation_id)

    def cancel(self, operation_id: str) -> Operation:
        """Cancel an operation; a finished one is not changed."""
        operation = self.find(operation_id)
        now = self.now()
        if operation.state(now) is State.RUNNING:
            operation.settled_s = now
            operation.cancelled = True
            operation.failure = Failure(CANCELLED, "Operation was cancelled")
            if task := self._tasks.get(operation_id):
                task.cancel()
            self.add([operation])
        return operation

    def recognition(self, operation_id: str) -> bytes:
        """The result of a v3 operation.

        :raises RefusedError: 404 if it is not ready or was deleted
        """
        operation = self.find(operation_id)
        if operation.request.api != "v3" or operation.result_deleted:
            raise RefusedError(NOT_FOUND, f"operation {operation_id} not found")
        if operation.state(self.now()) is not State.DONE or operation.result_id is None:
            raise not_ready(operation_id)
        return self.store.result(operation.result_id) or b""

    def delete_recognition(self, operation_id: str) -> None:
        """Delete the result of a v3 operation.

        :raises RefusedError: 404 if it has none
        """
        self.recognition(operation_id)
        operation = self.operations[operation_id]
        operation.result_deleted = True
        if operation.result_id == operation_id:
            self.store.delete_result(operation_id)
        self.add([operation])

    def stand_ins(self, model: Operation, count: int, result: bytes, spread_s: float) -> list[Operation]:
        """Store `count` copies of an operation, which share one result.

        :param spread_s: the copies are done one after the other, over so much service time
        """
        result_id = f"shared-{model.id}"
        self.store.put_result(result_id, result)
        copies = [
            replace(
                model,
                id=new_id(model.request.api),
                result_id=None if model.failure else result_id,
                due_s=model.due_s + spread_s * number / count,
            )
            for number in range(count)
        ]
        self.add(copies)
        return copies


def _seeded(seed: Seed) -> Transcript:
    seed.used += 1
    return seed.transcript


def _unfit(why: str) -> Transcript:
    return Transcript(error=Failure(INTERNAL, f"The emulator can't use the recording's transcript: {why}"))


def not_ready(operation_id: str) -> RefusedError:
    """The error for a v3 result that is not ready."""
    return RefusedError(NOT_FOUND, f"operation data is not ready {operation_id}")
