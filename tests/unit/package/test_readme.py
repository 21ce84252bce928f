"""What the README tells people to write works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"


def test_the_dag_is_the_one_that_a_scheduler_runs_in_test_nightly() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    docstring, _, code = (README.parent / "dags/speechkit_nightly.py").read_text().partition('"""\n\n')
    assert docstring.startswith('"""')
    assert source == code


def test_every_page_that_it_names_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)", README.read_text()):
        assert link.startswith("https://") or (README.parent / link).exists(), link
