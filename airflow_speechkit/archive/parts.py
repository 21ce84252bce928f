"""Recordings in parts: where they were cut, and their operations.

Beside what `archive.layout` describes, an archive has ::

    ledger/<fingerprint of the whole>/parts.json    where its parts begin (exclusive create)

Copies of parts may be deleted, and another version of a decoder may find another place to be the quietest. Parts that
begin elsewhere are other recordings, and would be paid for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import ledger_folder, load, pack, unsent_id
from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.records import Record

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Part


class _Cut(Record, frozen=True, kw_only=True):
    """Where the parts of a recording begin."""

    starts_ms: tuple[int, ...]


def recorded_cut(archive: Archive, fingerprint: str) -> tuple[int, ...]:
    """Return where a recording was cut, in milliseconds; nothing if it was not.

    :param fingerprint: of the whole recording
    :raises ArchiveError: the record can't be read
    """
    found = load(archive.folder, _cut_file(fingerprint), _Cut.read)
    return () if found is None else found.starts_ms


def record_cut(archive: Archive, fingerprint: str, starts_ms: tuple[int, ...]) -> None:
    """Put on record where a recording was cut. The first record counts.

    :param fingerprint: of the whole recording
    :param starts_ms: where each part begins
    :raises ArchiveError: the archive can't be written
    """
    archive.folder.create(_cut_file(fingerprint), pack(_Cut(starts_ms=starts_ms)))


def _cut_file(fingerprint: str) -> str:
    return f"{ledger_folder(fingerprint)}/parts.json"


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
    refused = unsent_id(fingerprint, None)
    found = [] if archive.outcome(refused) is None else [(False, -1, refused)]
    return found + [
        (one.state is AttemptState.FINISHED, one.number, one.operation_id)
        for one in archive.attempts(fingerprint)
        if one.operation_id and one.state is not AttemptState.FORGOTTEN
    ]
