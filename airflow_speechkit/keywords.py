"""Operators' keywords, as literals and as templates render them: checked numbers, addresses without credentials."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.redaction import clean_address

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: Returns a keyword's value; gets what was given and, for the error, the keyword's name.
Check = Callable[[object, str], Any]
#: The check of each keyword.
Checks = Mapping[str, Check]

_MOST_SECONDS = 366 * 86_400
_MOST_SHOWN = 100


def count(given: object, name: str) -> int:
    """Return a keyword's value as a whole number, 1 at least.

    :param given: a number, or a text that is one
    :raises SettingsError: it is none
    """
    number = _number(given)
    if not 1 <= number < math.inf or number != int(number):
        raise _wrong(given, name, "a whole number, 1 at least")
    return int(number)


def seconds(given: object, name: str) -> float:
    """Return a keyword's value as a time in seconds, a year at most.

    :param given: a timedelta, a number, or a text that is a number
    :raises SettingsError: it is none, or isn't more than 0
    """
    number = given.total_seconds() if isinstance(given, timedelta) else _number(given)
    if not 0 < number <= _MOST_SECONDS:
        raise _wrong(given, name, "a timedelta, or a number of seconds above 0")
    return number


def switch(given: object, name: str) -> bool:
    """Return a keyword's value as True or False.

    :param given: one of these, or its name as a text
    :raises SettingsError: it is neither
    """
    found = {"true": True, "false": False}.get(given.strip().lower()) if isinstance(given, str) else given
    if not isinstance(found, bool):
        raise _wrong(given, name, "True or False")
    return found


def optional(check: Check) -> Check:
    """Return a check that allows None too, but not the text 'None' of a template that found nothing."""
    return lambda given, name: None if given is None else check(given, name)


def _number(given: Any) -> float:
    """Return a number; NaN for anything else."""
    try:
        return math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _wrong(given: object, name: str, must_be: str) -> SettingsError:
    found_nothing = isinstance(given, str) and given.strip() in ("", "None")
    return SettingsError(
        f"`{name}` must be {must_be}, not {repr(given)[:_MOST_SHOWN]}",
        hint="A template found nothing: check what it reads" if found_nothing else None,
    )


def cleaned(value: Any) -> Any:
    """Cut credentials out of an address, or of those in a list or mapping; leave everything else as it is."""
    if isinstance(value, str):
        return clean_address(value)
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(map(cleaned, value))
    if isinstance(value, dict):
        return {name: cleaned(one) for name, one in value.items()}
    return value


def names_cleaned(value: Any) -> Any:
    """Cut credentials out of a mapping's names, which can be addresses, or of those of each mapping in a list."""
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(map(names_cleaned, value))
    if isinstance(value, dict):
        return {clean_address(name) if isinstance(name, str) else name: one for name, one in value.items()}
    return value


def _is_rendered_later(value: Any) -> bool:
    """Whether a value is a template or the output of an upstream task."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return callable(value) or hasattr(value, "resolve")


class CheckedFields:
    """An operator without credentials in its addresses, and with checked numbers and switches.

    Literal values are handled at once: its ``__init__`` calls `set_keywords`, and ``partial`` and ``expand`` clean
    addresses. Templates and upstreams' values are handled when they are rendered. In ``execute_complete`` they are
    always rendered.
    """

    address_fields: ClassVar[tuple[str, ...]]
    #: Mappings whose names can be addresses.
    address_key_fields: ClassVar[tuple[str, ...]] = ()
    #: Templated keywords that aren't texts, each with its check.
    typed_fields: ClassVar[Checks] = {}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a keyword's value: a template can have made anything of it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Call ``execute_complete`` on the task whose fields are rendered."""
        super().__init_subclass__(**kwargs)
        if "execute_complete" in vars(cls):
            cls.execute_complete = _by_rendered_task(cls.execute_complete)  # type: ignore[attr-defined]

    def set_keywords(self, given: Mapping[str, Any]) -> None:
        """Set an attribute for each keyword of ``__init__``, addresses without credentials, literal numbers checked.

        :param given: the keywords: ``locals()`` of an ``__init__`` that has no other variables
        :raises SettingsError: a value is of another type
        """
        for name, value in given.items():
            if name not in ("self", "kwargs", "__class__"):
                is_literal = name in self.typed_fields and not _is_rendered_later(value)
                checked = self.typed_fields[name](value, name) if is_literal else value
                setattr(self, name, self.without_credentials(name, checked))

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task, as every operator's ``partial`` does."""
        return _Partial(super().partial(**kwargs), cls.without_credentials)  # type: ignore[misc]

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        later = [name for name in self.typed_fields if parent is self and _is_rendered_later(getattr(self, name))]
        # Airflow calls this for mapped tasks too, and then shows and keeps what the fields hold.
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)  # type: ignore[misc]
        if parent is self:
            for name in (*self.address_fields, *self.address_key_fields):
                setattr(self, name, self.without_credentials(name, getattr(self, name)))
        for name in later:
            # Native templates return None for nothing found. That must not mean "no limit".
            found = getattr(self, name)
            setattr(self, name, self.typed_fields[name]("None" if found is None else found, name))

    @classmethod
    def without_credentials(cls, name: str, value: Any) -> Any:
        """Return a keyword's value without credentials in addresses; of another keyword as it is."""
        if name in cls.address_fields:
            return cleaned(value)
        return names_cleaned(value) if name in cls.address_key_fields else value


def _by_rendered_task(execute_complete: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute_complete)
    def complete(self: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        # `airflow tasks test` of 2.11 calls the DAG's own task here, with templates in its fields.
        task: Any = context.get("task")
        is_ours = type(task) is type(self) and task.task_id == self.task_id
        return execute_complete(task if is_ours else self, context, *args, **kwargs)

    return complete


class _Partial:
    """A mapped task that isn't expanded yet. The operator's ``__init__`` runs only later, in the task."""

    def __init__(self, partial: Any, clean: Callable[[str, Any], Any]) -> None:
        self._partial = partial
        self._clean = clean
        # With what the DAG's `default_args` brought.
        partial.kwargs.update(self._cleaned(partial.kwargs))

    def expand(self, **mapped: Any) -> Any:
        """Map over lists."""
        return self._partial.expand(**self._cleaned(mapped))

    def expand_kwargs(self, kwargs: Any, **options: Any) -> Any:
        """Map over a list of mappings."""
        if isinstance(kwargs, (list, tuple)):
            kwargs = [self._cleaned(one) if isinstance(one, Mapping) else one for one in kwargs]
        return self._partial.expand_kwargs(kwargs, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._partial, name)

    def _cleaned(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._clean(name, one) for name, one in kwargs.items()}
