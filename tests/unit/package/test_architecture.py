"""The picture of the rooms shows those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import airflow_speechkit

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "docs/images"
PACKAGE = Path(airflow_speechkit.__file__).parent

#: Rooms beside the way of a recording.
BESIDE = {"cli", "demo"}


def drawn() -> set[str]:
    """What the source of the picture names: folders with a slash at their end, and modules."""
    return set(re.findall(r'label="([a-z_]+(?:/|\.py))', (IMAGES / "architecture.dot").read_text()))


def test_each_room_of_the_picture_exists() -> None:
    assert len(drawn()) > 10
    for name in drawn():
        assert (PACKAGE / name).exists(), name


def test_each_folder_of_the_package_is_in_the_picture() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {f"{name}/" for name in folders - BESIDE} <= drawn()


def test_the_picture_was_rendered_from_its_source() -> None:
    picture = (IMAGES / "architecture.svg").read_text()
    for label in re.findall(r'label="([^"]+)"', (IMAGES / "architecture.dot").read_text()):
        for line in label.split(r"\n"):
            assert f">{line}</text>" in picture, line
