"""The ledger's decisions, without any I/O: what was submitted, and what to do about a recording now.

A recording with its settings has a *fingerprint*, and under it numbered *attempts*. An attempt begins with a claim and
collects facts, each written once and never changed; the most important one is the attempt's *state*. `decide` turns the
attempts into an action.
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

    from airflow_speechkit.models import Recording
    from airflow_speechkit.settings import RecognitionSettings

#: How long the service keeps a result (speechkit-api: "Results are kept 3 days").
RESULTS_KEPT = timedelta(days=3)

#: INVALID_ARGUMENT, OUT_OF_RANGE and UNIMPLEMENTED depend on the request alone: the same recording with the same
#: settings ends the same way each time. After any other code another attempt can succeed.
PERMANENT_CODES = frozenset({3, 11, 12})

#: Settings that a container's header has. They depend on the recording's bytes, which the ETag identifies.
_IN_THE_CONTAINER = frozenset({"audio_encoding", "sample_rate_hertz", "audio_channel_count"})


def fingerprint(recording: Recording, *, by_address: bool = False) -> str:
    """Identify a request: this recording, in this version, with these settings, of this API.

    A fingerprint never changes, or everything would be paid for again. So a field at an empty default is left out
    (later versions add such fields), a language is in small letters (the service ignores case), and the settings that
    a container's header has are left out: it makes no difference whether ``audio_encoding`` was given or read from the
    recording. Keywords that lead to the same v3 request have the same fingerprint.

    :param recording: before or after it is probed. Its `content_hash`, if it has one, takes the place of address and
        version; quotes around an ETag are ignored
    :param by_address: ignore the `content_hash`
    :return: 64 hexadecimal digits
    """
    settings, variant = recording.settings, recording.variant
    if settings.api_version is ApiVersion.V3:
        settings = _canonical(settings)
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
    material: dict[str, Any] = {"settings": asked}
    if recording.content_hash is None or by_address:
        material |= {"audio_uri": recording.audio_uri, "version": (recording.version or "").strip('"')}
    else:
        material["content_hash"], variant = recording.content_hash, recording.own_variant
    if variant:
        material["variant"] = variant
    text = json.dumps(material, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _canonical(settings: RecognitionSettings) -> RecognitionSettings:
    """Return the settings with the fewest keywords that lead to the same v3 request."""
    codes = tuple(map(_canonical_code, settings.languages or (settings.language,)))
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
        # The service normalises no text in an unknown language anyway.
        raw_results=settings.raw_results and "auto" not in codes,
        phone_formatting=None if settings.phone_formatting else settings.phone_formatting,
        classifiers=settings.classifiers or None,
        summarization=summarization,
    )


def _canonical_code(code: str) -> str:
    language, _, country = code.partition("-")
    return f"{language.lower()}-{country.upper()}" if country else language.lower()


class AttemptState(StrEnum):
    """The state of an attempt. Of several on record the first one in this list counts."""

    FORGOTTEN = "forgotten"
    FINISHED = "finished"
    FAILED = "failed"
    EXPIRED = "expired"
    IN_FLIGHT = "operation"
    REFUSED = "refused"
    LOST = "lost"
    CLAIMED = "claim"


#: The ends of operations.
ENDED = frozenset({AttemptState.FINISHED, AttemptState.FAILED, AttemptState.EXPIRED})


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    :param code: the gRPC code, if there is one
    :param message: in words, without secrets
    """

    code: int | None
    message: str

    @property
    def is_permanent(self) -> bool:
        """Whether the same recording with the same settings would end the same way."""
        return self.code in PERMANENT_CODES


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt to submit, as far as it is on record.

    :param number: from 1
    :param state: the most important fact on record
    :param scope: the task instance that made it
    :param owner: the process that made it
    :param lease_expires_at: until when its process may still be submitting
    :param operation_id: from `AttemptState.IN_FLIGHT` on
    :param submitted_at: from `AttemptState.IN_FLIGHT` on
    :param failure: of one that failed
    :param supersedes: the numbers of the lost attempts that it was sent in place of, on purpose
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
        """Whether a process may be submitting it now."""
        return self.state is AttemptState.CLAIMED and self.lease_expires_at is not None and now < self.lease_expires_at

    def was_sent_by(self, request: Request) -> bool:
        """Whether the requesting run has sent it, and the service has accepted it."""
        if request.since is None or self.submitted_at is None:
            return False
        return self.scope == request.scope and self.submitted_at >= request.since

    def is_lost(self, now: datetime) -> bool:
        """Whether the service may have accepted it, and the operation id is known to no process."""
        return self.state is AttemptState.LOST or (self.state is AttemptState.CLAIMED and not self.is_live(now))


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for a recognition.

    :param scope: the task instance; its retries get what it has paid for on purpose
    :param reuse: whether to use what other task instances have paid for
    :param resubmit_lost: whether a lost submission may be paid for again, once for each scope
    :param since: when the run began, if this is a later visit; what it has sent since then is not sent again, however
        that ended
    """

    scope: str
    reuse: bool = True
    resubmit_lost: bool = False
    since: datetime | None = None


class Action(StrEnum):
    """What to do about a recording."""

    SUBMIT = "submit"  #: claim the attempt and send it
    SENT = "sent"  #: this run has sent it already
    JOIN = "join"  #: the operation is running: wait for it
    REUSE = "reuse"  #: the answer is archived
    FAIL = "fail"  #: it failed, and would only fail again
    ASK = "ask"  #: the operation is older than results are kept: ask whether the service still has it
    WAIT = "wait"  #: another process is submitting it
    LOST = "lost"  #: the service may have accepted a request, and the operation is not known


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An action, and its facts.

    :param action: what
    :param attempt: the attempt it is about; for `Action.SUBMIT` the one to claim
    :param operation_id: the operation, if there is one
    :param owner: the process that made the attempt
    :param failure: for `Action.FAIL`: the reason
    :param supersedes: for `Action.SUBMIT`: the lost attempts that it may pay for a second time
    """

    action: Action
    attempt: int
    operation_id: str | None = None
    owner: str | None = None
    failure: Failure | None = None
    supersedes: tuple[int, ...] = ()


