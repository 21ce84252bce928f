"""What was submitted, and what that means for the next one who asks: the ledger, without any I/O.

Each recording and settings have a *fingerprint*, and under it numbered *attempts*. An attempt begins with a claim
and collects facts, each written once and never changed; the weightiest one is the attempt's *state*. `decide` turns
the attempts into what is to be done now.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_speechkit.settings import ApiVersion, AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_speechkit.settings import RecognitionSettings

#: How long the service keeps a result (speechkit-api: "Results are kept 3 days").
RESULTS_KEPT = timedelta(days=3)

#: INVALID_ARGUMENT, OUT_OF_RANGE and UNIMPLEMENTED depend on the request alone: the same recording with the same
#: settings ends the same way each time. Anything else can be mended: INTERNAL, UNAVAILABLE, RESOURCE_EXHAUSTED and
#: DEADLINE_EXCEEDED by time, CANCELLED by asking again, PERMISSION_DENIED and NOT_FOUND by a person.
HOPELESS_CODES = frozenset({3, 11, 12})

#: What a container says about itself. The recording's bytes decide it, and the ETag stands for those.
_IN_THE_CONTAINER = frozenset({"audio_encoding", "sample_rate_hertz", "audio_channel_count"})


def fingerprint(audio_uri: str, version: str | None, settings: RecognitionSettings) -> str:
    """Name what is asked for: this recording, in this version, with these settings, of this API.

    It has to stay the same for as long as archives live, or everything would be paid for again. So a field at a
    default that is empty counts as not being there (later versions add such fields), a language is written in small
    letters (the service doesn't tell them apart), and what a container says about itself is left out: it doesn't
    matter whether ``audio_encoding`` was given or read from the recording. What v3 is told in the same words is the
    same, in whichever keywords it was said here.

    :param audio_uri: ``s3://bucket/key``
    :param version: the recording's ETag or version id; quotes around an ETag don't matter
    :param settings: before or after what was read from the recording has been filled in
    :return: 64 hexadecimal digits
    """
    if settings.api_version is ApiVersion.V3:
        settings = _in_fewest_words(settings)
    given = settings.to_json()
    asked: dict[str, Any] = {
        field.name: given[field.name]
        for field in fields(settings)
        # `False` isn't empty where a setting has three answers: its default is `None`.
        if field.default not in (None, False, ()) or getattr(settings, field.name) != field.default
    }
    asked["language"] = settings.language.lower()
    if settings.audio_encoding is AudioEncoding.LINEAR16_PCM:
        asked["audio_channel_count"] = settings.audio_channel_count or 1
    else:
        asked = {name: value for name, value in asked.items() if name not in _IN_THE_CONTAINER}
    material = {"audio_uri": audio_uri, "version": (version or "").strip('"'), "settings": asked}
    text = json.dumps(material, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _in_fewest_words(settings: RecognitionSettings) -> RecognitionSettings:
    """Say the same to v3 with as few keywords as there can be, and all others at their defaults."""
    codes = tuple(map(_usual_case, settings.languages or (settings.language,)))
    restriction = None if settings.language_restriction == "WHITELIST" else settings.language_restriction
    one = restriction is None and len(codes) == 1
    summarization = settings.summarization and {
        **settings.summarization,
        "properties": [
            {name: value for name, value in item.items() if value is not None}
            for item in settings.summarization["properties"]
        ],
    }
    return replace(
        settings,
        language=codes[0] if one else "ru-RU",
        languages=() if one else codes,
        language_restriction=restriction,
        # Of a language that isn't known nothing is normalised anyway.
        raw_results=settings.raw_results and "auto" not in codes,
        phone_formatting=None if settings.phone_formatting else settings.phone_formatting,
        classifiers=settings.classifiers or None,
        summarization=summarization,
    )


def _usual_case(code: str) -> str:
    language, _, country = code.partition("-")
    return f"{language.lower()}-{country.upper()}" if country else language.lower()


class AttemptState(StrEnum):
    """How far an attempt, or an operation, has got. Of several that are on record the first one here counts."""

    FORGOTTEN = "forgotten"
    FINISHED = "finished"
    FAILED = "failed"
    EXPIRED = "expired"
    IN_FLIGHT = "operation"
    REFUSED = "refused"
    LOST = "lost"
    CLAIMED = "claim"


#: How operations end.
ENDED = frozenset({AttemptState.FINISHED, AttemptState.FAILED, AttemptState.EXPIRED})


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    :param code: the gRPC code, where the service gave one
    :param message: in words, without secrets
    :param final: whether the service has refused the submission itself, and would do so again
    """

    code: int | None
    message: str
    final: bool = False

    @property
    def hopeless(self) -> bool:
        """Whether the same recording with the same settings would end the same way."""
        return self.code in HOPELESS_CODES


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt to submit, as far as it is on record.

    :param number: from 1
    :param state: the weightiest fact on record
    :param scope: the task instance that made it
    :param owner: the process that made it
    :param lease_expires_at: until when its maker may still be at it
    :param operation_id: from `AttemptState.IN_FLIGHT` on
    :param submitted_at: from `AttemptState.IN_FLIGHT` on; and of one that the service refused for good
    :param failure: of one that failed, or was refused for good
    :param supersedes: the numbers of the lost attempts that it was sent over, on purpose
    """

    number: int
    state: AttemptState
    scope: str | None = None
    owner: str | None = None
    lease_expires_at: datetime | None = None
    operation_id: str | None = None
    submitted_at: datetime | None = None
    failure: Failure | None = None
    supersedes: tuple[int, ...] = ()

    def is_live(self, now: datetime) -> bool:
        """Whether somebody may be submitting it just now."""
        return self.state is AttemptState.CLAIMED and self.lease_expires_at is not None and now < self.lease_expires_at

    def was_sent_by(self, request: Request) -> bool:
        """Whether whoever asks has sent it since it began, and the service answered."""
        since = request.since
        return (
            since is not None
            and self.scope == request.scope
            and self.submitted_at is not None
            and (self.submitted_at >= since)
        )

    def is_lost(self, now: datetime) -> bool:
        """Whether it may have been taken, and nobody is left who could say under which operation id."""
        return self.state is AttemptState.LOST or (self.state is AttemptState.CLAIMED and not self.is_live(now))


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who asks for a recognition, and how.

    :param scope: the task instance: what it paid for on purpose, its own retries get back
    :param reuse: whether what others have paid for will do
    :param resubmit_lost: whether a lost submission may be paid for again, once for each scope
    :param since: when the scope began, if it goes on: what it has sent since then counts as sent, however that ended
    """

    scope: str
    reuse: bool = True
    resubmit_lost: bool = False
    since: datetime | None = None


class Action(StrEnum):
    """What is to be done about a recording."""

    SUBMIT = "submit"  #: claim the attempt and send it
    SENT = "sent"  #: the scope has sent it since it began
    JOIN = "join"  #: the operation runs: wait for it
    REUSE = "reuse"  #: the answer is archived
    FAIL = "fail"  #: it failed, and would only fail again
    ASK = "ask"  #: the operation is older than the service keeps results: see whether it still has it
    WAIT = "wait"  #: somebody else is at it
    LOST = "lost"  #: a request may have been taken; nobody knows the operation


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be done, and the facts that go with it.

    :param action: what
    :param attempt: the attempt it is about; for `Action.SUBMIT` the one to claim
    :param operation_id: the operation, where there is one
    :param until: for `Action.WAIT`: when the lease ends; for `Action.LOST`: when it ended
    :param owner: for `Action.WAIT` and `Action.LOST`: whose claim it is
    :param failure: for `Action.FAIL`: why; the service has refused it if there is no operation
    :param supersedes: for `Action.SUBMIT`: the lost attempts that may be paid for a second time by it
    """

    action: Action
    attempt: int
    operation_id: str | None = None
    until: datetime | None = None
    owner: str | None = None
    failure: Failure | None = None
    supersedes: tuple[int, ...] = ()


def lost_attempts(attempts: Iterable[Attempt], now: datetime) -> list[Attempt]:
    """Return the lost attempts that nobody has settled, the newest first.

    Only a person settles one, or whoever sends the recording again over it on purpose; that another attempt came to
    an end says nothing about this one. (A refused attempt was not sent, so it settles nothing. One that was sent and
    then forgotten does: the numbers it was sent over are all that is kept of it.)
    """
    known = sorted(attempts, key=lambda one: -one.number)
    settled = {number for one in known if one.state is not AttemptState.REFUSED for number in one.supersedes}
    return [one for one in known if one.is_lost(now) and one.number not in settled]


def decide(attempts: Sequence[Attempt], request: Request, now: datetime) -> Decision:
    """Say what is to be done about a recording.

    What the scope has sent since it began isn't sent again. Otherwise an answer that is there is used; else an
    operation that runs is joined; else whoever is submitting it is waited for; else a lost submission is in the way,
    until somebody settles it; else the newest attempt counts whose end is known. Attempts that the service refused,
    that were never sent, or that were forgotten count for nothing.

    :param attempts: all that are on record under the fingerprint, in any order
    :param request: who asks
    :param now: UTC
    """
    anew = Decision(action=Action.SUBMIT, attempt=max((one.number for one in attempts), default=0) + 1)
    seen = [one for one in sorted(attempts, key=lambda one: -one.number) if request.reuse or one.scope == request.scope]
    ours = [one for one in seen if one.state not in (AttemptState.REFUSED, AttemptState.FORGOTTEN)]
    for one in seen:
        if one.state is not AttemptState.FORGOTTEN and one.was_sent_by(request):
            action = Action.FAIL if one.operation_id is None else Action.SENT
            return Decision(action=action, attempt=one.number, operation_id=one.operation_id, failure=one.failure)
    for one in ours:
        if one.state is AttemptState.FINISHED:
            return Decision(action=Action.REUSE, attempt=one.number, operation_id=one.operation_id)
    for one in ours:
        if one.state is AttemptState.IN_FLIGHT:
            old = one.submitted_at is not None and now - one.submitted_at >= RESULTS_KEPT
            return Decision(
                action=Action.ASK if old else Action.JOIN, attempt=one.number, operation_id=one.operation_id
            )
    for one in ours:
        if one.is_live(now):
            return Decision(action=Action.WAIT, attempt=one.number, until=one.lease_expires_at, owner=one.owner)
    lost = lost_attempts(seen, now)
    if lost and not (request.resubmit_lost and _may_resubmit(ours, request, now)):
        return Decision(action=Action.LOST, attempt=lost[0].number, until=lost[0].lease_expires_at, owner=lost[0].owner)
    newest = next((one for one in ours if not one.is_lost(now)), None)
    if (
        newest is not None
        and newest.state is AttemptState.FAILED
        and newest.failure is not None
        and newest.failure.hopeless
    ):
        return Decision(
            action=Action.FAIL, attempt=newest.number, operation_id=newest.operation_id, failure=newest.failure
        )
    # With those that were settled before: what settled them may turn out not to have been sent.
    return replace(anew, supersedes=tuple(one.number for one in seen if one.is_lost(now)) if lost else ())


def _may_resubmit(attempts: Iterable[Attempt], request: Request, now: datetime) -> bool:
    """Whether this scope has not lost a submission yet that it had sent over a lost one.

    A request that breaks each time may be paid for each time, and a task is tried again and again.
    """
    return not any(one.scope == request.scope and one.supersedes and one.is_lost(now) for one in attempts)
