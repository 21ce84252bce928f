"""The operations of a recording that was submitted in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import unsent_id
from airflow_speechkit.archive.ledger import AttemptState

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Part


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
