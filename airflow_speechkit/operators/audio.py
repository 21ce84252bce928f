"""What a user may write as `audio`, `bucket` and `labels`, checked and made into lists."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.recordings.finding import Choice
from airflow_speechkit.redaction import clean_address

log = logging.getLogger(__name__)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class OnEmpty(StrEnum):
    """What a prefix or a glob with no recording does to the task."""

    SKIP = "skip"
    FAIL = "fail"


def addresses(audio: Any, bucket: str | None) -> str | list[str]:
    """Return the addresses that `audio` holds, in the shape it has; keys get the bucket they are in.

    In a list of keys one that ends in a slash is a folder marker, which ``S3ListOperator`` lists too: it is left out.

    :param audio: an address or a key, or a list or lazy sequence of them
    :param bucket: ``bucket`` or ``conn_id@bucket``
    :raises SettingsError: it is empty, or holds something else
    """
    given = audio_list(audio)
    if bucket is None:
        return given[0] if isinstance(audio, str) else given
    [place] = text_list(bucket, "bucket")
    if place.strip() == "None" or "/" in place:
        raise SettingsError(
            f"`bucket` is {place!r}, and has to be the name of a bucket", hint="Write it as bucket or conn_id@bucket"
        )
    if isinstance(audio, str):
        return given[0] if _SCHEME.match(audio) else f"s3://{place}/{given[0]}"
    kept = [one for one in given if _SCHEME.match(one) or not one.endswith("/")]
    if len(kept) < len(given):
        log.info("Left out %s folder markers (keys that end in a slash)", f"{len(given) - len(kept):,}")
    return [one if _SCHEME.match(one) else f"s3://{place}/{one}" for one in audio_list(kept)]


def choice(include: Any, exclude: Any) -> Choice | None:
    """Return what `include` and `exclude` choose; None where neither is given.

    :raises SettingsError: one of them holds something else than globs
    """
    if include is None and exclude is None:
        return None
    globs = {
        name: () if given is None else tuple(text_list(given, name))
        for name, given in (("include", include), ("exclude", exclude))
    }
    return Choice(**globs)


def audio_list(audio: Any) -> list[str]:
    """Make a list of what `audio` is.

    :param audio: an address, or a list or lazy sequence of them
    :raises SettingsError: it is empty, or holds something else
    """
    found = text_list(audio, "audio")
    if "None" in (one.strip() for one in found):
        raise SettingsError(
            "`audio` is the text 'None': a template found nothing",
            hint="Look at the template, and why the upstream task has returned nothing; its `.output` can be given "
            "as it is, without a template",
        )
    if not found:
        raise SettingsError("`audio` is an empty list", hint="Give it at least one recording, or a prefix")
    # What comes lazily, from a mapped upstream, was not cut when it was rendered.
    return [clean_address(one) for one in found]


def text_list(given: Any, name: str) -> list[str]:
    """Make a list of a keyword that takes one text or several. Blanks at a text's ends may be part of a key.

    :param given: a text, or a list or lazy sequence of them
    :param name: the keyword's, for the message
    :raises SettingsError: it holds something else, or an empty text
    """
    found = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for one in found:
        if not isinstance(one, str):
            raise SettingsError(f"`{name}` holds a {type(one).__name__} where a text belongs")
        if not one.strip():
            raise SettingsError(f"`{name}` holds an empty text")
    return found


def labels_for(labels: Any, count: int) -> list[dict[str, str]]:
    """Give each recording its labels.

    :param labels: one mapping for all, or a list with one for each
    :param count: how many recordings there are
    :raises SettingsError: the list has another length, or a label has no value
    """
    if isinstance(labels, str):
        raise SettingsError(
            "`labels` is a text, and has to be a mapping of names to texts, or a list of them",
            hint="A template makes a text of everything, unless the DAG has render_template_as_native_obj=True: write "
            "a mapping with templates for values, or give it an upstream's `.output`",
        )
    each = [labels or {}] * count if labels is None or isinstance(labels, Mapping) else list(labels)
    if len(each) != count:
        raise SettingsError(f"`labels` is a list of {len(each)}, for {count} recordings")
    for one in each:
        if not isinstance(one, Mapping) or not all(isinstance(name, str) for name in one):
            raise SettingsError("`labels` holds something that isn't a mapping of names to texts")
        for name, value in one.items():
            if value is None:
                raise SettingsError(
                    f"The label {name!r} is None: it would stand beside the rows as the text 'None'",
                    hint="Leave it out where there is nothing to say",
                )
    return [{name: str(value) for name, value in one.items()} for one in each]
