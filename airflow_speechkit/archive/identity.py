"""Where a recording and an operation are not one to one.

Recordings with the same bytes share an operation: it is submitted for one of them, and each is on record.

A recording in parts has an operation for each part. Copies of parts may be deleted, and another version of a decoder
may find another place to be the quietest. Parts that begin elsewhere are other recordings, and would be paid for again.
So the places are on record.

Beside what `archive.layout` describes, an archive has ::

    hashes/<address>/<version>.json                 the hash of the bytes of a recording in a version; it is read once
    operations/<operation id>/also-<address>.json   another recording with the bytes of the submitted one: its own
                                                    address, labels and time (exclusive create)
    ledger/<fingerprint>/known-as.json              the fingerprint by address of an operation with these bytes
    ledger/<fingerprint of the whole>/parts.json    where its parts begin (exclusive create)

The names have hashes of addresses and ETags. Labels that another recording gets later are among the operation's, under
its own address.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from airflow_speechkit.archive import layout
from airflow_speechkit.archive.ledger import AttemptState, fingerprint
from airflow_speechkit.archive.records import Entry, Hash, Record, labelled
from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.models import ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from airflow_speechkit.archive.records import LabelRecord
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Part, Recording, Submission
    from airflow_speechkit.recordings.source import RecordingSource

log = logging.getLogger(__name__)

_SHARED = re.compile(r"(?P<operation_id>[A-Za-z0-9].*)-(?P<address>[0-9a-f]{16})", re.ASCII)
_ALSO = re.compile(r"also-([0-9a-f]{16})\.json", re.ASCII)


class Identity(StrEnum):
    """What makes two recordings the same one."""

    ADDRESS = "address"  #: address and version (ETag)
    CONTENT = "content"  #: their bytes


class _ContentHash(Record, frozen=True):
    sha256: Hash


class _KnownAs(Record, frozen=True):
    fingerprint: Hash


class _Cut(Record, frozen=True):
    starts_ms: tuple[int, ...]


def with_content_hashes(archive: Archive, source: RecordingSource, recordings: Sequence[Recording]) -> list[Recording]:
    """Return recordings with the hashes of their bytes; those that no run has read before are read.

    One that can't be read brings its error along: it doesn't hold up the others. One without a version keeps its
    address as its identity, since its hash could be that of an earlier version.

    :raises ArchiveError: the archive can't be read or written
    """
    found = layout.read_each(partial(_known_hash, archive), (side for one in recordings for side in _sides(one)))
    unread = [side for side, known in found.items() if known is None]
    if unread:
        log.info("Reading %d recordings to identify them by their content", len(unread))
    found |= layout.read_each(partial(_hash_of, archive, source), unread)

    def identified(recording: Recording) -> Recording:
        if recording.error is not None or not recording.is_versioned:
            return recording
        if recording.address is None:
            # The version of a local file is a hash of its bytes.
            return replace(recording, content_hash=recording.version)
        hashes = [found[side] for side in _sides(recording)]
        error = next((one for one in hashes if isinstance(one, SpeechKitError)), None)
        if error is not None:
            return replace(recording, error=error)
        return replace(recording, content_hash="+".join(map(str, hashes)))

    return [identified(one) for one in recordings]


def delete_hashes(archive: Archive, audio_uris: Iterable[str]) -> int:
    """Delete the hashes of all versions of recordings; return how many there were."""
    names = [name for uri in audio_uris for name in archive.folder.names(f"hashes/{layout.hashed(uri)}")]
    for name in names:
        archive.folder.delete(name)
    return len(names)


def _sides(recording: Recording) -> list[ObjectVersion]:
    """Return what has to be read of a recording: itself, and the other side of a pair."""
    if recording.address is None or recording.error is not None or not recording.is_versioned:
        return []
    own, other = ObjectVersion(recording.address, recording.version), recording.other
    return [own] if other is None else [own, other]


def _known_hash(archive: Archive, side: ObjectVersion) -> str | SpeechKitError | None:
    # A damaged one is replaced.
    known = layout.load_undamaged(archive.folder, _hash_file(side), _ContentHash.read)
    return None if known is None else known.sha256


def _hash_of(archive: Archive, source: RecordingSource, side: ObjectVersion) -> str | SpeechKitError:
    digest = hashlib.sha256()
    try:
        for piece in source.content(side):
            digest.update(piece)
    except SpeechKitError as error:
        error.about_recording(side.address.uri)
        return error
    archive.folder.replace(_hash_file(side), layout.pack(_ContentHash(digest.hexdigest())))
    return digest.hexdigest()


def _hash_file(side: ObjectVersion) -> str:
    return f"hashes/{layout.hashed(side.address.uri)}/{layout.hashed(side.etag or '')}.json"


def recognition_id(operation_id: str, audio_uri: str) -> str:
    """Return the id in the tables of a recording that shares an operation which was submitted for another one."""
    # An operation has few addresses: 64 bits tell them apart.
    return f"{operation_id}-{layout.hashed(audio_uri)[:16]}"


def shared_under(archive: Archive, given: str) -> Submission | None:
    """Return what is on record under a `recognition_id`; None if that isn't the id of a recording that shares one."""
    found = _SHARED.fullmatch(given)
    name = "" if found is None else layout.operation_file(found["operation_id"], f"also-{found['address']}.json")
    entry = layout.load(archive.folder, name, Entry.read) if name else None
    return None if entry is None else entry.submission


