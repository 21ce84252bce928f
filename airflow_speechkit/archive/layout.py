"""Which file of the archive lies where.

::

    archive.json                                 what makes the folder an archive
    ledger/probe.json                            tests exclusive creation before anything is submitted
    ledger/<fingerprint>/0001.claim.json         a process is about to submit (exclusive create)
                         0001.operation.json     the service accepted it: the submission, with its operation id
                         0001.finished.json      … and so on: the states of `archive.ledger`
    operations/<operation id>/submission.json    from the operation id back to the recording
                              operation.json.gz  the service's answers, as they came
                              recognition.json.gz
                              outcome.json       how it ended: the answer is complete once this is there
                              labels-0001.json   labels that were given later (exclusive create), and so on
    forgotten/<operation id>.json                the operation was deleted
"""

from __future__ import annotations

import re

from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import is_operation_id

ROOT_FILE = "archive.json"
PROBE_FILE = "ledger/probe.json"
SUBMISSION_FILE = "submission.json"
OPERATION_FILE = "operation.json.gz"
RECOGNITION_FILE = "recognition.json.gz"
OUTCOME_FILE = "outcome.json"

#: The synthetic operation id of a recording that could not be submitted is this and its fingerprint.
REFUSED_PREFIX = "refused-"

_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LEDGER_FILE = re.compile(rf"ledger/[0-9a-f]{{64}}/([0-9]{{4,}})\.({'|'.join(AttemptState)})\.json", re.ASCII)


def checked_operation_id(operation_id: str) -> str:
    """Return an operation id, which is safe in a path.

    :raises SettingsError: it is not one
    """
    if not is_operation_id(operation_id):
        raise SettingsError(f"{operation_id[:64]!r} is not an operation id")
    return operation_id


def is_fingerprint(text: str) -> bool:
    """Tell whether this is a fingerprint."""
    return _FINGERPRINT.fullmatch(text) is not None


def checked_fingerprint(fingerprint: str) -> str:
    """Return a fingerprint, which is safe in a path.

    :raises SettingsError: it is not one
    """
    if not is_fingerprint(fingerprint):
        raise SettingsError(f"{fingerprint[:80]!r} is not a fingerprint", hint="It has 64 hexadecimal digits")
    return fingerprint


def ledger_file(fingerprint: str, number: int, state: AttemptState) -> str:
    """Return the name of the file that puts a state of an attempt on record."""
    return f"ledger/{fingerprint}/{number:04d}.{state.value}.json"


def place_in_ledger(name: str) -> tuple[int, AttemptState] | None:
    """Return the number and the state of an attempt that a file is about; None for a file that isn't the ledger's."""
    found = _LEDGER_FILE.fullmatch(name)
    return None if found is None else (int(found[1]), AttemptState(found[2]))


def operation_file(operation_id: str, file: str = "") -> str:
    """Return the name of one of an operation's files, or of their folder."""
    return f"operations/{checked_operation_id(operation_id)}/{file}".rstrip("/")


def labels_file(operation_id: str, number: int) -> str:
    """Return the name of a file of labels that were given later; the first one has the number 1."""
    return operation_file(operation_id, f"labels-{number:04d}.json")


def forgotten_file(operation_id: str) -> str:
    """Return the name of the file that records the deletion of an operation."""
    return f"forgotten/{checked_operation_id(operation_id)}.json"
