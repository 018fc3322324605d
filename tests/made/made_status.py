"""The status of a finished suite, made in memory: no stage runs, and no record is written."""

import json
from pathlib import Path

from benchmarks.results.record import Record, environment
from benchmarks.suite.graph import expand
from benchmarks.suite.stages import Stage
from benchmarks.suite.status import CellStatus, SuiteStatus
from benchmarks.suite.suite_config import Suite
from tests.made.made_suites import made_results


def made_status(suite: Suite, out: Path, *, num_log_lines: int = 0) -> SuiteStatus:
    """Every stage finished with the numbers of `made_results`. `num_log_lines`: length of logs in `out`."""
    graph = expand(suite)
    records = {stage.key: made_record(stage) for stage in graph.stages}
    for stage in graph.stages if num_log_lines else ():
        if stage.kind == "pretrain":
            _write_log(stage, out, num_log_lines)
    cells = tuple(
        CellStatus(
            cell=cell,
            state="finished",
            records={
                name: records[stage.key]
                for name, stage in ({"pretrain": cell.pretrain} | dict(cell.evaluations)).items()
                if stage is not None
            },
            error="",
            left_s=0.0,
        )
        for cell in graph.cells
    )
    return SuiteStatus(
        name=suite.config.name,
        out=out,
        cells=cells,
        num_stages=len(graph.stages),
        num_finished=len(graph.stages),
        num_failed=0,
        spent_s=sum(record.seconds for record in records.values()),
        left_s=0.0,
        metrics=graph.metrics,
    )


def made_record(stage: Stage) -> Record:
    return Record(
        kind=stage.kind,
        key=stage.key,
        label=stage.label,
        date="2026-01-02T03:04:05Z",
        seconds=2.0,
        environment=environment(),
        config=stage.config,
        inputs=stage.inputs,
        results=dict(made_results(stage)),
    )


def _write_log(stage: Stage, out: Path, num_lines: int) -> None:
    tasks = list(stage.config["pipeline"]["tasks"])
    lines = []
    for step in range(1, num_lines + 1):
        line = {"step": step, "losses": {task: 5.0 / step + len(task) for task in tasks}}
        if step % (num_lines // 4) == 0:
            line["held_out"] = {task: {"model": {"loss": 6.0 / step + len(task)}} for task in tasks}
        lines.append(json.dumps(line))
    if tasks:
        stage.folder(out).mkdir(parents=True)
        (stage.folder(out) / "log.jsonl").write_text("\n".join(lines) + "\n")
