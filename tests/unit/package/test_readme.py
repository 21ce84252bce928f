"""What the README tells people to write works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[3] / "README.md"


def test_the_dag_is_one() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    # As a DAG file is read; the DAG itself has no name there.
    names: dict[str, Any] = {}
    exec(compile(source, str(README), "exec"), names)
    dag = names["load"].dag
    assert dag.dag_id == "calls"
    assert {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks} == {
        "recognize": ["rows"],
        "rows": ["load"],
        "load": [],
    }


def test_every_page_that_it_names_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)", README.read_text()):
        assert link.startswith("https://") or (README.parent / link).exists(), link
