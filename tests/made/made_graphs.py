"""Graphs of thousands of stages without shards, configs or torch: made in milliseconds."""

from benchmarks.results.record import Environment, Record
from benchmarks.suite.stages import Cell, Graph, Stage, TaskSet

DEPTHS, TASKS = (10, 18), ("colorization", "exemplar")
VERSIONS = {"python": "3", "fourfold": "0"}
NOWHERE = Environment(
    commit="0", is_dirty=False, machine="none", cpu_name="none", num_cores=1, gpu_name="none", versions=VERSIONS
)


def made_graph(num_cells: int) -> Graph:
    """Cells of one pretraining and one probe each, over two depths, two tasks and as many seeds as it takes."""
    cells = [_cell(number) for number in range(num_cells)]
    stages = tuple(stage for cell in cells for stage in cell.stages)
    return Graph(cells=tuple(cells), stages=stages, metrics={"linear_probe": "top1_pct"}, files=())


def made_record(stage: Stage, seconds: float = 1.0) -> Record:
    return Record(
        kind=stage.kind,
        key=stage.key,
        label=stage.label,
        date="2026-01-02T03:04:05Z",
        seconds=seconds,
        environment=NOWHERE,
        config=stage.config,
        inputs={},
        results={"top1_pct": 50.0},
    )


def _cell(number: int) -> Cell:
    seed, rest = divmod(number, len(DEPTHS) * len(TASKS))
    depth, task = DEPTHS[rest % 2], TASKS[rest // 2]
    label = f"{task}, depth {depth}, seed {seed}"
    config = {"pipeline": {"tasks": {task: {}}}, "trunk": {"depth": depth}, "seed": seed}
    pretrain = Stage(kind="pretrain", label=label, key=f"{number:06}{'a' * 58}", config=config, inputs={})
    probe = Stage(
        kind="linear_probe",
        label=label,
        key=f"{number:06}{'b' * 58}",
        config={"options": {"pool": 1}},
        inputs={},
        needs=(pretrain,),
    )
    tasks = TaskSet(name=task, tasks=(task,), role="single")
    return Cell(task_set=tasks, depth=depth, seed=seed, pretrain=pretrain, evaluations={"linear_probe": probe})
