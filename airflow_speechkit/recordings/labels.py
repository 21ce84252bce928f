"""Labels of a recording from where they are: in its key, and in a JSON object beside it (a sidecar)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError, RecordingNotFoundError, SettingsError, SpeechKitError
from airflow_speechkit.models import RecordingAddress
from airflow_speechkit.parsing import MalformedError, parse_object
from airflow_speechkit.recordings.address import check_key, object_address, parse_s3
from airflow_speechkit.recordings.pairs import NO_PAIRS, PairRules
from airflow_speechkit.recordings.places import root_and_key
from airflow_speechkit.settings import member_of

if TYPE_CHECKING:
    from pathlib import Path

#: A sidecar is at most this long.
MOST_SIDECAR_BYTES = 1024 * 1024

_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_PLACEHOLDERS = ("stem", "name", "folder")
_WITHOUT = "set `on_missing_labels='pass'` to submit such recordings without these labels"
_FOUND_NOTHING = "A template found nothing: check what it reads"


class OnMissingLabels(StrEnum):
    """What is done with a recording whose key doesn't match, or whose sidecar can't be used."""

    FAIL = "fail"
    PASS = "pass"  # noqa: S105


@dataclass(frozen=True)
class LabelRules:
    """Where the labels of recordings are.

    :param key: what is searched in a key; its named groups are labels
    :param sidecar: where the JSON object of a recording is: beside it, or an ``s3://`` address
    :param fields: each label from the sidecar, and the names that lead to it
    :param on_missing: what is done with a recording whose labels are missing
    :param pairs: the patterns whose placeholders `sidecar` may have, too
    """

    key: re.Pattern[str] | None = None
    sidecar: str | None = None
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    on_missing: OnMissingLabels = OnMissingLabels.FAIL
    pairs: PairRules = NO_PAIRS

    @classmethod
    def of(cls, key: Any, sidecar: Any, fields: Any, on_missing: Any, pairs: PairRules = NO_PAIRS) -> LabelRules:
        """Check an operator's keywords.

        :param key: `labels_from_key`
        :param sidecar: `labels_from_sidecar`
        :param fields: `sidecar_fields`
        :param on_missing: `on_missing_labels`
        :param pairs: of `pair`
        :raises SettingsError: one of them is invalid; the message names it
        """
        if (sidecar is None) != (fields is None):
            raise SettingsError(
                "`labels_from_sidecar` and `sidecar_fields` need each other",
                hint="Name the fields that become labels: `sidecar_fields=['call_id']`",
            )
        return cls(
            key=None if key is None else _pattern(key),
            sidecar=None if sidecar is None else _template(sidecar, pairs.names),
            fields={} if fields is None else _paths(fields),
            on_missing=member_of(OnMissingLabels, on_missing, "on_missing_labels"),
            pairs=pairs,
        )

    def from_key(self, place: RecordingAddress | Path) -> dict[str, str]:
        """Return the labels in an object's key, or in a local file's path.

        :raises RecordingNotFoundError: it doesn't match
        """
        if self.key is None:
            return {}
        found = self.key.search(root_and_key(place)[1])
        if found is None:
            raise RecordingNotFoundError(
                "The key doesn't match `labels_from_key`", hint=f"Correct the expression, or {_WITHOUT}"
            )
        return {name: value for name, value in found.groupdict().items() if value is not None}

    def sidecar_of(self, place: RecordingAddress | Path) -> RecordingAddress | Path:
        """Return where the sidecar of a recording is.

        :raises RecordingNotFoundError: the template has a placeholder of `pair`, and the recording is no side
        :raises RecordingError: no such object can exist
        """
        folder, slash, name = root_and_key(place)[1].rpartition("/")
        values = {"stem": name.rpartition(".")[0] or name, "name": name, "folder": folder + slash}
        template = self.sidecar or ""
        values = {**self.pairs.values_in(place), **values}
        if not values.keys() >= set(_PLACEHOLDER.findall(template)):
            raise RecordingNotFoundError(f"{template} has a placeholder of `pair`, and the key matches neither pattern")
        while isinstance(place, RecordingAddress) and template.startswith("../"):
            template = template.removeprefix("../")
            folder, slash, _ = folder.rpartition("/")
        filled = _PLACEHOLDER.sub(lambda found: values[found[1]], template)
        check_key(filled, filled)
        if template.startswith("s3://"):
            address = parse_s3(filled)
            same = place.conn_id if isinstance(place, RecordingAddress) else None
            return RecordingAddress(address.bucket, address.key, address.conn_id or same)
        if isinstance(place, RecordingAddress):
            return object_address(place.bucket, f"{folder}{slash}{filled}", place.conn_id)
        return place.absolute().parent / filled

    def from_sidecar(self, raw: bytes, address: str) -> dict[str, str]:
        """Return the labels in a sidecar. Fields that it doesn't have, or that are null, give none.

        :param raw: its bytes; what is behind the first `MOST_SIDECAR_BYTES` and one more isn't needed
        :param address: where it is, for the error
        :raises RecordingError: it can't be used; the message has nothing of its content
        """
        try:
            if len(raw) > MOST_SIDECAR_BYTES:
                raise MalformedError("it is larger than 1 MiB")
            found = parse_object(raw, verbatim=True)
            texts = {label: _text(_at(found, path), label) for label, path in self.fields.items()}
        except MalformedError as error:
            raise RecordingError(str(error), recording=address) from None
        return {label: text for label, text in texts.items() if text is not None}

    def sidecar_error(self, error: SpeechKitError) -> SpeechKitError:
        """Return the error about a recording (to be set) whose sidecar can't be used.

        :param error: what happened to the sidecar
        """
        what = f"The sidecar {error.recording or self.sidecar} can't be used: {error.what}"
        if isinstance(error, RecordingError):
            hint = f"Check `labels_from_sidecar` and the object, or {_WITHOUT}"
            return type(error)(what, hint=hint, retry="reads it again")
        return type(error)(what, hint=error.hint, retry=error.retry)


def _pattern(given: Any) -> re.Pattern[str]:
    try:
        pattern = re.compile(given) if isinstance(given, str) else None
    except (re.error, OverflowError, RecursionError) as error:
        raise SettingsError(f"`labels_from_key` isn't a regular expression: {error}") from None
    if pattern is None or not pattern.groupindex:
        raise SettingsError(
            "`labels_from_key` must be a regular expression with named groups",
            hint=_FOUND_NOTHING if given in ("", "None") else r"Name each label: (?P<call_id>\d+)\.wav$",
        )
    return pattern


def _template(given: Any, more: frozenset[str]) -> str:
    if not isinstance(given, str) or given.strip() in ("", "None"):
        raise SettingsError("`labels_from_sidecar` must be a text such as '{stem}.json'", hint=_FOUND_NOTHING)
    unknown = [name for name in _PLACEHOLDER.findall(given) if name not in _PLACEHOLDERS and name not in more]
    if unknown:
        raise SettingsError(
            f"`labels_from_sidecar` has the placeholder {{{unknown[0]}}}, which doesn't exist",
            hint="There are {stem}, {name} and {folder}, and those of `pair`",
        )
    if "://" in given and not given.startswith("s3://"):
        raise SettingsError(
            "`labels_from_sidecar` must be a name beside the recording, or begin with s3://, in small letters",
            hint="Write it as '{stem}.json', or as s3://bucket/{folder}{stem}.json",
        )
    return given


def _paths(given: Any) -> dict[str, list[str]]:
    found: list[tuple[Any, list[str]]] = []
    if isinstance(given, Mapping):
        found = [(label, path.split(".") if isinstance(path, str) else []) for label, path in given.items()]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        found = [(name, [name]) for name in given]
    if not found or not all(isinstance(label, str) and label and path and all(path) for label, path in found):
        raise SettingsError(
            "`sidecar_fields` must be a list of names, or a mapping of labels to dotted paths",
            hint="Write it as ['call_id'] or {'agent': 'agent.name'}. A template returns a text unless the DAG has "
            "render_template_as_native_obj=True",
        )
    return dict(found)


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any, label: str) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return value
    raise MalformedError(f"the field of the label {label!r} is an object or a list")
