"""Recordings become operations, each paid for once."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, conf

from airflow_speechkit.errors import RecordingNotFoundError, SettingsError, SpeechKitError
from airflow_speechkit.keywords import CheckedFields, cleaned, count, names_cleaned, optional, switch
from airflow_speechkit.settings import RecognitionSettings, member_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_speechkit.archive.runs import SubmitRun
    from airflow_speechkit.archive.submit import Submitter
    from airflow_speechkit.archive.submit_rules import SubmitPolicy
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.keywords import Checks
    from airflow_speechkit.operators.visit import SubmitVisit
    from airflow_speechkit.recordings.source import RecordingSource

log = logging.getLogger(__name__)


class SpeechKitSubmitOperator(CheckedFields, BaseOperator):
    """Submit recordings for recognition, and return their operation ids through XCom.

    A recording that was submitted before with the same settings isn't paid for again: a retry, a cleared task, a
    backfill or another DAG gets the same operation id. The archive has what was submitted, so this also holds for a
    worker that was killed. See ``docs/archive.md``.

    :param audio: ``s3://bucket/key``, ``s3://conn_id@bucket/key``, an https link to Object Storage, a local file
        (with `upload_to`, or small ones with API v3), a list of these, or a prefix (``s3://bucket/2026-11-22/``)
        or glob (``s3://bucket/**/*.ogg``) (templated). Credentials in an address (a password, a link's query) are
        removed before Airflow stores it. An object whose key equals the glob takes precedence
    :param bucket: the bucket of keys without ``s3://``, as ``S3ListOperator`` returns them: ``bucket`` or
        ``conn_id@bucket`` (templated)
    :param include: a glob or a list of them: which objects of prefixes and globs to take. ``*.ogg`` (without a slash)
        is matched with a key's last part, others with the key, or with its part behind the prefix (templated)
    :param exclude: which objects not to take, in the same way (templated)
    :param on_empty: what a prefix or glob with no recording does: ``skip`` the task with a warning, or ``fail`` it.
        In a list, an address that matches nothing is always an error
    :param language: language code, ``ru-RU`` by default (templated)
    :param model: ``general``, ``general:rc``, ``general:deprecated``, ``deferred-general`` … (templated)
    :param profanity_filter: mask swearwords
    :param literature_text: punctuation and capitals
    :param raw_results: numbers spelled out
    :param audio_encoding: ``LINEAR16_PCM``, ``OGG_OPUS``, ``MP3``, with v3 ``WAV``; by default read from the
        recording's first bytes, otherwise compared with them
    :param sample_rate_hertz: of LINEAR16_PCM: 8000, 16000 or 48000 (templated)
    :param audio_channel_count: of LINEAR16_PCM only (templated)
    :param api_version: ``v2`` or ``v3``; the connection's by default
    :param languages: v3: the language codes of `language_restriction`, in place of `language` (templated)
    :param language_restriction: v3: ``WHITELIST`` (the default with `languages`) or ``BLACKLIST``
    :param phone_formatting: v3: ``False`` leaves telephone numbers as they are
    :param classifiers: v3: name of a classifier -> when it is asked (``ON_UTTERANCE``, ``ON_FINAL``, ``ON_PARTIAL``)
    :param speaker_analysis: v3: statistics for each speaker
    :param conversation_analysis: v3: statistics of the conversation
    :param analysis_quantiles: v3: quantiles of those statistics, between 0 and 1
    :param speaker_silence_threshold_ms: v3: how long a pause counts as a speaker's silence
    :param simultaneous_silence_threshold_ms: v3: how long both have to be silent for it to count
    :param simultaneous_speech_threshold_ms: v3: how long both have to speak for it to count
    :param speaker_labeling: v3: distinguish two speakers of a mono recording
    :param summarization: v3: ``{"model_uri": …, "properties": [{"instruction": …, "json_object" | "json_schema": …}]}``
        (templated)
    :param labels: your own facts (a call id, a direction, ``channel_0``: a role), for all recordings, a list with a
        mapping for each, or a mapping of addresses to mappings; they become part of `recognitions`. A recording that
        has its operation already gets those that it lacks (templated)
    :param labels_from_key: a regular expression: its named groups become labels, if they match in the key (templated)
    :param labels_from_sidecar: where a JSON object with a recording's labels is: ``{stem}.json`` beside it, or
        ``s3://bucket/{folder}{stem}.json``. It takes precedence over the key, and `labels` over both (templated)
    :param sidecar_fields: which of its fields become labels: a list of names, or ``{label: dotted path}`` (templated)
    :param on_missing_labels: a key that doesn't match, or a sidecar that can't be used, ``fail`` the recording, or let
        it ``pass`` without these labels
    :param labels_update: replace labels that differ, too. Neither is paid for (templated)
    :param speechkit_conn_id: the connection (templated)
    :param aws_conn_id: the storage's connection for addresses that name none; by default the SpeechKit connection's, or
        ``aws_default`` (templated)
    :param archive: URL of the archive; by default the connection's, then ``[speechkit] archive``. ``False`` works
        without: then every run, and every retry, pays, and a lost submission fails the task without retries (templated)
    :param upload_to: ``s3://bucket/prefix/``: where local files and converted copies are put (templated)
    :param convert: ``auto`` converts what the API doesn't take as it is, on the worker, if `upload_to` is set (extra
        ``audio``); ``never`` refuses it
    :param audio_stream: which audio stream of a converted file, counted from 1; by default a player's (templated)
    :param on_truncated: what a recording does that has to be converted and is cut off or damaged: ``fail``, or
        ``convert`` what can be decoded, with a warning
    :param reuse: use operations that are paid for already; ``False`` pays again, once for each task instance
        (templated)
    :param allow_unversioned: accept recordings without an ETag
    :param on_lost_submission: what to do about a request that the service may have accepted and whose operation id
        never came back: ``fail``, or ``resubmit`` (which may pay twice)
    :param on_failure: what a recording that can't be submitted does: ``fail`` the task after all others were
        submitted, ``skip`` the recording, or ``record`` it (a synthetic id brings its error into `recognitions`).
        A lost submission, or an error that a retry may solve, always fails the task
    :param max_billed_seconds: send nothing if all that has to be sent would be billed more; a second of a deferred
        model costs a quarter (templated)
    :param probe: ``auto`` reads the first and last bytes of a recording, and all of it if these don't prove its
        length and a limit depends on that (`max_billed_seconds`, or the service's 4 hours); ``full`` reads everything
        whose length its first bytes don't prove
    :param submits_per_hour: the folder's quota; the connection's by default, then 500 (templated)
    :param only_new: return only operations that have no archived answer yet, or that no other run of this task returned
        (templated)
    :param deferrable: free the worker while the quota is used up: a list that takes hours is sent in visits of at
        least 50 recordings. Needs an archive. Default: ``[operators] default_deferrable``
    """

    typed_fields: ClassVar[Checks] = {
        "sample_rate_hertz": optional(count),
        "audio_channel_count": optional(count),
        "audio_stream": optional(count),
        "reuse": switch,
        "max_billed_seconds": optional(count),
        "submits_per_hour": optional(count),
        "labels_update": switch,
        "only_new": switch,
    }
    template_fields: Sequence[str] = (
        "audio",
        "bucket",
        "include",
        "exclude",
        "language",
        "model",
        "languages",
        "summarization",
        "labels",
        "labels_from_key",
        "labels_from_sidecar",
        "sidecar_fields",
        "speechkit_conn_id",
        "aws_conn_id",
        "archive",
        "upload_to",
        *typed_fields,
    )
    address_fields = ("audio", "bucket", "labels_from_sidecar", "archive", "upload_to")
    address_key_fields = ("labels",)
    template_fields_renderers = {"labels": "json", "summarization": "json"}  # noqa: RUF012 - as Airflow declares it
    ui_color = "#fff3d6"

    def __init__(
        self,
        *,
        audio: str | Sequence[str],
        bucket: str | None = None,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        on_empty: str = "skip",
        language: str = "ru-RU",
        model: str = "general",
        profanity_filter: bool = False,
        literature_text: bool = False,
        raw_results: bool = False,
        audio_encoding: str | None = None,
        sample_rate_hertz: int | str | None = None,
        audio_channel_count: int | str | None = None,
        api_version: str | None = None,
        languages: Sequence[str] = (),
        language_restriction: str | None = None,
        phone_formatting: bool | None = None,
        classifiers: Mapping[str, Sequence[str]] | None = None,
        speaker_analysis: bool = False,
        conversation_analysis: bool = False,
        analysis_quantiles: Sequence[float] = (),
        speaker_silence_threshold_ms: int | None = None,
        simultaneous_silence_threshold_ms: int | None = None,
        simultaneous_speech_threshold_ms: int | None = None,
        speaker_labeling: bool = False,
        summarization: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | Sequence[Mapping[str, str]] | Mapping[str, Mapping[str, str]] | None = None,
        labels_from_key: str | None = None,
        labels_from_sidecar: str | None = None,
        sidecar_fields: Sequence[str] | Mapping[str, str] | None = None,
        on_missing_labels: str = "fail",
        labels_update: bool | str = False,
        speechkit_conn_id: str = "speechkit_default",
        aws_conn_id: str | None = None,
        archive: str | bool | None = None,
        upload_to: str | None = None,
        convert: str = "auto",
        audio_stream: int | str | None = None,
        on_truncated: str = "fail",
        reuse: bool | str = True,
        allow_unversioned: bool = False,
        on_lost_submission: str = "fail",
        on_failure: str = "fail",
        max_billed_seconds: int | str | None = None,
        probe: str = "auto",
        submits_per_hour: int | str | None = None,
        only_new: bool | str = False,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        given = locals()
        super().__init__(**kwargs)
        # `_source` reads all settings by their names. Airflow wants to see those assigned below that are templated.
        for one in fields(RecognitionSettings):
            setattr(self, one.name, given[one.name])
        self.audio = cleaned(audio)
        self.bucket = cleaned(bucket)
        self.include = include
        self.exclude = exclude
        self.on_empty = on_empty
        self.language = language
        self.model = model
        self.sample_rate_hertz = self.typed("sample_rate_hertz", sample_rate_hertz)
        self.audio_channel_count = self.typed("audio_channel_count", audio_channel_count)
        self.languages = languages
        self.summarization = summarization
        self.labels = names_cleaned(labels)
        self.labels_from_key, self.labels_from_sidecar = labels_from_key, cleaned(labels_from_sidecar)
        self.sidecar_fields = sidecar_fields
        self.on_missing_labels = on_missing_labels
        self.labels_update = self.typed("labels_update", labels_update)
        self.speechkit_conn_id = speechkit_conn_id
        self.aws_conn_id = aws_conn_id
        self.archive = cleaned(archive)
        self.upload_to = cleaned(upload_to)
        self.convert = convert
        self.audio_stream = self.typed("audio_stream", audio_stream)
        self.on_truncated = on_truncated
        self.reuse = self.typed("reuse", reuse)
        self.allow_unversioned = allow_unversioned
        self.on_lost_submission = on_lost_submission
        self.on_failure = on_failure
        self.max_billed_seconds = self.typed("max_billed_seconds", max_billed_seconds)
        self.probe = probe
        self.submits_per_hour = self.typed("submits_per_hour", submits_per_hour)
        self.only_new = self.typed("only_new", only_new)
        # By default only where it is possible.
        by_default = archive is not False and conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = by_default if deferrable is None else deferrable
        #: What submits, or has submitted last.
        self._submitter: Submitter | None = None

    def execute(self, context: Context) -> Any:
        """Submit all recordings; if deferrable, as many as the quota allows now.

        :return: an operation id for one recording, a list for a list or a pattern
        :raises SpeechKitError: what went wrong, and with which recording; a retry continues where this one stopped
        :raises AirflowFailException: without an archive, a request may have been accepted: a retry could pay again
        :raises AirflowSkipException: a prefix or glob matches no recording, and `on_empty` is ``skip``
        """
        with self.visit(context, waits=not self.deferrable) as visit:
            if self.deferrable:
                log.info("%s", visit.progress())
            return self.go_on(visit)

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Resume after a deferral: submit what the quota allows now.

        :param event: of the time trigger; not used
        :raises AirflowFailException: the archive lacks the record of the visit before
        """
        with self.visit(context, is_first=False) as visit:
            log.info("%s", visit.progress())
            return self.go_on(visit)

    def go_on(self, visit: SubmitVisit) -> Any:
        """Defer until the next visit, or return the operation ids if nothing is left."""
        from airflow_speechkit.compat import time_trigger

        next_at = visit.run.next_at
        if next_at is None:
            return visit.returned_ids()
        timeout = self.time_left(visit.run.began_at)
        return self.defer(trigger=time_trigger(next_at), method_name="execute_complete", timeout=timeout)

    def time_left(self, began_at: datetime, *ends: datetime) -> timedelta | None:
        """Return the time until the first of some ends; `execution_timeout`, of all visits together, is another."""
        if self.execution_timeout is not None:
            ends = (*ends, began_at + self.execution_timeout)
        return max(min(ends) - datetime.now(UTC), timedelta(seconds=1)) if ends else None

    @contextmanager
    def visit(
        self, context: Context, *, is_first: bool = True, waits: bool = False, timeout_s: float | None = None
    ) -> Iterator[SubmitVisit]:
        """Find the recordings, and submit what the quota allows now.

        The archive keeps the recordings and their outcomes, so each visit can run in another process.

        :param is_first: whether it is the first visit of a try, which finds the recordings for all visits
        :param waits: wait for the quota until all are submitted: there is no other visit
        :param timeout_s: how long after the first visit began nothing more is sent, in seconds
        :raises SpeechKitError: nothing more can be sent
        :raises AirflowFailException: the archive lacks the record of the visit before; or there is none, and a request
            may have been accepted: a retry could pay again
        """
        from airflow_speechkit.archive.runs import write_run
        from airflow_speechkit.archive.submit import Submitter
        from airflow_speechkit.archive.submit_rules import OnFailure
        from airflow_speechkit.hooks.speechkit import SpeechKitHook
        from airflow_speechkit.operators import visit

        began_at, origin = datetime.now(UTC), visit.origin_of(context, self.speechkit_conn_id)
        self._check_keywords()
        on_failure = member_of(OnFailure, self.on_failure, "on_failure")
        with SpeechKitHook(self.speechkit_conn_id) as hook:
            policy, source = self._policy(hook), self._source(hook)
            with visit.opened_archive(self.archive, hook, is_first=is_first) as archive:
                if is_first:
                    run = self._find(source, began_at)
                else:
                    run = visit.resumed_run(archive, origin.scope, source, timeout_s)
                submitter = self._submitter = Submitter(archive, source, hook, origin, policy)
                record_scope = None if waits else origin.scope
                try:
                    run = submitter.visit(run, waits=waits)
                    if record_scope is not None:
                        write_run(archive, record_scope, run)
                    yield visit.SubmitVisit(
                        hook=hook,
                        submitter=submitter,
                        run=run,
                        on_failure=on_failure,
                        record_scope=record_scope,
                        delivery=visit.delivery_to(context) if self.only_new else None,
                    )
                except SpeechKitError as error:
                    if policy.without_archive:
                        visit.fail_without_archive(error, submitter.done)
                    raise

    def _find(self, source: RecordingSource, began_at: datetime) -> SubmitRun:
        from airflow_speechkit.archive.runs import SubmitRun
        from airflow_speechkit.archive.submit_rules import SubmitOutcome
        from airflow_speechkit.operators.audio import OnEmpty, addresses, check_length, choice, labels_for
        from airflow_speechkit.recordings.labels import LabelRules

        on_empty = member_of(OnEmpty, self.on_empty, "on_empty")
        where = self.labels_from_key, self.labels_from_sidecar, self.sidecar_fields, self.on_missing_labels
        rules = LabelRules.of(*where)
        try:
            findings = source.find(addresses(self.audio, self.bucket), choice(self.include, self.exclude))
        except RecordingNotFoundError as error:
            if on_empty is OnEmpty.FAIL:
                raise
            log.warning("Skipped (on_empty='skip'): %s", error)
            raise AirflowSkipException(error.what) from None
        returns_list = findings.by_pattern or not isinstance(self.audio, str)
        if returns_list:
            check_length(self, len(findings.places))
        recordings = source.resolve(findings, labels_for(self.labels, findings, source, self.bucket), rules)
        outcomes = [SubmitOutcome(recording=one) for one in recordings]
        return SubmitRun(began_at=began_at, returns_list=returns_list, outcomes=outcomes)

    def _source(self, hook: SpeechKitHook) -> RecordingSource:
        from airflow_speechkit.hooks.storage import storage_client
        from airflow_speechkit.recordings.conversion.convert import OnTruncated
        from airflow_speechkit.recordings.source import CONCURRENCY, Convert, ProbeMode, RecordingSource

        settings = {one.name: getattr(self, one.name) for one in fields(RecognitionSettings)}
        settings["api_version"] = settings["api_version"] or hook.api_version
        probe = member_of(ProbeMode, self.probe, "probe")
        endpoint = hook.endpoints.storage
        return RecordingSource(
            settings=RecognitionSettings(**settings),
            storage_endpoint=endpoint,
            aws_conn_id=self.aws_conn_id or hook.aws_conn_id,
            connect=partial(storage_client, storage_endpoint=endpoint, connections=CONCURRENCY),
            upload_to=self.upload_to,
            convert=member_of(Convert, self.convert, "convert"),
            audio_stream=self.audio_stream,
            on_truncated=member_of(OnTruncated, self.on_truncated, "on_truncated"),
            read_whole=probe is ProbeMode.FULL or self.max_billed_seconds is not None,
        )

    def _policy(self, hook: SpeechKitHook) -> SubmitPolicy:
        from airflow_speechkit.archive.submit_rules import OnLostSubmission, SubmitPolicy

        return SubmitPolicy(
            reuse=self.reuse,
            on_lost_submission=member_of(OnLostSubmission, self.on_lost_submission, "on_lost_submission"),
            allow_unversioned=self.allow_unversioned,
            max_billed_seconds=self.max_billed_seconds,
            submits_per_hour=self.submits_per_hour or hook.submits_per_hour,
            labels_update=self.labels_update,
            without_archive=self.archive is False,
        )

    def _check_keywords(self) -> None:
        for name, is_set in (
            ("deferrable", self.deferrable),
            ("on_failure='record'", self.on_failure == "record"),
            ("only_new", self.only_new),
        ):
            if self.archive is False and is_set:
                raise SettingsError(
                    f"`{name}` needs an archive, and `archive` is False", hint=f"Set an archive, or remove `{name}`"
                )
