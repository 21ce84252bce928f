"""The fault matrix for people: as it is printed after a run, and as docs/reliability.md holds it.

``python -m tests.faults.report > docs/reliability.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import groupby

from tests.faults import scenes
from tests.faults.matrix import LEFT_OUT, Fault, Scene, Stage, scenes_of

HEAD = """\
<!-- Made from the matrix: python -m tests.faults.report > docs/reliability.md -->
# Reliability

`make faults` causes faults at every step of the main job (submit, wait, archive, transform, load) and checks the
result. Airflow is a real one: API server, scheduler, DAG processor, triggerer and LocalExecutor on PostgreSQL.
Processes are killed with SIGKILL. The service is the [emulator](emulator.md), which keeps its own record of what it
has accepted and billed. The archive is a bucket behind a TCP forwarder that can be closed. Every cell has its own
recordings, archive and connections, and tasks with three retries.

After each cell

- every recording has exactly one finished operation in the emulator's billing record,
- every answer is in the archive as the service gave it, and `airflow-speechkit archive verify` finds nothing wrong,
- every row is in the warehouse once, and has the right content.

**One window can't be closed**: a request was sent and its answer never came back. The service may have accepted it; it
has no list of operations and no idempotency keys. Such cells are marked ◐. The archive's claim shows that the request
was sent. The task fails with an error that names the recording and both solutions, and nothing is sent again, by no
retry and by no other run. If you know the operation's id, give it to `airflow-speechkit archive adopt`. If you know
that the request was not accepted, use `archive release`. `on_lost_submission='resubmit'` sends it again without
asking, and may pay twice. Other recordings of a list are not affected.
"""


def markdown() -> str:
    """The document."""
    return "\n".join(_document()) + "\n"


def printed(passed: Mapping[str, bool]) -> Iterator[str]:
    """The matrix as text.

    :param passed: how the scenes that were run ended, by their ids
    """
    width = max(len(fault) for fault in Fault)
    yield f"{'':{width}}  " + "  ".join(f"{stage:>9}" for stage in Stage)
    for fault in Fault:
        yield f"{fault:{width}}  " + "  ".join(f"{_result(fault, stage, passed):>9}" for stage in Stage)
    yield "n/m: of m tests n held; –: left out, docs/reliability.md says why"


def _result(fault: Fault, stage: Stage, passed: Mapping[str, bool]) -> str:
    cell = scenes_of(fault, stage)
    if not cell:
        return "–"
    run = [passed[one.id] for one in cell if one.id in passed]
    return f"{sum(run)}/{len(run)}" if run else "not run"


def _document() -> Iterator[str]:
    yield HEAD
    yield "## The matrix"
    yield ""
    yield "| | " + " | ".join(Stage) + " |"
    yield "|---|" + "---|" * len(Stage)
    for fault in Fault:
        yield f"| {fault} | " + " | ".join(_cell(fault, stage) for stage in Stage) + " |"
    yield ""
    yield "✓ tested; ◐ tested, includes the window above; – left out, for the reason below."
    yield ""
    yield "## The cells"
    for fault in Fault:
        yield ""
        yield f"### {fault.capitalize()}"
        yield ""
        for stage in Stage:
            yield from (_line(one) for one in scenes_of(fault, stage))
        left_out = [(stage, LEFT_OUT[fault, stage]) for stage in Stage if (fault, stage) in LEFT_OUT]
        for reason, stages in groupby(left_out, key=lambda one: one[1]):
            yield f"- – {', '.join(stage for stage, _ in stages)}: {reason}."


def _cell(fault: Fault, stage: Stage) -> str:
    cell = scenes_of(fault, stage)
    if not cell:
        return "–"
    return "◐" if any(one.window for one in cell) else "✓"


def _line(one: Scene) -> str:
    return f"- {'◐' if one.window else '✓'} **{one.stage}**, {one.name}: {one.text}"


if __name__ == "__main__":
    assert scenes.ALL
    sys.stdout.write(markdown())
