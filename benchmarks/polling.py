"""Compare waiting schedules in virtual time: the number of checks, and the delay until an end is noticed.

    python benchmarks/polling.py [--json FILE] [--seeds 20] [--scenario NAME ...] [--schedule NAME ...]

All schedules run on the same seeded traces with the same quota (2,500 checks in every 3,600 s; further checks return
429 and no state). "ours" is the provider's `Scheduler`, the object that its poller uses, with virtual time instead of
the clock. docs/design-waiting.md describes the traces.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from simulation.others import FIXED, Outcome, run_documented, run_fixed
from simulation.ours import Triggerer, run
from simulation.service import NOISE_SIGMA, Quota, Service
from simulation.situations import SITUATIONS, Situation

OURS, OURS_UNSTAMPED, DOCUMENTED = "ours", "ours, no modifiedAt", "30 s + 1.3 x documented"
SCHEDULES = [OURS, OURS_UNSTAMPED, *FIXED, DOCUMENTED]

Row = dict[str, float | int | str]
#: The number of figures that all rows have.
COMMON = 10
#: Figures whose lowest value is the worst.
LEAST = ("least_of_fair_share", "quota_used")


@dataclass(frozen=True)
class Scenario:
    """Recordings that are submitted at random moments of one hour, or all at one moment.

    :param title: its name in the table, if it differs from its name
    """

    name: str
    recordings_per_hour: int = 500
    title: str = ""
    factor: float = 1.0
    noise: float = NOISE_SIGMA
    lengths_known: bool = True
    deferred: bool = False
    at_once: bool = False

    @property
    def label(self) -> str:
        return self.title or self.name

    def run(self, schedule: str, seed: int) -> tuple[Outcome, Quota]:
        service = Service(
            f"{self.label} {seed}",
            factor=self.factor,
            noise=self.noise,
            lengths_known=self.lengths_known,
            deferred=self.deferred,
        )
        moments = service.moments(self.recordings_per_hour, 0.0, 0.0 if self.at_once else 3600.0)
        recordings = [service.recording(at_s) for at_s in moments]
        quota = Quota()
        if schedule in FIXED:
            return run_fixed(recordings, quota, FIXED[schedule]), quota
        if schedule == DOCUMENTED:
            return run_documented(recordings, quota), quota
        triggerer = Triggerer(recordings, quota, stamped=schedule == OURS)
        run([triggerer])
        return outcome_of([triggerer]), quota


SCENARIOS = [
    Scenario("base"),
    Scenario("faster", factor=1 / 3),
    Scenario("slower", factor=2.0),
    Scenario("base", 5, "5 an hour"),
    Scenario("base", 2500, "2,500 an hour"),
    Scenario("at once", at_once=True),
    Scenario("at once", 1000, "1,000 at once", at_once=True),
    Scenario("durations unknown", lengths_known=False),
    Scenario("deferred model", deferred=True),
    Scenario("noise doubled", noise=2 * NOISE_SIGMA),
]


def outcome_of(triggerers: list[Triggerer]) -> Outcome:
    refused = sum(len(one.refused_s) for one in triggerers)
    delays_s = [delay_s for one in triggerers for delay_s in one.delays_s]
    return Outcome(refused + sum(len(one.answered_s) for one in triggerers), refused, delays_s)


def row(name: str, label: str, schedule: str, recordings: int, results: list[tuple[Outcome, Quota]]) -> Row:
    """The means over the seeds, and the sum of the 429s."""
    outcomes = [outcome for outcome, _ in results]
    return {
        "schedule": schedule,
        "scenario": name,
        "label": label,
        "recordings_per_hour": recordings,
        "checks_per_recording": round(fmean(one.checks / len(one.delays_s) for one in outcomes), 3),
        "quota_share": round(fmean(quota.busiest_share for _, quota in results), 3),
        "responses_429": sum(one.refused for one in outcomes),
        "delay_median_s": round(fmean(median(one.delays_s) for one in outcomes), 3),
        "delay_mean_s": round(fmean(fmean(one.delays_s) for one in outcomes), 3),
        "delay_p95_s": round(
            fmean(sorted(one.delays_s)[math.ceil(0.95 * len(one.delays_s)) - 1] for one in outcomes), 3
        ),
    }


def compare(scenario: Scenario, schedule: str, seeds: int) -> Row:
    results = [scenario.run(schedule, seed) for seed in range(seeds)]
    return row(scenario.name, scenario.label, schedule, scenario.recordings_per_hour, results)


def measure(number: int, seeds: int) -> Row:
    """Run a situation; return its figures, with the mean and the worst of its own ones."""
    situation = SITUATIONS[number]
    measured = [situation.measure(seed) for seed in range(seeds)]
    results = [(outcome_of(one.triggerers), one.quota) for one in measured]
    figures = row(situation.name, situation.name, OURS, situation.recordings, results)
    for name in measured[0].own:
        values = [one.own[name] for one in measured]
        figures[name] = round(fmean(values), 4)
        figures[f"{name}_worst"] = round((min if name in LEAST else max)(values), 4)
    return figures


def table(rows: list[Row]) -> str:
    head = (
        f"{'scenario':<60} {'schedule':<23} {'checks/rec.':>11} {'busiest hour':>13} {'429s':>9} "
        f"{'median s':>9} {'mean s':>9} {'p95 s':>9}"
    )
    lines = [head, "-" * len(head)]
    for one in rows:
        share = f"{100 * float(one['quota_share']):.0f} %"
        lines.append(
            f"{one['label']:<60} {one['schedule']:<23} {one['checks_per_recording']:>11.2f} {share:>13} "
            f"{one['responses_429']:>9} {one['delay_median_s']:>9.1f} {one['delay_mean_s']:>9.1f} "
            f"{one['delay_p95_s']:>9.1f}"
        )
        if own := list(one.items())[COMMON:]:
            lines.append("    " + ", ".join(f"{name} {value}" for name, value in own))
    return "\n".join(lines)


def main() -> int:
    cases: list[Scenario | Situation] = [*SCENARIOS, *SITUATIONS]
    labels = [case.label if isinstance(case, Scenario) else case.name for case in cases]
    parser = argparse.ArgumentParser(description="Compare waiting schedules in virtual time.")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--scenario", action="append", choices=labels)
    parser.add_argument("--schedule", action="append", choices=SCHEDULES)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    schedules = arguments.schedule or SCHEDULES
    with ProcessPoolExecutor(arguments.processes) as pool:
        jobs = []
        for label, case in zip(labels, cases, strict=True):
            if arguments.scenario and label not in arguments.scenario:
                continue
            if isinstance(case, Scenario):
                jobs += [pool.submit(compare, case, name, arguments.seeds) for name in schedules]
            elif OURS in schedules:
                jobs.append(pool.submit(measure, SITUATIONS.index(case), arguments.seeds))
        rows = []
        for job in jobs:
            rows.append(job.result())
            print(f"{len(rows)} of {len(jobs)}", end="\r", file=sys.stderr, flush=True)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"schedules": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
