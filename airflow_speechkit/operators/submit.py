"""Recordings become operations, each paid for once."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.operators.submit_keywords import SubmitKeywords
from airflow_speechkit.settings import member_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_speechkit.archive.submit import Submitter
    from airflow_speechkit.operators.visit import SubmitVisit

log = logging.getLogger(__name__)


class SpeechKitSubmitOperator(SubmitKeywords):
    """Submit recordings for recognition, and return their operation ids through XCom.

    A recording that was submitted before with the same settings isn't paid for again: a retry, a cleared task, a
    backfill or another DAG gets the same operation id. The archive has what was submitted, so this also holds for a
    worker that was killed. See ``docs/archive.md``.

    :param audio: ``s3://bucket/key``, ``s3://conn_id@bucket/key``, an https link to Object Storage, a local file
        (with `upload_to`, or small ones with API v3), a list of these, or a prefix (``s3://bucket/2026-11-22/``)
        or glob (``s3://bucket/**/*.ogg``) (templated). Credentials in an address (a password, a link's query) are
        removed before Airflow stores it. An object whose key equals the glob takes precedence. An item of a list can
        be a pair: two addresses of mono recordings, which become one stereo recording
    :param bucket: the bucket of keys without ``s3://``, as ``S3ListOperator`` returns them: ``bucket`` or
        ``conn_id@bucket`` (templated)
    :param include: a glob or a list of them: which objects of prefixes and globs to take. ``*.ogg`` (without a slash)
        is matched with a key's last part, others with the key, or with its part behind the prefix (templated)
    :param exclude: which objects not to take, in the same way (templated)
    :param on_empty: what a prefix or glob with no recording does: ``skip`` the task with a warning, or ``fail`` it.
        In a list, an address that matches nothing is always an error
    :param pair: two patterns of what keys end with, ``("{call}-in.wav", "{call}-out.wav")``: mono recordings in one
        folder with the same text for each placeholder become one stereo recording, whose channel 0 is the first. Needs
        `upload_to` and the extra ``audio`` (templated)
    :param on_lone_side: what a recording does that matches one pattern, and has no other side: it is submitted
        ``alone``, or it has to ``fail``
    :param channel_labels: the labels ``channel_0`` and ``channel_1`` of pairs, ``("customer", "agent")``; a lone side
        has its own as ``channel_0``
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
    :param labels_from_sidecar: where a JSON object with a recording's labels is: ``{stem}.json`` beside it, with `pair`
        also ``{call}.json``, or ``s3://bucket/{folder}{stem}.json``. It takes precedence over the key, and `labels`
        over both (templated)
    :param sidecar_fields: which of its fields become labels: a list of names, or ``{label: dotted path}`` (templated)
    :param on_missing_labels: a key that doesn't match, or a sidecar that can't be used, ``fail`` the recording, or let
        it ``pass`` without these labels
    :param labels_update: replace labels that differ, too. Neither is paid for (templated)
    :param identity: what makes two recordings one, which is paid for once: ``address`` (and ETag), or ``content``: the
        same bytes at another address or with another ETag. Each recording is read completely, once, for that
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
    :param min_duration_s: leave out shorter recordings: seconds, or a timedelta (templated)
    :param max_duration_s: leave out longer ones (templated)
    :param skip_silent: leave out those whose channels are all silent; OggOpus and MP3 need the extra ``audio``
        (templated)
    :param on_filtered: what is left out is not returned (``skip``), or ``record``: a synthetic id brings a row with
        its reason into `recognitions`. It is never sent; what has its operation already is returned as usual
    :param split: cut what is longer than the service takes at quiet places, and submit the parts, each an operation of
        its own; the tables have one recognition. Needs `upload_to` (templated)
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

    ui_color = "#fff3d6"

    #: What submits, or has submitted last.
    _submitter: Submitter | None = None

    def execute(self, context: Context) -> Any:
        """Submit all recordings; if deferrable, as many as the quota allows now.

        :return: an operation id for one recording, a list for a list, a pattern, or a recording in parts
        :raises SpeechKitError: what went wrong, and with which recording; a retry continues where this one stopped
        :raises AirflowFailException: without an archive, a request may have been accepted: a retry could pay again
        :raises AirflowSkipException: a prefix or glob matches no recording, and `on_empty` is ``skip``
        """
        with self.visit(context, waits=not self.deferrable) as visit:
            if self.deferrable:
                log.info("%s", visit.progress())
            return self.go_on(visit)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Resume after a deferral: submit what the quota allows now.

        :param event: of the time trigger; not used
        :raises AirflowFailException: the archive lacks the record of the visit before
        """
        with self.visit(context, is_first=False) as visit:
            log.info("%s", visit.progress())
            return self.go_on(visit)

    def go_on(self, visit: SubmitVisit) -> Any:
        """Defer until the next visit, or return the operation ids if nothing is left."""
        from airflow.providers.common.compat.standard.triggers import TimeDeltaTrigger

        next_at = visit.run.next_at
        if next_at is None:
            return visit.returned_ids()
        timeout = self.time_left(visit.run.began_at)
        trigger = TimeDeltaTrigger(next_at - datetime.now(UTC))
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

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
        from airflow_speechkit.archive.identity import Identity, with_content_hashes
        from airflow_speechkit.archive.runs import write_run
        from airflow_speechkit.archive.submit import Submitter
        from airflow_speechkit.archive.submit_rules import OnFailure
        from airflow_speechkit.hooks.speechkit import SpeechKitHook
        from airflow_speechkit.operators import visit

        began_at, origin = datetime.now(UTC), visit.origin_of(context, self.speechkit_conn_id)
        self.check_keywords()
        on_failure = member_of(OnFailure, self.on_failure, "on_failure")
        identity = member_of(Identity, self.identity, "identity")
        with SpeechKitHook(self.speechkit_conn_id) as hook:
            policy, source = self.submit_policy(hook), self.recording_source(hook)
            with visit.opened_archive(self.archive, hook, is_first=is_first) as archive:
                if is_first:
                    run = self.find_recordings(source, began_at)
                else:
                    run = visit.resumed_run(archive, origin.scope, source, timeout_s)
                if identity is Identity.CONTENT:
                    run = visit.with_left(run, with_content_hashes(archive, source, run.left))
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
                        delivery=origin if self.only_new and origin.scope is not None else None,
                    )
                except SpeechKitError as error:
                    if policy.without_archive:
                        visit.fail_without_archive(error, submitter.done)
                    raise