def operation_of(archive: Archive, given: str) -> str:
    """Return the operation of an id in the tables: itself, but for the `recognition_id` of one that shares another's.

    :raises ArchiveError: a record can't be read
    """
    shared = shared_under(archive, given)
    return given if shared is None else shared.operation_id


def share(archive: Archive, planned: Submission, operation_id: str) -> bool:
    """Put on record that a recording shares an operation. For the recording that was submitted it does nothing.

    :param planned: the submission that the recording would have had
    :return: whether it is another recording than the submitted one
    :raises ArchiveError: the archive can't be read or written
    """
    entry = archive.entry(operation_id)
    if entry is None or entry.submission.audio_uri == planned.audio_uri:
        return False
    first = entry.submission
    ours = replace(
        planned,
        operation_id=operation_id,
        recognition_id=recognition_id(operation_id, planned.audio_uri),
        fingerprint=first.fingerprint,
        settings=first.settings,
        submitted_uri=first.submitted_uri,
        duration_ms=first.duration_ms,
        channels=first.channels,
        billed_seconds=0,
    )
    name = _also_file(operation_id, planned.audio_uri)
    is_new = archive.folder.create(name, layout.pack(Entry(submission=ours)))
    if is_new and not archive.folder.exists(layout.operation_file(operation_id, layout.SUBMISSION_FILE)):
        # Deleted meanwhile. `delete_operation` lists the files once more after it has removed the submission.
        archive.folder.delete(name)
    return True


def submissions(archive: Archive, operation_id: str) -> list[Submission]:
    """Return what was submitted, and each other recording that shares the operation, all with their newest labels.

    :return: the submitted recording first; empty if the operation isn't on record
    :raises ArchiveError: a record can't be read
    """
    entry = archive.entry(operation_id)
    if entry is None:
        return []
    records = archive.label_records(operation_id)
    found = [entry.submission]
    if may_be_shared(entry, records):
        others = layout.each(
            lambda name: layout.load(archive.folder, name, Entry.read), _also_files(archive, operation_id)
        )
        found += [one.submission for one in others if one is not None]
    return [labelled(one, records) for one in found]


def is_shared_by(archive: Archive, operation_id: str, audio_uri: str) -> bool:
    """Return whether a recording shares an operation that was submitted for another one, also if its record is damaged.

    :param audio_uri: of a pair, that of its first side
    """
    return archive.folder.exists(_also_file(operation_id, audio_uri))


def audio_uris(archive: Archive, operation_id: str) -> list[str]:
    """Return the addresses of all recordings that share an operation, without those of damaged records."""
    names = [layout.operation_file(operation_id, layout.SUBMISSION_FILE), *_also_files(archive, operation_id)]
    entries = [layout.load_undamaged(archive.folder, name, Entry.read) for name in names]
    known = [one.submission for one in entries if one is not None]
    return [uri for one in known for uri in (one.audio_uri, one.paired_uri) if uri]


