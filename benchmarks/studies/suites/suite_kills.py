"""Kill a suite with SIGKILL at random moments, start it again each time, and compare with an unbroken run.

    python -m benchmarks.studies.suites.suite_kills --kills 30

24 cells of a tiny network on made images: three task sets and random weights, two depths, three seeds, each with a
linear probe and k-NN. The moments are random in CPU time: they hit pretrainings, probes, the making of features, the
writing of records. The table must be that of the unbroken run, and no record of a finished stage may ever change. Exit
code 1 if either does not hold, or if the suite finishes before all kills.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml

from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.results.record import RECORD_NAME, Record
from benchmarks.studies.shards.build_kill import write_small_images
from benchmarks.suite.run_suite import run_suite, suite_status
from benchmarks.suite.suite_config import load_suite
from pipelines.base.progress import quiet_progress
from pipelines.shards.build import BuildConfig, build_shards

__all__ = ["STUDY", "SuiteKill", "SuiteKillOptions", "measure", "timeless"]

PRELOADED = ["benchmarks.suite.run_suite", "numba", "torch.utils.tensorboard"]
POLL_S = 0.002
SET_UP_S = 0.3
"""What each start loses: reading the suite, setting up a pretraining."""
PASSED_BY_KILLS = 0.8
"""Share of the stages that has finished after the last kill, so that every kill finds the suite unfinished."""
NUM_IMAGES, NUM_CLASSES = 60, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteKillOptions:
    num_kills: Annotated[int, "kills of the suite"] = 30
    num_seeds: Annotated[int, "seeds of the suite: 4 cells for each depth"] = 3
    num_steps: Annotated[int, "steps of each pretraining"] = 20
    seed: Annotated[int, "of the moments"] = 0
    depths: tuple[int, ...] = (10, 18)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteKill:
    """A kill after `cpu_s` of CPU time. at_work: the kind of the stage that was at work; empty between two stages."""

    cpu_s: float
    at_work: str
    num_finished: int


def suite_of(images: Path, options: SuiteKillOptions) -> dict[str, Any]:
    return {
        "name": "killed",
        "images": str(images),
        "task_sets": ["colorization", "exemplar", ["colorization", "exemplar"]],
        "baselines": ["random_init"],
        "depths": list(options.depths),
        "seeds": list(range(options.num_seeds)),
        "pretrain": {
            "trunk": {"width": 0.125},
            "heads": {"preset": "small"},
            "pipeline": {"canvas_px": 32, "batch_size": 4, "num_threads": 1},
            "budget": {"steps": options.num_steps},
            "checkpoint": {"every_s": 0.05},
            "held_out": None,
            "cpu_threads": 1,
            "precision": "fp32",
        },
        "evaluations": {
            "linear_probe": {"labels_per_class": [], "augment": "none"},
            "knn": {},
        },
    }


def work(suite: str, out: str, limit_s: float | None, lines: str) -> None:
    """Run the suite in this process. It kills itself `limit_s` of CPU time after its first line; lines go to a file."""
    killers = [] if limit_s is None else [threading.Thread(target=_kill_after, args=(limit_s,), daemon=True)]
    with Path(lines).open("a", encoding="utf-8") as file, quiet_progress():

        def note(line: str) -> None:
            print(line, file=file, flush=True)
            # From the first line on: kills while the suite file is read would hit no work.
            if killers:
                killers.pop().start()

        run_suite(load_suite(Path(suite)), Path(out), say=note)


def _kill_after(limit_s: float) -> None:
    end_s = time.process_time() + limit_s
    while time.process_time() < end_s:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def measure(options: SuiteKillOptions) -> dict[str, Any]:
    """Run the suite unbroken, then with kills, and compare."""
    rng = random.Random(options.seed)
    # Forked from a server that has imported all, and has no threads: starting Python takes longer than a cell.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with temporary_folder() as folder:
        # 1. Data, and the unbroken run, which says how long the suite takes.
        write_small_images(folder / "images", NUM_IMAGES, num_classes=NUM_CLASSES)
        with quiet_progress():
            images, shards = folder / "images", folder / "shards"
            build_shards(BuildConfig(sources=[str(images)], out=shards, val="every:3", num_workers=1))
        suite = folder / "killed.yaml"
        suite.write_text(yaml.safe_dump(suite_of(folder / "shards", options), sort_keys=False), encoding="utf-8")
        runs = _Runs(context, suite, folder)
        whole_s = runs.run("whole")
        say(f"unbroken: {len(_records(folder / 'whole'))} stages in {whole_s:.1f} s of CPU")
        num_stages = len(_records(folder / "whole"))
        # 2. Kills, spread over the suite.
        kills: list[SuiteKill] = []
        problems: list[str] = []
        before: dict[str, str] = {}
        for number in range(options.num_kills):
            share = max(0.0, PASSED_BY_KILLS - len(before) / num_stages) / (options.num_kills - number)
            # At most half of the whole: on a busy machine the unbroken run may have taken twice the CPU of this one.
            limit_s = rng.uniform(0, min(2 * (share * whole_s + SET_UP_S), whole_s / 2))
            if runs.run("broken", limit_s) >= 0:
                problems.append(f"finished before kill {number + 1}")
                break
            records = _records(folder / "broken")
            problems += _changed(before, records)
            before = records
            kills.append(SuiteKill(cpu_s=round(limit_s, 3), at_work=runs.last_begun, num_finished=len(records)))
            where = runs.last_begun or "between stages"
            say(f"kill {number + 1} after {limit_s:.2f} s: {where}, {len(records)} finished")
        # 3. To the end: a finished stage must keep its record, and the table must be the same.
        runs.run("broken")
        problems += _changed(before, _records(folder / "broken"))
        tables = [_table(suite, folder / name) for name in ("whole", "broken")]
        problems += [f"{cell}: another result" for cell in tables[0] if tables[0][cell] != tables[1].get(cell)]
        return {
            "num_cells": len(tables[0]),
            "num_stages": len(_records(folder / "whole")),
            "num_stages_killed_run": len(_records(folder / "broken")),
            "whole_cpu_s": round(whole_s, 3),
            "kills": [asdict(kill) for kill in kills],
            "table": {cell: {name: one["top1_pct"] for name, one in row.items()} for cell, row in tables[0].items()},
            "problems": problems,
        }


class _Runs:
    """Runs of the suite, each in a new process. `last_begun`: kind of the stage that was at work at the end."""

    def __init__(self, context: Any, suite: Path, folder: Path) -> None:
        self._context, self._suite, self._folder = context, suite, folder
        self.last_begun = ""

    def run(self, name: str, limit_s: float | None = None) -> float:
        """Return the CPU seconds of a run; -1 if it was killed. Raises RuntimeError for any other end."""
        lines, times = self._folder / "lines.txt", self._folder / "cpu.txt"
        for path in (lines, times):
            path.unlink(missing_ok=True)
        arguments = str(self._suite), str(self._folder / name), limit_s, str(lines)
        process = self._context.Process(target=_timed, args=(str(times), arguments))
        process.start()
        process.join()
        self.last_begun = _last_begun(lines)
        if limit_s is not None and process.exitcode == -signal.SIGKILL:
            return -1.0
        if process.exitcode != 0:
            raise RuntimeError(f"a run of the suite ended with {process.exitcode}")
        return float(times.read_text())


def _timed(times: str, arguments: tuple[str, str, float | None, str]) -> None:
    start_s = time.process_time()
    work(*arguments)
    Path(times).write_text(str(time.process_time() - start_s))


def _last_begun(lines: Path) -> str:
    """Return the kind of the last stage that a run began and did not end."""
    begun = ""
    for line in lines.read_text(encoding="utf-8").splitlines() if lines.is_file() else ():
        if line.startswith("["):
            kind = line.partition("] ")[2].partition(":")[0]
            begun = kind if line.endswith((" left)", "not known yet)")) else ""
    return begun


def _records(out: Path) -> dict[str, str]:
    """Return the sha256 of every record's bytes, which hold its date and its seconds, by stage folder."""
    files = sorted(out.glob(f"stages/*/{RECORD_NAME}"))
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [f"{name}: finished, and run again" for name in before if after.get(name) != before[name]]


