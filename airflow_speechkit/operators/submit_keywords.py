"""The keywords of what submits recordings: as an operator stores them, and what they mean."""

from __future__ import annotations

import logging
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, conf

from airflow_speechkit.errors import RecordingNotFoundError, SettingsError
from airflow_speechkit.keywords import CheckedFields, Checks, count, optional, seconds, switch
from airflow_speechkit.settings import RecognitionSettings, member_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from airflow_speechkit.archive.runs import SubmitRun
    from airflow_speechkit.archive.submit_rules import SubmitPolicy
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.recordings.source import RecordingSource

log = logging.getLogger(__name__)


class SubmitKeywords(CheckedFields, BaseOperator):
    """An operator with the keywords that `SpeechKitSubmitOperator` documents."""

    typed_fields: ClassVar[Checks] = {
        "sample_rate_hertz": optional(count),
        "audio_channel_count": optional(count),
        "audio_stream": optional(count),
        "min_duration_s": optional(seconds),
        "max_duration_s": optional(seconds),
        "skip_silent": switch,
        "split": switch,
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
        "pair",
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

    def __init__(
        self,
        *,
        audio: str | Sequence[str | Sequence[str]],
        bucket: str | None = None,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        on_empty: str = "skip",
        pair: Sequence[str] | None = None,
        on_lone_side: str = "alone",
        channel_labels: Sequence[str] | None = None,
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
        identity: str = "address",
        speechkit_conn_id: str = "speechkit_default",
        aws_conn_id: str | None = None,
        archive: str | bool | None = None,
        upload_to: str | None = None,
        convert: str = "auto",
        audio_stream: int | str | None = None,
        on_truncated: str = "fail",
        min_duration_s: timedelta | float | str | None = None,
        max_duration_s: timedelta | float | str | None = None,
        skip_silent: bool | str = False,
        on_filtered: str = "skip",
        split: bool | str = False,
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
        super().__init__(**kwargs)
        self.set_keywords(locals())
        if deferrable is None:
            by_default = conf.getboolean("operators", "default_deferrable", fallback=False)
            # Only where it is possible.
            self.deferrable = by_default and archive is not False

    def find_recordings(self, source: RecordingSource, began_at: datetime) -> SubmitRun:
        """Find what `audio` matches, and look it up; local files are uploaded.

        :param source: finds them
        :param began_at: when the task began, UTC
        :raises SpeechKitError: a keyword is invalid, or a bucket can't be listed
        :raises AirflowSkipException: nothing matches, and `on_empty` is ``skip``
        """
        from airflow_speechkit.archive.runs import SubmitRun
        from airflow_speechkit.archive.submit_rules import SubmitOutcome
        from airflow_speechkit.operators.audio import OnEmpty, addresses, check_length, choice, labels_for
        from airflow_speechkit.recordings.labels import LabelRules
        from airflow_speechkit.recordings.pairs import PairRules

        on_empty = member_of(OnEmpty, self.on_empty, "on_empty")
        where = self.labels_from_key, self.labels_from_sidecar, self.sidecar_fields, self.on_missing_labels
        pair_rules = PairRules.of(self.pair, self.on_lone_side, self.channel_labels)
        rules = LabelRules.of(*where, pair_rules)
        try:
            found = source.find(addresses(self.audio, self.bucket), choice(self.include, self.exclude))
            findings = source.pair_up(found, pair_rules)
        except RecordingNotFoundError as error:
            if on_empty is OnEmpty.FAIL:
                raise
            log.warning("Skipped (on_empty='skip'): %s", error)
            raise AirflowSkipException(error.what) from None
        returns_list = findings.by_pattern or not isinstance(self.audio, str)
        if returns_list:
            check_length(self, len(findings.places))
        labels = pair_rules.with_channel_labels(findings.roles, labels_for(self.labels, findings, source, self.bucket))
        recordings = source.resolve(findings, labels, rules)
        outcomes = [SubmitOutcome(recording=one) for one in recordings]
        return SubmitRun(began_at=began_at, returns_list=returns_list, outcomes=outcomes)

    def recording_source(self, hook: SpeechKitHook) -> RecordingSource:
        """Return what finds and reads the recordings.

        :param hook: the service's connection
        :raises SettingsError: a keyword is invalid
        """
        from airflow_speechkit.hooks.storage import storage_client
        from airflow_speechkit.recordings.conversion.convert import OnTruncated
        from airflow_speechkit.recordings.filters import Filters
        from airflow_speechkit.recordings.finder import CONCURRENCY, Convert
        from airflow_speechkit.recordings.source import ProbeMode, RecordingSource

        settings = {one.name: getattr(self, one.name) for one in fields(RecognitionSettings)}
        settings["api_version"] = settings["api_version"] or hook.connection.api_version
        probe = member_of(ProbeMode, self.probe, "probe")
        endpoint = hook.connection.endpoints.storage
        return RecordingSource(
            settings=RecognitionSettings(**settings),
            storage_endpoint=endpoint,
            aws_conn_id=self.aws_conn_id or hook.connection.aws_conn_id,
            connect=partial(storage_client, storage_endpoint=endpoint, connections=CONCURRENCY),
            upload_to=self.upload_to,
            convert=member_of(Convert, self.convert, "convert"),
            audio_stream=self.audio_stream,
            on_truncated=member_of(OnTruncated, self.on_truncated, "on_truncated"),
            filters=Filters(
                min_duration_s=self.min_duration_s,
                max_duration_s=self.max_duration_s,
                skip_silent=self.skip_silent,
            ),
            split=self.split,
            read_whole=probe is ProbeMode.FULL or self.max_billed_seconds is not None,
        )

    def submit_policy(self, hook: SpeechKitHook) -> SubmitPolicy:
        """Return how to submit them.

        :param hook: the service's connection
        :raises SettingsError: a keyword is invalid
        """
        from airflow_speechkit.archive.submit_rules import OnFiltered, OnLostSubmission, SubmitPolicy

        return SubmitPolicy(
            reuse=self.reuse,
            on_lost_submission=member_of(OnLostSubmission, self.on_lost_submission, "on_lost_submission"),
            allow_unversioned=self.allow_unversioned,
            max_billed_seconds=self.max_billed_seconds,
            submits_per_hour=self.submits_per_hour or hook.connection.submits_per_hour,
            labels_update=self.labels_update,
            on_filtered=member_of(OnFiltered, self.on_filtered, "on_filtered"),
            without_archive=self.archive is False,
            split=self.split,
        )

    def check_keywords(self) -> None:
        """Check keywords that exclude each other.

        :raises SettingsError: two of them do
        """
        for name, is_set in (
            ("deferrable", self.deferrable),
            ("on_failure='record'", self.on_failure == "record"),
            ("on_filtered='record'", self.on_filtered == "record"),
            ("only_new", self.only_new),
            ("split", self.split),
        ):
            if self.archive is False and is_set:
                raise SettingsError(
                    f"`{name}` needs an archive, and `archive` is False", hint=f"Set an archive, or remove `{name}`"
                )
        if self.split and self.identity == "content":
            raise SettingsError(
                "`split` and `identity='content'` can't be used together", hint="Submit long recordings in another task"
            )
