"""What is known before operations are waited for: of each its length and age, of all what may be spent."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.layout import RECOGNITION_FILE
from airflow_speechkit.archive.ledger import RESULTS_KEPT
from airflow_speechkit.hooks.archive import read_each
from airflow_speechkit.polling.blocking import BlockingAllowance
from airflow_speechkit.polling.waiting import Waiting
from airflow_speechkit.submission import version_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.submission import Submission


def waiting_for(operation_id: str, submission: Submission | None, *, now: float, interval_s: float | None) -> Waiting:
    """Say what is waited for, with all that its schedule depends on.

    :param submission: what was submitted; without it the wait counts from `now`
    :param now: seconds since the epoch
    :param interval_s: the user's `poke_interval` in seconds
    """
    if submission is None:
        version = version_of({"id": operation_id}, finished=False)
        return Waiting(operation_id, now, api_version=version.value, interval_s=interval_s)
    return Waiting(
        operation_id,
        submission.submitted_at.timestamp(),
        audio_s=None if submission.duration_ms is None else submission.duration_ms / 1000,
        channels=submission.channels,
        model=submission.settings.model,
        api_version=submission.settings.api_version.value,
        interval_s=interval_s,
    )


def compact(waiting: Waiting) -> dict[str, Any]:
    """Write it without its defaults: a trigger may carry ten thousand of them through Airflow's database."""
    values = {one.name: getattr(waiting, one.name) for one in fields(Waiting)} | {
        "api_version": str(waiting.api_version)
    }
    defaults = {one.name: one.default for one in fields(Waiting) if one.default is not MISSING}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def allowance_of(hook: SpeechKitHook, api_versions: Collection[str]) -> BlockingAllowance:
    """Say what a wait in a worker may spend.

    :param hook: its connection may set the quotas
    :param api_versions: of all that is waited for
    """
    each = [
        BlockingAllowance.of(version, checks_per_hour=hook.checks_per_hour, checks_per_second=hook.checks_per_second)
        for version in sorted(api_versions or {"v2"})
    ]
    # Of a list with both the scarcer of everything: what is asked for first isn't known when it is dealt out.
    return BlockingAllowance(
        per_second=min(one.per_second for one in each),
        at_once=min(one.at_once for one in each),
        pause_s=max(one.pause_s for one in each),
    )


def perhaps_not_deleted(archive: Archive, outcomes: Mapping[str, Outcome | None], *, now: datetime) -> list[str]:
    """Say which archived v3 results the service may still have: who archives one may be stopped before deleting it.

    :param outcomes: how operations ended, by their ids
    :param now: UTC
    """
    archived = {one: found.at for one, found in outcomes.items() if found and RECOGNITION_FILE in found.files}
    submissions = read_each(archive.submission, archived)
    begun = {one: at if (found := submissions[one]) is None else found.submitted_at for one, at in archived.items()}
    return [one for one, at in begun.items() if now - at < RESULTS_KEPT]