def lost_attempts(attempts: Iterable[Attempt], now: datetime) -> list[Attempt]:
    """Return the lost attempts that are not settled, the newest first.

    A person settles one, or a later attempt that is sent in place of it on purpose. The end of another attempt settles
    nothing, nor does a refused attempt, which was not sent. A deleted attempt still settles those that it superseded.
    """
    known = sorted(attempts, key=lambda one: -one.number)
    settled = {number for one in known if one.state is not AttemptState.REFUSED for number in one.supersedes}
    return [one for one in known if one.is_lost(now) and one.number not in settled]


def decide(attempts: Sequence[Attempt], request: Request, now: datetime) -> Decision:
    """Decide what to do about a recording.

    In this order: what the run has sent already is not sent again; an archived answer is used; a running operation is
    joined; a process that is submitting the recording is waited for; a lost submission stops it until it is settled;
    the newest attempt with a known end decides. Attempts that were refused, never sent or deleted are ignored.

    :param attempts: all that are on record under the fingerprint, in any order
    :param request: who asks
    :param now: UTC
    """
    seen = [one for one in sorted(attempts, key=lambda one: -one.number) if request.reuse or one.scope == request.scope]
    ours = [one for one in seen if one.state not in (AttemptState.REFUSED, AttemptState.FORGOTTEN)]
    for one in ours:
        if one.was_sent_by(request):
            return _about(Action.SENT, one)
    for one in ours:
        if one.state is AttemptState.FINISHED:
            return _about(Action.REUSE, one)
    for one in ours:
        if one.state is AttemptState.IN_FLIGHT:
            is_old = one.submitted_at is not None and now - one.submitted_at >= RESULTS_KEPT
            return _about(Action.ASK if is_old else Action.JOIN, one)
    for one in ours:
        if one.is_live(now):
            return _about(Action.WAIT, one)
    lost = lost_attempts(seen, now)
    if lost and not (request.resubmit_lost and _may_resubmit(ours, request, now)):
        return _about(Action.LOST, lost[0])
    newest = next((one for one in ours if not one.is_lost(now)), None)
    if newest is not None and newest.state is AttemptState.FAILED and newest.failure and newest.failure.is_permanent:
        return _about(Action.FAIL, newest)
    # Settled ones too: the attempt that settled them may turn out not to have been sent.
    supersedes = tuple(one.number for one in seen if one.is_lost(now)) if lost else ()
    number = max((one.number for one in attempts), default=0) + 1
    return Decision(action=Action.SUBMIT, attempt=number, supersedes=supersedes)


def _about(action: Action, one: Attempt) -> Decision:
    number, operation_id, owner = one.number, one.operation_id, one.owner
    return Decision(action=action, attempt=number, operation_id=operation_id, owner=owner, failure=one.failure)


def _may_resubmit(attempts: Iterable[Attempt], request: Request, now: datetime) -> bool:
    """Whether this scope has not lost a submission yet that it had sent in place of a lost one.

    Otherwise each try of a task could pay again.
    """
    return not any(one.scope == request.scope and one.supersedes and one.is_lost(now) for one in attempts)
