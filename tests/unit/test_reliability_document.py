from __future__ import annotations

from pathlib import Path

from tests.faults.matrix import LEFT_OUT, SCENES, Fault, Stage, scenes_of
from tests.faults.report import markdown, printed


def test_every_cell_of_the_fault_matrix_is_tested_or_left_out_for_a_reason():
    for fault in Fault:
        for stage in Stage:
            assert bool(scenes_of(fault, stage)) != bool(LEFT_OUT.get((fault, stage))), f"{fault} x {stage}"


def test_no_two_scenes_of_the_fault_matrix_share_recordings():
    assert len({one.slug for one in SCENES}) == len({one.id for one in SCENES}) == len(SCENES)


def test_the_document_is_the_one_that_the_fault_matrix_makes():
    document = Path(__file__).parents[2] / "docs" / "reliability.md"
    assert document.read_text(encoding="utf-8") == markdown(), (
        "run: python -m tests.faults.report > docs/reliability.md"
    )


def test_the_printed_matrix_counts_what_held_and_shows_what_was_left_out():
    one, *others = scenes_of(Fault.WORKER_KILLED, Stage.SUBMIT)
    lines = list(printed({one.id: False} | {other.id: True for other in others}))
    assert f"  {len(others)}/{len(others) + 1}  " in lines[1]
    assert "–" in next(line for line in lines if line.startswith(Fault.TRIGGERER_KILLED))
    assert len(lines) == len(Fault) + 2
