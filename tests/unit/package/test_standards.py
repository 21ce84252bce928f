"""What holds for every operator, sensor, hook and trigger of the package, also for those still to be written."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator
from airflow.triggers.base import BaseTrigger

from airflow_speechkit.operators.submit_keywords import SubmitKeywords
from tests.fixtures.modules import airflow_side_modules

#: A value for each parameter of a trigger that has no default, by its name.
EXAMPLES: dict[str, Any] = {
    "archive": "s3://archive/speechkit",
    "deadline": 1_800_000_000.5,
    "speechkit_conn_id": "speechkit_other",
    "waiting": [{"operation_id": "e03sup6d5h1qr574ht99", "submitted_at": 1_700_000_000.25}],
}


def classes_below(base: type) -> Iterator[type]:
    """The package's own classes that derive from the base."""
    for name in airflow_side_modules():
        if name.startswith("airflow_speechkit"):
            module = importlib.import_module(name)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                # The keywords of `SubmitKeywords` are documented where users find them, in `SpeechKitSubmitOperator`.
                if issubclass(kind, base) and kind.__module__ == name and kind is not SubmitKeywords:
                    yield kind


def defines_parameters(kind: type) -> bool:
    return "__init__" in vars(kind) or SubmitKeywords in kind.__bases__


def own_parameters(kind: type) -> dict[str, inspect.Parameter]:
    """What the class's ``__init__`` takes, less what it hands on to its base."""
    owner = kind if "__init__" in vars(kind) else kind.__bases__[0]
    parameters = inspect.signature(inspect.unwrap(vars(owner)["__init__"])).parameters
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in parameters.items() if name != "self" and p.kind not in variable}


def all_parameters(kind: type) -> set[str]:
    """What the ``__init__`` of the class and of its bases of this package take, each of which becomes an attribute."""
    ours = [one for one in kind.__mro__ if one.__module__.startswith("airflow_speechkit.") and "__init__" in vars(one)]
    return {name for one in ours for name in own_parameters(one)}


OPERATORS = list(classes_below(BaseOperator))
HOOKS = list(classes_below(BaseHook))
TRIGGERS = list(classes_below(BaseTrigger))
WITH_ARGUMENTS = [kind for kind in OPERATORS + HOOKS + TRIGGERS if defines_parameters(kind)]


def test_there_are_operators_hooks_and_triggers_to_check() -> None:
    assert OPERATORS
    assert HOOKS
    assert TRIGGERS


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operators_templated_fields_are_keywords_and_documented_as_templated(operator: type) -> None:
    fields = set(operator.template_fields)  # type: ignore[attr-defined]
    assert fields, "nothing of it is templated"
    assert fields <= all_parameters(operator)
    documented = set(re.findall(r":param (\w+):(?:(?!:param|:raises).)*\(templated\)", operator.__doc__ or "", re.S))
    assert documented == fields & own_parameters(operator).keys()


@pytest.mark.parametrize("kind", WITH_ARGUMENTS)
def test_the_docstring_describes_exactly_the_parameters(kind: type) -> None:
    assert re.findall(r":param (\w+):", kind.__doc__ or "") == list(own_parameters(kind))


@pytest.mark.parametrize("kind", [kind for kind in OPERATORS + TRIGGERS if defines_parameters(kind)])
def test_operators_and_triggers_take_keywords_only(kind: type) -> None:
    assert {p.kind for p in own_parameters(kind).values()} <= {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_trigger_comes_back_from_the_database_as_it_was(trigger: type[BaseTrigger]) -> None:
    arguments = {
        name: (not p.default) if isinstance(p.default, bool) else EXAMPLES.get(name, p.default)
        for name, p in own_parameters(trigger).items()
    }
    missing = [name for name, value in arguments.items() if value is inspect.Parameter.empty]
    assert not missing, f"EXAMPLES lacks {missing}"
    path, kept = trigger(**arguments).serialize()
    assert path == f"{trigger.__module__}.{trigger.__qualname__}"
    assert kept == arguments
    stored = json.loads(json.dumps(kept))
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**stored)
    assert again.serialize() == (path, kept)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_trigger_is_never_given_a_secret(trigger: type[BaseTrigger]) -> None:
    assert not [name for name in own_parameters(trigger) if re.search(r"token|secret|password|key(?!ed)", name)]
