"""The archive: what was submitted, and the raw answers, in a folder on a disk or in a bucket.

`archive.layout` lists the files. Each is written once, as a whole, by the first writer; only expiries and refusals are
replaced. So processes can be killed between any two writes, and write at the same moment.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.operation import OperationState
from airflow_speechkit.archive import layout
from airflow_speechkit.archive.layout import load, pack, parsed, read
from airflow_speechkit.archive.ledger import RESULTS_KEPT, Attempt, AttemptState, Failure
from airflow_speechkit.archive.records import (
    AnswerFile,
    AttemptEnd,
    Claim,
    Entry,
    LabelRecord,
    Outcome,
    is_tombstone,
    labelled,
    read_attempt,
)
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.models import Answer, is_operation_id
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage import Folder
from airflow_speechkit.storage.compressed import LARGEST_ANSWER_BYTES, Packed, inflated
from airflow_speechkit.storage.disk import private_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.errors import RecognitionFailedError
    from airflow_speechkit.models import Submission

log = logging.getLogger(__name__)

_WEIGHT = {state: place for place, state in enumerate(AttemptState)}


@dataclass(frozen=True)
class Archive:
    """What was submitted, and what was answered. Safe to share between threads.

    :param folder: where it lies; `Archive.at` makes it raise `ArchiveError`
    """

    folder: Folder

    @classmethod
    def at(cls, path: Any, mode: str | None = None) -> Archive:
        """Open the archive at an ``ObjectStoragePath``, any other ``UPath``, a ``pathlib.Path`` or a local path.

        :param mode: of its files on a disk, in octal; 0640 by default
        :raises SettingsError: the mode is invalid
        :raises ArchiveError: the path's filesystem cannot be opened
        """
        return cls(replace(Folder.at(path), fault=ArchiveError, file_mode=private_mode(mode)))

    @property
    def url(self) -> str:
        """Where it lies, for people."""
        return self.folder.url

    def probe(self, now: datetime, *, is_trial: bool = False) -> None:
        """Check that the archive can be read and written, and that the second of two exclusive writers fails.

        :param is_trial: don't create an archive, and remove what is written, where that is allowed
        :raises ArchiveError: it cannot be relied on; nothing may be submitted
        """
        root = pack({"created_at": now})
        is_new = load(self.folder, layout.ROOT_FILE, dict) is None
        if is_new and not is_trial and self.folder.create(layout.ROOT_FILE, root):
            log.warning(
                "A new archive is created at %s. If there should be one already, stop here: without it everything is "
                "paid for again",
                self.url,
            )
        # Among the claims, where other rules and disks may apply. It stays: the role storage.uploader may not delete.
        is_removed = is_trial and not self.folder.exists(layout.PROBE_FILE)
        try:
            if all(self.folder.create(layout.PROBE_FILE, root) for _ in range(2)):
                raise ArchiveError(
                    f"The store at {self.url} lets a second writer overwrite the first: two runs would both pay",
                    hint="Keep the archive on a local disk, or in a bucket whose store honours `If-None-Match: *` "
                    "(Object Storage and S3 do)",
                    retry="fails in the same way",
                    retry_can_help=False,
                )
        finally:
            if is_removed:
                with suppress(ArchiveError):
                    self.folder.delete(layout.PROBE_FILE)
                    for name in ("ledger", ""):
                        self.folder.prune(name)

    def attempts(self, fingerprint: str) -> list[Attempt]:
        """Return what is on record under a fingerprint, and complete what a killed process left half done.

        :raises ArchiveError: the archive cannot be read
        """
        found: list[Attempt] = []
        for number, state in self._states(fingerprint).items():
            if state is AttemptState.REFUSED:  # nothing in the file matters to a decision
                found.append(Attempt(number=number, state=state))
                continue
            name = layout.ledger_file(fingerprint, number, state)
            attempt, record = load(self.folder, name, partial(read_attempt, number, state)) or (None, None)
            if attempt is not None:  # else it was deleted since the listing
                found.append(self._completed(attempt, record) if isinstance(record, Entry) else attempt)
        return found

    def _states(self, fingerprint: str) -> dict[int, AttemptState]:
        found: dict[int, AttemptState] = {}
        for name in self.folder.names(layout.ledger_folder(fingerprint)):
            # Other files may lie there too: .DS_Store, a conflicting copy of a sync tool.
            if place := layout.place_in_ledger(name):
                number, state = place
                found[number] = min(found.get(number, state), state, key=_WEIGHT.__getitem__)
        return dict(sorted(found.items()))

    def _completed(self, attempt: Attempt, entry: Entry) -> Attempt:
        operation_id = entry.submission.operation_id
        place, known = layout.operation_file(operation_id, layout.SUBMISSION_FILE), self.entry(operation_id)
        if known is None:
            if self.is_forgotten(operation_id):  # by a deletion that runs meanwhile
                return replace(attempt, state=AttemptState.FORGOTTEN)
            self.folder.create(place, pack(entry))
        elif known.submission.fingerprint != entry.submission.fingerprint:
            raise self._conflict(place, known, entry)
        else:
            # Two processes may each have written one of the two files. `decide` and `expire` need one age.
            attempt = replace(attempt, submitted_at=known.submission.submitted_at)
        if (outcome := self.outcome(operation_id)) is None:
            return attempt
        self._settle(entry, outcome)
        return replace(attempt, state=outcome.state, failure=outcome.failure)

    def claim(self, number: int, claim: Claim) -> bool:
        """Claim an attempt; return whether this claim holds it.

        :raises ArchiveError: the archive cannot be written, or is no longer there
        """
        if read(self.folder, layout.ROOT_FILE) is None:
            raise ArchiveError(
                f"{self.folder.url_of(layout.ROOT_FILE)} is missing: this is not the archive that it was",
                hint="Check that the disk is mounted, or that the bucket exists",
                retry="continues once it is restored",
            )
        name = layout.ledger_file(claim.planned.fingerprint, number, AttemptState.CLAIMED)
        return self.folder.create(name, pack(claim)) or self.is_held(number, claim)

    def is_held(self, number: int, claim: Claim) -> bool:
        """Tell whether a claim is on record: a client that retries its own write finds its own claim."""
        there = self.planned(claim.planned.fingerprint, number)
        return there is not None and there.id == claim.id

    def give_up(self, number: int, state: AttemptState, claim: Claim, failure: Failure, now: datetime) -> None:
        """Put on record that a claim has led to no operation.

        :param state: `AttemptState.REFUSED` if the service has certainly not accepted it, `AttemptState.LOST` if it
            may have
        """
        end = AttemptEnd.after(claim, at=now, failure=failure)
        self.folder.create(layout.ledger_file(claim.planned.fingerprint, number, state), pack(end))

    def record_submission(
        self, number: int, scope: str, submission: Submission, supersedes: tuple[int, ...] = ()
    ) -> None:
        """Put on record that the service has accepted a recording. A second call changes nothing.

        :param number: the attempt
        :param scope: the task instance that made it
        :raises ArchiveError: it cannot be written, or the operation is on record for something else
        """
        entry = Entry(submission=submission, attempt=number, scope=scope, supersedes=supersedes)
        place = layout.operation_file(submission.operation_id, layout.SUBMISSION_FILE)
        # Checked first: the id of another recording's operation must not get into the ledger. Then the ledger is
        # written first: the other file can be made from it, but not the other way round.
        self._check_same(place, entry)
        for name in (layout.ledger_file(submission.fingerprint, number, AttemptState.IN_FLIGHT), place):
            if not self.folder.create(name, pack(entry)):
                self._check_same(name, entry)

    def _check_same(self, name: str, entry: Entry) -> None:
        there, ours = load(self.folder, name, Entry.read), entry.submission
        if there is None:
            return
        on_record = (there.submission.operation_id, there.submission.fingerprint, there.attempt)
        if on_record != (ours.operation_id, ours.fingerprint, entry.attempt):
            raise self._conflict(name, there, entry)

    def _conflict(self, name: str, there: Entry, ours: Entry) -> ArchiveError:
        place = layout.ledger_file(ours.submission.fingerprint, ours.attempt or 0, AttemptState.IN_FLIGHT)
        return layout.damage(
            f"{self.folder.url_of(name)} has operation {there.submission.operation_id} on record as attempt "
            f"{there.attempt} of {there.submission.audio_uri}, and not as attempt {ours.attempt} of this recording",
            "Check the operation id. If a mistyped `archive adopt` has put it on record, remove "
            f"{self.folder.url_of(place)}: then the submission is lost again, and can be adopted or released",
            operation_id=ours.submission.operation_id,
            recording=ours.submission.audio_uri,
        )

    def planned(self, fingerprint: str, number: int) -> Claim | None:
        """Return an attempt's claim, or None if there is none, or it was deleted."""
        return load(
            self.folder,
            layout.ledger_file(fingerprint, number, AttemptState.CLAIMED),
            lambda data: None if is_tombstone(data) else Claim.read(data),
        )

    def fingerprints(self) -> Iterator[str]:
        """Return every fingerprint in the ledger."""
        return filter(layout.is_fingerprint, self.folder.folders("ledger"))

    def operations(self, prefix: str | tuple[str, ...] = "") -> Iterator[str]:
        """Return the ids on record that begin with one of these, the synthetic ones included."""
        return (one for one in self.folder.folders("operations") if is_operation_id(one) and one.startswith(prefix))

    def entry(self, operation_id: str) -> Entry | None:
        """Return the submission, with its first labels, and its place in the ledger, or None if it isn't on record."""
        return load(self.folder, layout.operation_file(operation_id, layout.SUBMISSION_FILE), Entry.read)

    def submission(self, operation_id: str) -> Submission | None:
        """Return what was submitted, with its newest labels, or None if it isn't on record.

        :raises ArchiveError: it cannot be read
        """
        entry = self.entry(operation_id)
        return None if entry is None else labelled(entry.submission, self.label_records(operation_id))

    def label_records(self, operation_id: str) -> list[LabelRecord]:
        """Return the labels that were given after the submission: one read, and one more for each record."""
        records: list[LabelRecord] = []
        while one := load(self.folder, layout.labels_file(operation_id, len(records) + 1), LabelRecord.read):
            records.append(one)
        return records

    def outcome(self, operation_id: str) -> Outcome | None:
        """Return how the operation ended, in one read, or None if that isn't on record.

        :raises ArchiveError: it cannot be read
        """
        return load(self.folder, layout.operation_file(operation_id, layout.OUTCOME_FILE), Outcome.read)

    def is_forgotten(self, operation_id: str) -> bool:
        """Tell whether it is on record that the operation was deleted."""
        return read(self.folder, layout.forgotten_file(operation_id)) is not None

    def answer(self, operation_id: str, most_bytes: int = LARGEST_ANSWER_BYTES) -> Answer | None:
        """Return the service's answer byte for byte, or None if none is archived.

        :param most_bytes: how large each of its files may be, inflated
        :raises AnswerUnreadableError: one is larger
        :raises ArchiveError: it cannot be read, or is not what was written
        """
        outcome = self.outcome(operation_id)
        operation = None if outcome is None else self._inflated(layout.OPERATION_FILE, outcome, most_bytes)
        if outcome is None or operation is None:
            return None
        recognition = self._inflated(layout.RECOGNITION_FILE, outcome, most_bytes)
        return Answer(operation_id, outcome.api_version or ApiVersion.V2, operation, recognition)

    def _inflated(self, file: str, outcome: Outcome, most_bytes: int) -> bytes | None:
        if file not in outcome.files:
            return None
        name = layout.operation_file(outcome.operation_id, file)
        raw = read(self.folder, name)
        if raw is None or hashlib.sha256(raw).hexdigest() != outcome.files[file].sha256:
            raise layout.damage(
                f"{self.folder.url_of(name)} {'is missing' if raw is None else 'is not what was written'}",
                "Restore it from a backup if there is one; the service keeps answers for three days only",
                operation_id=outcome.operation_id,
            )
        return parsed(self.folder, name, lambda: inflated(raw, most_bytes))

    def keep_operation(
        self, operation: Operation, recognition: bytes | None, broken: RecognitionFailedError | None = None
    ) -> None:
        """Archive an ended operation; see `keep`.

        :param broken: v3: what the service sent in place of the result of an operation that is done
        """
        failure = None if broken is None else Failure(broken.code, broken.message or broken.what)
        if operation.state is OperationState.FAILED:
            failure = Failure(operation.error_code, operation.error_message or "")
        answer = Answer(operation.id, operation.api_version, operation.raw, recognition)
        self.keep(answer, failure, now=datetime.now(UTC))

    def keep(self, answer: Answer, failure: Failure | None = None, *, now: datetime) -> None:
        """Archive an answer. Once this returns it is safe; a second call, or two at once, change nothing.

        The first answer that is archived counts. Nothing is archived of an operation that was deleted.

        :param failure: the operation's error, if it ended in one
        :raises ArchiveError: it cannot be written; half-written files do not count
        """
        if answer.api_version == ApiVersion.V3 and failure is None and answer.recognition is None:
            raise ValueError("an answer of API v3 without its recognition")
        entry = self.entry(answer.operation_id)
        if entry is None and self.is_forgotten(answer.operation_id):
            return
        files = {}
        # The recognition first: the service keeps it for a shorter time than the operation.
        for file, raw in ((layout.RECOGNITION_FILE, answer.recognition), (layout.OPERATION_FILE, answer.operation)):
            if raw is not None:
                files[file] = self._kept(layout.operation_file(answer.operation_id, file), raw)
        outcome = Outcome(
            operation_id=answer.operation_id,
            state=AttemptState.FINISHED if failure is None else AttemptState.FAILED,
            at=now,
            failure=failure,
            api_version=answer.api_version,
            files=files,
        )
        self._conclude(entry, outcome)

    def _kept(self, name: str, raw: bytes) -> AnswerFile:
        is_unread = isinstance(raw, Packed)
        packed = raw if is_unread else gzip.compress(raw, 6, mtime=0)
        if not self.folder.create(name, packed):
            # Another process's, possibly a killed one's: it is whole, and as good as ours.
            packed = read(self.folder, name) or packed
        if is_unread:
            log.warning("%s is larger than any answer should be, and is archived unread", self.folder.url_of(name))
        return AnswerFile(sha256=hashlib.sha256(packed).hexdigest(), bytes=len(packed), unread=is_unread)

    def expire(self, operation_id: str, now: datetime) -> bool:
        """Put on record that the service no longer has an operation (404) of which no answer is archived.

        The service keeps results for three days. The 404 of a younger operation means a wrong connection or folder. It
        stays off the record, or the recording would be paid for again.

        :return: whether it is on record as expired now
        """
        entry = self.entry(operation_id)
        if entry is None or layout.is_unsent(operation_id) or now - entry.submission.submitted_at < RESULTS_KEPT:
            return False
        failure = Failure(5, "the service no longer has the result, and no answer was archived within three days")
        outcome = Outcome(operation_id=operation_id, state=AttemptState.EXPIRED, at=now, failure=failure)
        return self._conclude(entry, outcome).state is AttemptState.EXPIRED

    def refuse(self, planned: Submission, failure: Failure | None, now: datetime) -> str:
        """Put a recording on record that was not submitted; address, time and labels are those of the first time.

        :param failure: why; None if it was left out
        :return: a synthetic operation id, which leads to the recording and to the reason as a real one does
        """
        operation_id = layout.unsent_id(planned.fingerprint, planned.filter_reason)
        first = known.submission if (known := self.entry(operation_id)) else planned
        kept = {name: getattr(first, name) for name in ("audio_uri", "etag", "submitted_at", "labels")}
        ours = replace(planned, operation_id=operation_id, **kept)
        outcome = Outcome(operation_id=operation_id, state=AttemptState.REFUSED, at=now, failure=failure)
        self.folder.replace(layout.operation_file(operation_id, layout.SUBMISSION_FILE), pack(Entry(submission=ours)))
        self.folder.replace(layout.operation_file(operation_id, layout.OUTCOME_FILE), pack(outcome))
        return operation_id

    def _conclude(self, entry: Entry | None, outcome: Outcome) -> Outcome:
        name = layout.operation_file(outcome.operation_id, layout.OUTCOME_FILE)
        if not self.folder.create(name, pack(outcome)):
            there = self.outcome(outcome.operation_id)
            if there is not None and there.state is AttemptState.EXPIRED and outcome.state is not AttemptState.EXPIRED:
                self.folder.replace(name, pack(outcome))
            elif there is not None:
                outcome = there
        if entry is not None:
            self._settle(entry, outcome)
        return outcome

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if entry.attempt is not None:
            end = AttemptEnd.after(entry, outcome, submitted_at=entry.submission.submitted_at)
            name = layout.ledger_file(entry.submission.fingerprint, entry.attempt, outcome.state)
            self.folder.create(name, pack(end))
