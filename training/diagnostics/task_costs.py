"""What a sample of each task costs to train on, beside the paper's epochs. Counted from shapes, without data."""

from dataclasses import dataclass

from pipelines.tasks import TASKS
from training.compute import count_flop, dummy_batch
from training.config import PretrainConfig
from training.session import model_of
from training.step_memory import step_memory

__all__ = ["PAPER_GPU_HOURS", "TaskCost", "task_costs"]

UNIT_TASK = "colorization"
PAPER_GPU_HOURS = {"relative_position": 350, "colorization": 90, "exemplar": 60, "motion_segmentation": 400}
"""GPU-hours of an epoch on K40s (Doersch & Zisserman 2017, section 4); of ImageNet's images for the first three, of an
unstated number of clips for the last."""
NUM_LABELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCost:
    """inputs_per_sample: images or patches that go through the trunk. gflop_per_sample: forward and backward of trunk
    and head, 10^9 FLOPs. step_gib: predicted peak memory of a step of this task, in fp32. relative, paper_relative: as
    a multiple of colorization, which costs 1; None where it is missing, or where the paper's epochs are not of images.
    """

    task: str
    samples_per_step: int
    inputs_per_sample: float
    gflop_per_sample: float
    step_gib: float
    relative: float | None
    paper_gpu_hours: int | None
    paper_relative: float | None


def task_costs(config: PretrainConfig) -> list[TaskCost]:
    """Return the cost of every task of a run, in the order of their names. Reads no shard.

    A task with labels is counted with 1,000 classes, since only the shards know their number.
    """
    tasks = {name: TASKS[name](options, config.pipeline.canvas) for name, options in config.pipeline.tasks.items()}
    model = model_of(config, tasks, NUM_LABELS)
    batches = {name: dummy_batch(task, config.pipeline.batch_size_of_task(name)) for name, task in tasks.items()}
    gflop = {name: count_flop(model, batch) / 1e9 / len(batch.keys) for name, batch in batches.items()}
    model.trunk.recompute = config.speed.recompute
    paper = {name: hours / PAPER_GPU_HOURS[UNIT_TASK] for name, hours in PAPER_GPU_HOURS.items()}
    averages = 2 if config.optimizer.name == "adamw" or config.optimizer.momentum else 1
    return [
        TaskCost(
            task=name,
            samples_per_step=len(batch.keys),
            inputs_per_sample=batch.inputs.shape[:-3].numel() / len(batch.keys),
            gflop_per_sample=gflop[name],
            step_gib=step_memory(model, batch, averages_per_weight=averages).total_bytes / 2**30,
            relative=gflop[name] / gflop[UNIT_TASK] if UNIT_TASK in gflop else None,
            paper_gpu_hours=PAPER_GPU_HOURS.get(name),
            paper_relative=paper.get(name) if tasks[name].source == "image" else None,
        )
        for name, batch in batches.items()
    ]