def may_be_shared(entry: Entry, records: Sequence[LabelRecord]) -> bool:
    """Tell whether other recordings may share an operation: only then listing its files is worth a request."""
    return entry.submission.content_hash is not None or any(
        one.audio_uri != entry.submission.audio_uri for one in records
    )


def recognition_ids(archive: Archive, operation_id: str) -> list[str]:
    """Return the ids in the tables of all recordings that share an operation."""
    names = (name.rpartition("/")[2] for name in _also_files(archive, operation_id))
    return [operation_id, *(f"{operation_id}-{found[1]}" for name in names if (found := _ALSO.fullmatch(name)))]


def fingerprints_by_address(archive: Archive, content: str, recordings: Sequence[Recording]) -> Iterator[str]:
    """Give the fingerprints under which recordings with some bytes may be on record by their addresses.

    :param content: their fingerprint by content
    :param recordings: their own fingerprints come first
    """
    for one in recordings:
        yield fingerprint(one, by_address=True)
    if known := layout.load(archive.folder, _known_file(content), _KnownAs.read):
        yield known.fingerprint


def remember_fingerprint(archive: Archive, content: str, by_address: str) -> None:
    """Put on record under which fingerprint an operation is that was submitted by its address. The first one counts."""
    archive.folder.create(_known_file(content), layout.pack(_KnownAs(by_address)))


def _known_file(content: str) -> str:
    return f"{layout.ledger_folder(content)}/known-as.json"


def _also_file(operation_id: str, audio_uri: str) -> str:
    return layout.operation_file(operation_id, f"also-{recognition_id(operation_id, audio_uri)[-16:]}.json")


def _also_files(archive: Archive, operation_id: str) -> list[str]:
    names = archive.folder.names(layout.operation_file(operation_id))
    return sorted(name for name in names if _ALSO.fullmatch(name.rpartition("/")[2]))


def recorded_cut(archive: Archive, fingerprint: str) -> tuple[int, ...]:
    """Return where a recording was cut, in milliseconds; nothing if it was not.

    :param fingerprint: of the whole recording
    :raises ArchiveError: the record can't be read
    """
    found = layout.load(archive.folder, _cut_file(fingerprint), _Cut.read)
    return () if found is None else found.starts_ms


def record_cut(archive: Archive, fingerprint: str, starts_ms: tuple[int, ...]) -> None:
    """Put on record where a recording was cut. The first record counts.

    :param fingerprint: of the whole recording
    :param starts_ms: where each part begins
    :raises ArchiveError: the archive can't be written
    """
    archive.folder.create(_cut_file(fingerprint), layout.pack(_Cut(starts_ms=starts_ms)))


def _cut_file(fingerprint: str) -> str:
    return f"{layout.ledger_folder(fingerprint)}/parts.json"


def part_operations(archive: Archive, part: Part, given: Collection[str]) -> list[str]:
    """Return the operation of each part of a recording that has one, in order.

    A part that was submitted several times has several: finished ones count first, so that the operations of an older
    run don't bring back its failure, then those that are given, then the newest.

    :param part: any of them
    :param given: operations to prefer
    :raises ArchiveError: the archive can't be read
    """
    each_part = [_ranked(archive, fingerprint) for fingerprint in part.fingerprints]
    return [max(found, key=lambda one: (one[0], one[-1] in given, one[1]))[-1] for found in each_part if found]


def all_operations(archive: Archive, part: Part) -> list[str]:
    """Return all operations of all parts of a recording, in their order.

    :param part: any of them
    :raises ArchiveError: the archive can't be read
    """
    return [one[-1] for fingerprint in part.fingerprints for one in _ranked(archive, fingerprint)]


def _ranked(archive: Archive, fingerprint: str) -> list[tuple[bool, int, str]]:
    """Return of each operation of a part whether it has finished, the number of its attempt, and its id."""
    refused = layout.unsent_id(fingerprint, None)
    found = [] if archive.outcome(refused) is None else [(False, -1, refused)]
    return found + [
        (one.state is AttemptState.FINISHED, one.number, one.operation_id)
        for one in archive.attempts(fingerprint)
        if one.operation_id and one.state is not AttemptState.FORGOTTEN
    ]
