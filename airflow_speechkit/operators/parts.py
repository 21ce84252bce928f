"""The operations of a recording's parts become one recognition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.archive.identity import all_operations, part_operations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Part
    from airflow_speechkit.results.many import Loaded


def load_whole(
    archive: Archive,
    operation_id: str,
    part: Part,
    given: Collection[str],
    load: Callable[[str], Loaded],
    most_bytes: int,
) -> Loaded:
    """Return the rows of a recording, once of all its operations that are given.

    :param operation_id: one of them
    :param part: which part it is of
    :param given: the operations whose rows are asked for
    :param load: fetches the answer of one part
    :param most_bytes: how large one may be
    :return: all rows for the first of the operations, none for the others; or why it is left out
    :raises SpeechKitError: a part can't be fetched
    """
    from airflow_speechkit.results.flatten import flatten
    from airflow_speechkit.results.manifest import Unread
    from airflow_speechkit.results.many import inflated_answer
    from airflow_speechkit.results.parts import PartTables, join_parts
    from airflow_speechkit.results.schema import Tables

    operations = part_operations(archive, part, given)
    if operation_id != next((one for one in [*operations, *all_operations(archive, part)] if one in given), None):
        return Tables.empty()
    parts = []
    for one in operations:
        loaded, submission = load(one), archive.submission(one)
        if isinstance(loaded, Unread):
            return loaded
        if isinstance(loaded, tuple):
            answer, *known = loaded
            submission = known[0] if known else submission
            loaded = flatten(inflated_answer(answer, most_bytes), submission)
        if submission is None or submission.part is None or not len(loaded.recognitions):
            # It has just been deleted.
            return Tables.empty()
        parts.append(PartTables(submission.part, loaded))
    return join_parts(parts)
