"""What a user may write as `audio`, `bucket` and `labels`, checked and made into lists; and how long a list may be."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, MappedOperator, XComArg, conf

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.recordings.finder import Choice
from airflow_speechkit.redaction import clean_address

if TYPE_CHECKING:
    from airflow_speechkit.recordings.places import Findings
    from airflow_speechkit.recordings.source import RecordingSource

log = logging.getLogger(__name__)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class OnEmpty(StrEnum):
    """What a prefix or a glob with no recording does to the task."""

    SKIP = "skip"
    FAIL = "fail"


def addresses(audio: Any, bucket: str | None) -> str | list[str | tuple[str, str]]:
    """Return the addresses that `audio` holds, in the shape it has; keys get the bucket they are in.

    In a list of keys one that ends in a slash is a folder marker, which ``S3ListOperator`` lists too: it is left out.

    :param audio: an address or a key, or a list or lazy sequence of them; an item can be a pair of them
    :param bucket: ``bucket`` or ``conn_id@bucket``
    :raises SettingsError: it is empty, or holds something else
    """
    if isinstance(audio, str) or not isinstance(audio, Iterable):
        given = [_text_list(audio, "audio")]
    else:
        given = [_text_list(one if _is_pair(one) else [one], "audio") for one in audio]
    if "None" in (text.strip() for one in given for text in one):
        raise SettingsError(
            "`audio` is the text 'None': a template found nothing",
            hint="Check the template, and why the upstream task returned nothing. Its `.output` needs no template",
        )
    # What comes lazily, from a mapped upstream, was not cut when it was rendered.
    given = [[clean_address(text) for text in one] for one in given]
    if bucket is not None:
        [place] = _text_list(bucket, "bucket")
        if place.strip() == "None" or "/" in place:
            raise SettingsError(
                f"`bucket` must be the name of a bucket, not {place!r}", hint="Write it as bucket or conn_id@bucket"
            )
        if not isinstance(audio, str):
            found = [one for one in given if len(one) == 2 or _SCHEME.match(one[0]) or not one[0].endswith("/")]
            if len(found) < len(given):
                log.info("Left out %d folder markers (keys that end in a slash)", len(given) - len(found))
            given = found
        given = [[_with_bucket(text, place) for text in one] for one in given]
    if not given:
        raise SettingsError("`audio` is an empty list", hint="Give it at least one recording, or a prefix")
    if isinstance(audio, str):
        return given[0][0]
    return [(one[0], one[1]) if len(one) == 2 else one[0] for one in given]


def _is_pair(one: object) -> bool:
    return isinstance(one, (list, tuple)) and len(one) == 2


def _with_bucket(text: str, bucket: str | None) -> str:
    return text if bucket is None or _SCHEME.match(text) else f"s3://{bucket}/{text}"


def choice(include: Any, exclude: Any) -> Choice | None:
    """Return what `include` and `exclude` choose; None where neither is given.

    :raises SettingsError: one of them holds something else than globs
    """
    if include is None and exclude is None:
        return None
    return Choice(
        include=() if include is None else _text_list(include, "include"),
        exclude=() if exclude is None else _text_list(exclude, "exclude"),
    )


def _text_list(given: Any, name: str) -> list[str]:
    """Make a list of a keyword that takes one text or several. Blanks at a text's ends may be part of a key."""
    found = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for one in found:
        if not isinstance(one, str) or not one.strip():
            found_type = "an empty text" if isinstance(one, str) else type(one).__name__
            raise SettingsError(f"`{name}` must be a text or a list of texts, and it has {found_type}")
    return found