def _table(suite: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Return the results of every cell by label and evaluation, without times."""
    status = suite_status(load_suite(suite), out)
    assert status.is_finished
    return {
        cell.cell.label: {name: timeless(cell.records[name]) for name in cell.cell.evaluations} for cell in status.cells
    }


def timeless(record: Record) -> Any:
    """Return the results of a record without seconds."""
    kept = {name: value for name, value in record.results.items() if not name.endswith(("_s", "seconds"))}
    return json.loads(json.dumps(kept))


def _lines(results: dict[str, Any]) -> list[str]:
    kills = results["kills"]
    kinds = [kill["at_work"] or "between stages" for kill in kills]
    hit = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds)))
    return [
        f"{results['num_cells']} cells, {results['num_stages']} stages, {results['whole_cpu_s']:.0f} s of CPU unbroken",
        f"{len(kills)} kills: {hit}",
        *(results["problems"] or ["the table is that of the unbroken run; no finished stage was run again"]),
    ]


STUDY = Study(
    module="benchmarks.studies.suites.suite_kills",
    kind="suite_kills",
    label="a suite killed at random moments beside an unbroken one",
    description=__doc__,
    options=SuiteKillOptions,
    measure=measure,
    lines=_lines,
    is_failed=lambda results: bool(results["problems"]),
    packages=("torch", "timm"),
)

if __name__ == "__main__":
    STUDY.main()
