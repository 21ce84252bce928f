"""The archive: what was submitted, and the raw answers, in a folder on a disk or in a bucket.

`archive.layout` says which file lies where. Each file is written once, at once, by whoever comes first; only an
expiry and refusals are ever replaced. So a process can be killed between any two writes, and two can write at the same
moment.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.layout import (
    OPERATION_FILE,
    OUTCOME_FILE,
    RECOGNITION_FILE,
    REFUSED_PREFIX,
    ROOT_FILE,
    SUBMISSION_FILE,
    checked_fingerprint,
    forgotten_file,
    ledger_file,
    operation_file,
)
from airflow_speechkit.archive.ledger import RESULTS_KEPT, Attempt, Failure, Stage
from airflow_speechkit.archive.records import (
    Claim,
    Entry,
    Outcome,
    attempt_from_json,
    attempt_to_json,
    claim_from_json,
    claim_to_json,
    entry_from_json,
    entry_to_json,
    given_up_to_json,
    outcome_from_json,
    outcome_to_json,
    pack,
    unpack,
)
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.folder import Folder
from airflow_speechkit.results.answer import Answer
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import TypeVar

    from airflow_speechkit.submission import Submission

    _T = TypeVar("_T")

log = logging.getLogger(__name__)

_WEIGHT = {stage: place for place, stage in enumerate(Stage)}


@dataclass(frozen=True)
class Archive:
    """What was submitted, and what was answered. Safe to share between threads.

    :param folder: where it lies; `Archive.at` makes it raise `ArchiveError`
    """

    folder: Folder

    @classmethod
    def at(cls, path: Any) -> Archive:
        """Take an ``ObjectStoragePath``, any other ``UPath``, a ``pathlib.Path`` or a local path as a string.

        :raises ArchiveError: the path's filesystem can't be had
        """
        return cls(replace(Folder.at(path), fault=ArchiveError))

    @property
    def url(self) -> str:
        """Where it lies, for people."""
        return self.folder.url

    # Can it be relied on?

    def probe(self, now: datetime) -> None:
        """See that the archive can be read and written, and that of two who claim the same thing one loses.

        :raises ArchiveError: it can't be relied on; nothing may be submitted
        """
        if self._read(ROOT_FILE) is None and self.folder.create(ROOT_FILE, pack({"created_at": now.isoformat()})):
            log.warning(
                "A new archive begins at %s. If there should be one already, stop here: without it everything "
                "is paid for again",
                self.url,
            )
        root = self._read(ROOT_FILE)
        if root is not None:
            self._parsed(ROOT_FILE, lambda: unpack(root, self.folder.url_of(ROOT_FILE)))
        # The root's own bytes, so that nothing is lost where this does overwrite; and no file of its own, which
        # would have to be deleted: the role that may write objects (storage.uploader) may not do that.
        if root is None or self.folder.create(ROOT_FILE, root):
            raise ArchiveError(
                f"The store under {self.url} lets a second writer overwrite the first: two runs would both pay",
                todo="Keep the archive on a local disk, or in a bucket whose store honours `If-None-Match: *` "
                "(Object Storage and S3 do)",
                retry_can_help=False,
            )

    # The ledger

    def attempts(self, fingerprint: str) -> list[Attempt]:
        """Give what is on record under a fingerprint, with what a killed process left half done made whole.

        One listing and one read for a recording that has its answer.

        :raises ArchiveError: it can't be read
        """
        newest = []
        for number, stage in self._stages(fingerprint).items():
            if stage is Stage.REFUSED:
                newest.append(Attempt(number=number, stage=stage))
                continue
            data = self._load(ledger_file(fingerprint, number, stage), dict)
            if data is None:
                # Forgotten between the listing and now.
                continue
            attempt = self._parsed(
                ledger_file(fingerprint, number, stage), partial(attempt_from_json, number, stage, data)
            )
            newest.append(self._completed(attempt, data) if stage is Stage.IN_FLIGHT else attempt)
        return newest

    def _stages(self, fingerprint: str) -> dict[int, Stage]:
        found: dict[int, Stage] = {}
        for name in self.folder.names(f"ledger/{checked_fingerprint(fingerprint)}"):
            number, stage = name.rsplit("/", 1)[-1].split(".")[:2]
            one = Stage(stage)
            before = found.get(int(number))
            if before is None or _WEIGHT[one] < _WEIGHT[before]:
                found[int(number)] = one
        return dict(sorted(found.items()))

    def _completed(self, attempt: Attempt, data: dict[str, Any]) -> Attempt:
        operation_id = attempt.operation_id or ""
        present = {name.rsplit("/", 1)[-1] for name in self.folder.names(operation_file(operation_id))}
        entry = self._parsed(operation_file(operation_id, SUBMISSION_FILE), partial(entry_from_json, data))
        if SUBMISSION_FILE not in present:
            self.folder.create(operation_file(operation_id, SUBMISSION_FILE), pack(entry_to_json(entry)))
        outcome = self.outcome(operation_id) if OUTCOME_FILE in present else None
        if outcome is None:
            return attempt
        self._settle(entry, outcome)
        return replace(attempt, stage=outcome.stage, failure=outcome.failure)

    def claim(self, number: int, claim: Claim) -> bool:
        """Claim an attempt; return whether this claim holds it.

        :raises ArchiveError: the archive can't be written, or isn't there any more
        """
        if self._read(ROOT_FILE) is None:
            raise ArchiveError(
                f"{self.folder.url_of(ROOT_FILE)} has gone: this isn't the archive that it was",
                todo="See whether the disk is still mounted, or the bucket still there",
            )
        name = ledger_file(claim.planned.fingerprint, number, Stage.CLAIMED)
        if self.folder.create(name, pack(claim_to_json(claim))):
            return True
        # A client that retries a write of its own finds it there and reports a loss.
        there = self._load(name, claim_from_json)
        return there is not None and there.id == claim.id

    def give_up(self, number: int, stage: Stage, claim: Claim, failure: Failure, now: datetime) -> None:
        """Put on record that a claim has led to no operation.

        :param stage: `Stage.REFUSED`: it was surely not taken, nobody has to wait for it; `Stage.LOST`: it may
            have been
        :param failure: what happened
        """
        self.folder.create(
            ledger_file(claim.planned.fingerprint, number, stage),
            pack(given_up_to_json(claim.scope, claim.owner, failure, now)),
        )

    def record_submission(self, number: int, entry_scope: str, submission: Submission) -> None:
        """Put on record that the service has taken a recording. Again, and it changes nothing.

        :param number: the attempt
        :param entry_scope: the task instance that made it
        :param submission: with its operation id
        :raises ArchiveError: it can't be written, or the operation is on record for something else
        """
        entry = Entry(submission=submission, attempt=number, scope=entry_scope)
        packed = pack(entry_to_json(entry))
        name = ledger_file(submission.fingerprint, number, Stage.IN_FLIGHT)
        operation_file(submission.operation_id)
        for place in (name, operation_file(submission.operation_id, SUBMISSION_FILE)):
            if not self.folder.create(place, packed):
                there = self._load(place, entry_from_json)
                if there is not None and (
                    there.submission.operation_id != submission.operation_id
                    or there.submission.fingerprint != submission.fingerprint
                ):
                    raise ArchiveError(
                        f"{self.folder.url_of(place)} says something else than that operation "
                        f"{submission.operation_id} was submitted here",
                        recording=submission.audio_uri,
                        operation_id=submission.operation_id,
                    )

    def planned(self, fingerprint: str, number: int) -> Claim | None:
        """Return an attempt's claim, or None if there is none."""
        return self._load(ledger_file(checked_fingerprint(fingerprint), number, Stage.CLAIMED), claim_from_json)

    def fingerprints(self) -> Iterator[str]:
        """Give every fingerprint in the ledger."""
        return self.folder.folders("ledger")

    # From an operation id to everything else

    def operations(self, prefix: str = "") -> Iterator[str]:
        """Give the ids of all operations on record, the synthetic ones of refused recordings too."""
        return (one for one in self.folder.folders("operations") if one.startswith(prefix))

    def entry(self, operation_id: str) -> Entry | None:
        """Return the submission and its place in the ledger, or None if it isn't on record."""
        return self._load(operation_file(operation_id, SUBMISSION_FILE), entry_from_json)

    def submission(self, operation_id: str) -> Submission | None:
        """Return what was submitted, or None if it isn't on record.

        :raises ArchiveError: it can't be read
        """
        entry = self.entry(operation_id)
        return None if entry is None else entry.submission

    def outcome(self, operation_id: str) -> Outcome | None:
        """Return how the operation ended, in one read, or None if that isn't on record.

        :raises ArchiveError: it can't be read
        """
        return self._load(operation_file(operation_id, OUTCOME_FILE), outcome_from_json)

    def failure(self, operation_id: str) -> Failure | None:
        """Return why there is no answer, or None if there is one, or none yet."""
        outcome = self.outcome(operation_id)
        return None if outcome is None else outcome.failure

    def answer(self, operation_id: str) -> Answer | None:
        """Return the service's answer byte for byte, or None if none is kept.

        :raises ArchiveError: it can't be read, or isn't what was written
        """
        outcome = self.outcome(operation_id)
        if outcome is None or OPERATION_FILE not in outcome.files:
            return None
        return Answer(
            operation_id=operation_id,
            api_version=ApiVersion(outcome.api_version or "v2"),
            operation=self._unzipped(operation_id, OPERATION_FILE, outcome),
            recognition=(
                self._unzipped(operation_id, RECOGNITION_FILE, outcome) if RECOGNITION_FILE in outcome.files else None
            ),
        )

    def _unzipped(self, operation_id: str, file: str, outcome: Outcome) -> bytes:
        name = operation_file(operation_id, file)
        raw = self._read(name)
        if raw is None or hashlib.sha256(raw).hexdigest() != outcome.files[file]["sha256"]:
            raise _damage(
                f"{self.folder.url_of(name)} {'has gone' if raw is None else 'is not what was written'}",
                "Put it back from a backup if there is one; the service keeps answers for three days only",
                operation_id,
            )
        return gzip.decompress(raw)

    # How operations end

    def keep(self, answer: Answer, failure: Failure | None = None, *, now: datetime) -> Outcome:
        """Keep an answer. Once this returns it is safe; again, or by two at once, changes nothing.

        :param answer: of an operation that has ended
        :param failure: the operation's error, if it ended in one
        :param now: UTC
        :return: what is on record now: the first one that was kept
        :raises ArchiveError: it can't be written; nothing half-written counts
        """
        if answer.api_version == ApiVersion.V3 and failure is None and answer.recognition is None:
            raise ValueError("an answer of API v3 without its recognition")
        entry = self.entry(answer.operation_id)
        if entry is None and self._read(forgotten_file(answer.operation_id)) is not None:
            return Outcome(operation_id=answer.operation_id, stage=Stage.FORGOTTEN, at=now)
        files = {}
        # The recognition first: where only one of the two gets there, it is the one that can't be had for longer.
        for file, raw in ((RECOGNITION_FILE, answer.recognition), (OPERATION_FILE, answer.operation)):
            if raw is not None:
                files[file] = self._kept(operation_file(answer.operation_id, file), gzip.compress(raw, 6, mtime=0))
        outcome = Outcome(
            operation_id=answer.operation_id,
            stage=Stage.FINISHED if failure is None else Stage.FAILED,
            at=now,
            failure=failure,
            api_version=str(answer.api_version),
            files=files,
        )
        return self._conclude(entry, outcome)

    def _kept(self, name: str, packed: bytes) -> dict[str, Any]:
        if not self.folder.create(name, packed):
            # Somebody else's, or that of a process that was killed: whole in any case, and as good as ours.
            there = self._read(name)
            packed = packed if there is None else there
        return {"sha256": hashlib.sha256(packed).hexdigest(), "bytes": len(packed)}

    def expire(self, operation_id: str, now: datetime) -> bool:
        """Put on record that the service has forgotten an operation (404) of which no answer is kept.

        An operation younger than the service keeps its results can't have been forgotten: its 404 means a wrong
        connection or folder, and stays off the record, or the recording would be paid for again.

        :return: whether it is on record as expired now
        """
        entry = self.entry(operation_id)
        if entry is None or now - entry.submission.submitted_at < RESULTS_KEPT:
            return False
        failure = Failure(5, "the service has forgotten the result, and no answer was archived in its three days")
        outcome = Outcome(operation_id=operation_id, stage=Stage.EXPIRED, at=now, failure=failure)
        return self._conclude(entry, outcome).stage is Stage.EXPIRED

    def refuse(self, planned: Submission, failure: Failure, now: datetime) -> str:
        """Put a recording on record that could not be submitted.

        :param planned: its `operation_id` doesn't matter
        :return: an operation id that stands for it: it leads to the recording and to the reason, as a real one does
        """
        operation_id = f"{REFUSED_PREFIX}{planned.fingerprint}"
        entry = Entry(submission=replace(planned, operation_id=operation_id), attempt=None, scope=None)
        outcome = Outcome(operation_id=operation_id, stage=Stage.REFUSED, at=now, failure=failure)
        self.folder.replace(operation_file(operation_id, SUBMISSION_FILE), pack(entry_to_json(entry)))
        self.folder.replace(operation_file(operation_id, OUTCOME_FILE), pack(outcome_to_json(outcome)))
        return operation_id

    def _conclude(self, entry: Entry | None, outcome: Outcome) -> Outcome:
        name = operation_file(outcome.operation_id, OUTCOME_FILE)
        if not self.folder.create(name, pack(outcome_to_json(outcome))):
            there = self.outcome(outcome.operation_id)
            if there is not None and there.stage is Stage.EXPIRED and outcome.stage is not Stage.EXPIRED:
                self.folder.replace(name, pack(outcome_to_json(outcome)))
            elif there is not None:
                outcome = there
        if entry is not None:
            self._settle(entry, outcome)
        return outcome

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if entry.attempt is not None:
            self.folder.create(
                ledger_file(entry.submission.fingerprint, entry.attempt, outcome.stage),
                pack(attempt_to_json(entry, outcome)),
            )

    # Reading

    def _read(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name)
        except FileNotFoundError:
            return None

    def _load(self, name: str, build: Callable[[dict[str, Any]], _T]) -> _T | None:
        raw = self._read(name)
        if raw is None:
            return None
        return self._parsed(name, lambda: build(unpack(raw, self.folder.url_of(name))))

    def _parsed(self, name: str, build: Callable[[], _T]) -> _T:
        try:
            return build()
        except (KeyError, TypeError, ValueError) as error:
            raise _damage(
                f"{self.folder.url_of(name)} is damaged: {type(error).__name__}",
                "Look at it with your own eyes, and put it back from a backup if there is one",
            ) from error


def _damage(what: str, todo: str, operation_id: str | None = None) -> ArchiveError:
    # An archive that can't be reached may be there again in a minute; a file that is broken stays so.
    return ArchiveError(what, todo=todo, operation_id=operation_id, retry_can_help=False)
