"""What Airflow keeps of an operator's fields (the serialized DAG, rendered templates), without credentials."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.redaction import clean_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow.providers.common.compat.sdk import Context


def cleaned(value: Any) -> Any:
    """Cut credentials out of an address, or of those in a list or mapping; leave everything else as it is."""
    if isinstance(value, str):
        return clean_address(value)
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    if isinstance(value, tuple):
        return tuple(cleaned(one) for one in value)
    if isinstance(value, dict):
        return {name: cleaned(one) for name, one in value.items()}
    return value


class CleanAddresses:
    """An operator whose addresses hold no credentials.

    Literal values are cleaned where they are written: its ``__init__`` sets each of `address_fields` to what `cleaned`
    gives, and so do ``partial`` and ``expand``. Templates and upstreams' values are cleaned when they are rendered.
    ``execute_complete`` always finds them rendered.
    """

    address_fields: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have ``execute_complete`` called on the task whose fields are rendered."""
        super().__init_subclass__(**kwargs)
        if "execute_complete" in vars(cls):
            cls.execute_complete = _by_rendered_task(cls.execute_complete)  # type: ignore[attr-defined]

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task, as every operator's ``partial`` does."""
        return _Partial(super().partial(**kwargs), cls.address_fields)  # type: ignore[misc]

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        # Airflow calls this for mapped tasks too, and then shows and keeps what the fields hold.
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)  # type: ignore[misc]
        if parent is self:
            for name in self.address_fields:
                setattr(self, name, cleaned(getattr(self, name)))


def _by_rendered_task(execute_complete: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute_complete)
    def complete(self: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        # `airflow tasks test` of 2.11 calls the DAG's own task here, with templates in its fields.
        task: Any = context.get("task")
        is_ours = type(task) is type(self) and task.task_id == self.task_id
        return execute_complete(task if is_ours else self, context, *args, **kwargs)

    return complete


class _Partial:
    """A mapped task that isn't expanded yet. The operator's ``__init__`` runs only with the task."""

    def __init__(self, partial: Any, address_fields: tuple[str, ...]) -> None:
        self._partial = partial
        self._address_fields = address_fields
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
        return {name: cleaned(one) if name in self._address_fields else one for name, one in kwargs.items()}