def labels_for(labels: Any, findings: Findings, source: RecordingSource, bucket: str | None) -> list[dict[str, str]]:
    """Give each recording its labels.

    :param labels: one mapping for all, a list with one for each, or a mapping of addresses to one
    :param findings: the recordings
    :param source: what has found them
    :param bucket: of addresses that are keys
    :raises SettingsError: the list has another length, a label has no value, or two entries of an address differ
    """
    number = len(findings.places)
    if isinstance(labels, Mapping) and any(isinstance(one, Mapping) for one in labels.values()):
        return _labels_by_address(labels, findings, source, bucket)
    if labels is None or isinstance(labels, Mapping):
        return [_label_texts(labels or {})] * number
    if isinstance(labels, str):
        raise SettingsError(
            "`labels` must be a mapping of names to texts, a list of mappings, or a mapping of addresses to mappings, "
            "not a text",
            hint="Templates return texts unless the DAG has render_template_as_native_obj=True: write "
            "a mapping with templates for values, or give it an upstream's `.output`",
        )
    if findings.by_pattern:
        raise SettingsError(
            "`labels` is a list, and a prefix or glob matches any number of recordings",
            hint="Give it a mapping of addresses to labels",
        )
    each = list(labels)
    if len(each) != number:
        raise SettingsError(f"`labels` is a list of {len(each)}, for {number} recordings")
    return [_label_texts(one) for one in each]


def _labels_by_address(
    labels: Mapping[Any, Any], findings: Findings, source: RecordingSource, bucket: str | None
) -> list[dict[str, str]]:
    known: dict[str, dict[str, str]] = {}
    for text, own in labels.items():
        if not isinstance(text, str):
            raise SettingsError("`labels` has something in place of a recording's address that isn't a text")
        uri, found = source.uri_of(_with_bucket(clean_address(text), bucket)), _label_texts(own)
        if known.setdefault(uri, found) != found:
            raise SettingsError(
                f"`labels` has two entries for {uri}, with different labels", hint="Give each recording one entry"
            )
    uris = findings.uris
    if others := known.keys() - set(chain.from_iterable(uris)):
        example = next(one for one in known if one in others)
        log.warning("%s addresses in `labels` match no recording, such as %s", f"{len(others):,}", example)
    # Of a pair, the labels of the first recording take precedence.
    return [{name: text for uri in reversed(each) for name, text in known.get(uri, {}).items()} for each in uris]


def _label_texts(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise SettingsError("`labels` has something in it that isn't a mapping of names to texts")
    for name, value in given.items():
        # NaN is what a DataFrame has for no value, and differs from itself.
        if value is None or value != value:
            raise SettingsError(
                f"The label {name!r} is {value}: the tables would have it as the text '{value}'",
                hint="Leave out labels that have no value",
            )
    return {name: str(value) for name, value in given.items()}


def check_length(operator: BaseOperator, length: int) -> None:
    """Refuse a list of operation ids that Airflow would refuse after it was paid for.

    :param operator: the one that returns them
    :param length: how many they will be
    :raises SettingsError: a task is mapped over them, and `[core] max_map_length` is less
    """
    limit = conf.getint("core", "max_map_length", fallback=1024)
    if length <= limit or not operator.has_dag():  # type: ignore[no-untyped-call]
        return
    # What is mapped over a mapped task has as many instances as that one has, however long each one's list is.
    if isinstance(operator.dag.get_task(operator.task_id), MappedOperator):
        return
    mapped = next(_mapped_over_ids_of(operator), None)
    if mapped is not None:
        raise SettingsError(
            f"{length} operation ids would be passed to {mapped.node_id!r}, which is mapped over them, and "
            f"`[core] max_map_length` is {limit}",
            hint=f"Pass the whole list to {mapped.node_id!r} (`operation_id=`, without expand), or raise the limit; "
            "nothing has been uploaded or sent",
        )


def _mapped_over_ids_of(operator: BaseOperator) -> Iterator[Any]:
    """Give what is mapped over the operation ids: as they are returned, or as a sensor hands them on."""
    yield from operator.iter_mapped_dependants()
    for task in operator.downstream_list:
        # By its name: operators and sensors know nothing of each other.
        if any(kind.__name__ == "SpeechKitRecognitionSensor" for kind in type(task).__mro__):
            given = XComArg.iter_xcom_references(getattr(task, "operation_id", None))
            if any(upstream.node_id == operator.node_id for upstream, _ in given):
                yield from task.iter_mapped_dependants()
