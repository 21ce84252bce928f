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

from airflow_speechkit.archive.known_errors import on_record_for_another
from airflow_speechkit.archive.labels import LabelRecord, with_labels
from airflow_speechkit.archive.layout import (
    OPERATION_FILE,
    OUTCOME_FILE,
    RECOGNITION_FILE,
    REFUSED_PREFIX,
    ROOT_FILE,
    SUBMISSION_FILE,
    checked_fingerprint,
    forgotten_file,
    is_fingerprint,
    labels_file,
    ledger_file,
    operation_file,
    place_in_ledger,
)
from airflow_speechkit.archive.ledger import RESULTS_KEPT, Attempt, Failure, Stage
from airflow_speechkit.archive.probing import probe
from airflow_speechkit.archive.reading import damage, load, parsed, read
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
    is_tombstone,
    outcome_from_json,
    outcome_to_json,
    pack,
)
from airflow_speechkit.compressed import LARGEST_ANSWER_BYTES, Packed, inflated
from airflow_speechkit.disk import private_mode
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.models import Answer, is_operation_id
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from airflow_speechkit.models import Submission

log = logging.getLogger(__name__)

_WEIGHT = {stage: place for place, stage in enumerate(Stage)}


@dataclass(frozen=True)
class Archive:
    """What was submitted, and what was answered. Safe to share between threads.

    :param folder: where it lies; `Archive.at` makes it raise `ArchiveError`
    """

    folder: Folder

    @classmethod
    def at(cls, path: Any, mode: str | None = None) -> Archive:
        """Take an ``ObjectStoragePath``, any other ``UPath``, a ``pathlib.Path`` or a local path as a string.

        :param mode: of its files on a disk, in octal; 0640 without
        :raises SettingsError: it is none
        :raises ArchiveError: the path's filesystem can't be had
        """
        return cls(replace(Folder.at(path), fault=ArchiveError, file_mode=private_mode(mode)))

    @property
    def url(self) -> str:
        """Where it lies, for people."""
        return self.folder.url

    # Can it be relied on?

    def probe(self, now: datetime) -> None:
        """See that the archive can be read and written, and that of two who claim the same thing one loses.

        :raises ArchiveError: it can't be relied on; nothing may be submitted
        """
        probe(self.folder, now)

    # The ledger

    def attempts(self, fingerprint: str, *, refusals: bool = False) -> list[Attempt]:
        """Give what is on record under a fingerprint, with what a killed process left half done made whole.

        One listing and one read for a recording that has its answer.

        :param refusals: whether to read why attempts were refused
        :raises ArchiveError: it can't be read
        """
        newest = []
        for number, stage in self._stages(fingerprint).items():
            if stage is Stage.REFUSED and not refusals:
                newest.append(Attempt(number=number, stage=stage))
                continue
            name = ledger_file(fingerprint, number, stage)
            data = load(self.folder, name, dict)
            if data is None:  # forgotten between the listing and now
                continue
            attempt = parsed(self.folder, name, partial(attempt_from_json, number, stage, data))
            newest.append(self._completed(attempt, name, data) if stage is Stage.IN_FLIGHT else attempt)
        return newest

    def _stages(self, fingerprint: str) -> dict[int, Stage]:
        found: dict[int, Stage] = {}
        for name in self.folder.names(f"ledger/{checked_fingerprint(fingerprint)}"):
            place = place_in_ledger(name)
            if place is None:
                # Something else's: .DS_Store, a conflicting copy of a sync tool.
                continue
            number, stage = place
            before = found.get(number)
            if before is None or _WEIGHT[stage] < _WEIGHT[before]:
                found[number] = stage
        return dict(sorted(found.items()))

    def _completed(self, attempt: Attempt, name: str, data: dict[str, Any]) -> Attempt:
        entry = parsed(self.folder, name, partial(entry_from_json, data))
        operation_id, mark = entry.submission.operation_id, entry.submission.fingerprint
        place = operation_file(operation_id, SUBMISSION_FILE)
        known = self.entry(operation_id)
        if known is None:
            if self.is_forgotten(operation_id):
                return replace(attempt, stage=Stage.FORGOTTEN)
            self.folder.create(place, pack(entry_to_json(entry)))
        elif known.submission.fingerprint != mark:
            raise damage(
                f"{self.folder.url_of(name)} names an operation that {self.folder.url_of(place)} says was of "
                f"{known.submission.audio_uri}: it isn't known which operation this recording has",
                f"Remove {self.folder.url_of(name)} (a mistyped `archive adopt` wrote it); the submission is lost "
                "again then, and can be adopted or released",
                operation_id=operation_id,
                recording=entry.submission.audio_uri,
            )
        else:
            # Of two who put it on record at once, each may have written one of the two files. How old it is must be
            # the same for whoever decides by it and for `expire`.
            attempt = replace(attempt, submitted_at=known.submission.submitted_at)
        outcome = self.outcome(operation_id)
        if outcome is None:
            return attempt
        self._settle(entry, outcome)
        return replace(attempt, stage=outcome.stage, failure=outcome.failure)

    def claim(self, number: int, claim: Claim) -> bool:
        """Claim an attempt; return whether this claim holds it.

        :raises ArchiveError: the archive can't be written, or isn't there any more
        """
        if read(self.folder, ROOT_FILE) is None:
            raise ArchiveError(
                f"{self.folder.url_of(ROOT_FILE)} has gone: this isn't the archive that it was",
                hint="See whether the disk is still mounted, or the bucket still there",
                retry="goes on once it is there again",
            )
        name = ledger_file(claim.planned.fingerprint, number, Stage.CLAIMED)
        if self.folder.create(name, pack(claim_to_json(claim))):
            return True
        # A client that retries a write of its own finds it there and reports a loss.
        there = self.planned(claim.planned.fingerprint, number)
        return there is not None and there.id == claim.id

    def give_up(self, number: int, stage: Stage, claim: Claim, failure: Failure, now: datetime) -> None:
        """Put on record that a claim has led to no operation.

        :param stage: `Stage.REFUSED`: it was surely not taken, nobody has to wait for it; `Stage.LOST`: it may
            have been
        :param failure: what happened
        """
        self.folder.create(
            ledger_file(claim.planned.fingerprint, number, stage),
            pack(given_up_to_json(claim, failure, now)),
        )

    def record_submission(
        self, number: int, entry_scope: str, submission: Submission, over: Sequence[int] = ()
    ) -> None:
        """Put on record that the service has taken a recording. Again, and it changes nothing.

        :param number: the attempt
        :param entry_scope: the task instance that made it
        :param submission: with its operation id
        :param over: as in its `Claim`
        :raises ArchiveError: it can't be written, or the operation is on record for something else
        """
        entry = Entry(submission=submission, attempt=number, scope=entry_scope, over=tuple(over))
        packed = pack(entry_to_json(entry))
        place = operation_file(submission.operation_id, SUBMISSION_FILE)
        # Before anything is written: an id that belongs to another recording must not get into the ledger. Then the
        # ledger first: from it the other file can be made, but not the other way round.
        self._check_same(place, entry)
        for name in (ledger_file(submission.fingerprint, number, Stage.IN_FLIGHT), place):
            if not self.folder.create(name, packed):
                self._check_same(name, entry)

    def _check_same(self, name: str, entry: Entry) -> None:
        there, ours = load(self.folder, name, entry_from_json), entry.submission
        if there is None:
            return
        on_record = (there.submission.operation_id, there.submission.fingerprint, there.attempt)
        if on_record != (ours.operation_id, ours.fingerprint, entry.attempt):
            raise on_record_for_another(self, name, there, ours)

    def planned(self, fingerprint: str, number: int) -> Claim | None:
        """Return an attempt's claim, or None if there is none, or it was forgotten."""
        return load(
            self.folder,
            ledger_file(checked_fingerprint(fingerprint), number, Stage.CLAIMED),
            lambda data: None if is_tombstone(data) else claim_from_json(data),
        )

    def fingerprints(self) -> Iterator[str]:
        """Give every fingerprint in the ledger."""
        return filter(is_fingerprint, self.folder.folders("ledger"))

    # From an operation id to everything else

    def operations(self, prefix: str | tuple[str, ...] = "") -> Iterator[str]:
        """Give the ids on record that begin with one of these, the synthetic ones of refused recordings too."""
        return (one for one in self.folder.folders("operations") if is_operation_id(one) and one.startswith(prefix))

    def entry(self, operation_id: str) -> Entry | None:
        """Return the submission, with its first labels, and its place in the ledger, or None if it isn't on record."""
        return load(self.folder, operation_file(operation_id, SUBMISSION_FILE), entry_from_json)

    def submission(self, operation_id: str) -> Submission | None:
        """Return what was submitted, with its newest labels, or None if it isn't on record.

        :raises ArchiveError: it can't be read
        """
        entry = self.entry(operation_id)
        return None if entry is None else with_labels(entry.submission, self.label_records(operation_id))

    def label_records(self, operation_id: str) -> list[LabelRecord]:
        """Return the labels that were given after the submission: one read, and one more for each record."""
        records: list[LabelRecord] = []
        while one := load(self.folder, labels_file(operation_id, len(records) + 1), LabelRecord.from_json):
            records.append(one)
        return records

    def outcome(self, operation_id: str) -> Outcome | None:
        """Return how the operation ended, in one read, or None if that isn't on record.

        :raises ArchiveError: it can't be read
        """
        return load(self.folder, operation_file(operation_id, OUTCOME_FILE), outcome_from_json)

    def failure(self, operation_id: str) -> Failure | None:
        """Return why there is no answer, if that is on record."""
        outcome = self.outcome(operation_id)
        return None if outcome is None else outcome.failure

    def is_forgotten(self, operation_id: str) -> bool:
        """Tell whether it is on record that the operation was removed."""
        return read(self.folder, forgotten_file(operation_id)) is not None

    def answer(self, operation_id: str, most_bytes: int = LARGEST_ANSWER_BYTES) -> Answer | None:
        """Return the service's answer byte for byte, or None if none is kept.

        :param most_bytes: how large each of its files may be, inflated
        :raises AnswerUnreadableError: one is larger
        :raises ArchiveError: it can't be read, or isn't what was written
        """
        outcome = self.outcome(operation_id)
        if outcome is None or OPERATION_FILE not in outcome.files:
            return None
        return Answer(
            operation_id=operation_id,
            api_version=ApiVersion(outcome.api_version or "v2"),
            operation=self._inflated(OPERATION_FILE, outcome, most_bytes),
            recognition=(
                self._inflated(RECOGNITION_FILE, outcome, most_bytes) if RECOGNITION_FILE in outcome.files else None
            ),
        )

    def _inflated(self, file: str, outcome: Outcome, most_bytes: int) -> bytes:
        name = operation_file(outcome.operation_id, file)
        raw = read(self.folder, name)
        if raw is None or hashlib.sha256(raw).hexdigest() != outcome.files[file]["sha256"]:
            raise damage(
                f"{self.folder.url_of(name)} {'has gone' if raw is None else 'is not what was written'}",
                "Put it back from a backup if there is one; the service keeps answers for three days only",
                operation_id=outcome.operation_id,
            )
        return parsed(self.folder, name, lambda: inflated(raw, most_bytes))

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
        if entry is None and self.is_forgotten(answer.operation_id):
            return Outcome(operation_id=answer.operation_id, stage=Stage.FORGOTTEN, at=now)
        files = {}
        # The recognition first: where only one of the two gets there, it is the one that can't be had for longer.
        for file, raw in ((RECOGNITION_FILE, answer.recognition), (OPERATION_FILE, answer.operation)):
            if raw is not None:
                files[file] = self._kept(operation_file(answer.operation_id, file), raw)
        outcome = Outcome(
            operation_id=answer.operation_id,
            stage=Stage.FINISHED if failure is None else Stage.FAILED,
            at=now,
            failure=failure,
            api_version=str(answer.api_version),
            files=files,
        )
        return self._conclude(entry, outcome)

    def _kept(self, name: str, raw: bytes) -> dict[str, Any]:
        packed: bytes = raw if isinstance(raw, Packed) else gzip.compress(raw, 6, mtime=0)
        if not self.folder.create(name, packed):
            # Somebody else's, or that of a process that was killed: whole in any case, and as good as ours.
            there = read(self.folder, name)
            packed = packed if there is None else there
        about: dict[str, Any] = {"sha256": hashlib.sha256(packed).hexdigest(), "bytes": len(packed)}
        if isinstance(raw, Packed):
            log.warning("%s is larger than any answer should be, and is archived unread", self.folder.url_of(name))
            about["unread"] = True
        return about

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
        """Put a recording on record that could not be submitted; its time and labels are those of its first refusal.

        :return: an operation id that stands for it: it leads to the recording and to the reason, as a real one does
        """
        operation_id = f"{REFUSED_PREFIX}{planned.fingerprint}"
        first = known.submission if (known := self.entry(operation_id)) else planned
        ours = replace(planned, operation_id=operation_id, submitted_at=first.submitted_at, labels=first.labels)
        outcome = Outcome(operation_id=operation_id, stage=Stage.REFUSED, at=now, failure=failure)
        record = pack(entry_to_json(Entry(submission=ours, attempt=None, scope=None)))
        self.folder.replace(operation_file(operation_id, SUBMISSION_FILE), record)
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
