"""Hand-made batches of every task, random in content and right in shape, for tests of training."""

import torch

from pipelines.tasks.base import Task, TaskBatch

NUM_BINS = 313


def _batch(task: str, inputs: torch.Tensor, target: dict[str, torch.Tensor], weight: torch.Tensor) -> TaskBatch:
    keys = tuple(f"sample{index}" for index in range(len(inputs)))
    return TaskBatch(task=task, inputs=inputs, target=target, weight=weight, keys=keys)


def relative_position(rows: int = 4, patch_px: int = 36, seed: int = 0) -> TaskBatch:
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.rand(rows, 2, 3, patch_px, patch_px, generator=rng)
    position = torch.randint(8, (rows,), generator=rng)
    return _batch("relative_position", inputs, {"position": position}, torch.ones(rows))


def colorization(rows: int = 2, canvas_px: int = 32, seed: int = 0, neighbors: int = 3) -> TaskBatch:
    rng = torch.Generator().manual_seed(seed)
    side = canvas_px // 8
    inputs = torch.rand(rows, 1, canvas_px, canvas_px, generator=rng).expand(-1, 3, -1, -1)
    bins = torch.randint(NUM_BINS, (rows, neighbors, side, side), generator=rng)
    bin_weights = torch.rand(rows, neighbors, side, side, generator=rng)
    target = {"bins": bins, "bin_weights": bin_weights / bin_weights.sum(1, keepdim=True)}
    return _batch("colorization", inputs, target, torch.rand(rows, side, side, generator=rng))


def exemplar(rows: int = 4, patch_px: int = 36, seed: int = 0) -> TaskBatch:
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.rand(rows, 2, 3, patch_px, patch_px, generator=rng)
    return _batch("exemplar", inputs, {"negative": (torch.arange(rows) + 1) % rows}, torch.ones(rows))


def motion_segmentation(rows: int = 2, height_px: int = 36, width_px: int = 52, seed: int = 0) -> TaskBatch:
    rng = torch.Generator().manual_seed(seed)
    cells = (rows, -(-height_px // 8), -(-width_px // 8))
    inputs = torch.rand(rows, 3, height_px, width_px, generator=rng)
    moving = (torch.rand(cells, generator=rng) < 0.3).float()
    return _batch("motion_segmentation", inputs, {"moving": moving}, torch.ones(cells))


def supervised(rows: int = 4, canvas_px: int = 32, num_labels: int = 5, seed: int = 0) -> TaskBatch:
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.rand(rows, 3, canvas_px, canvas_px, generator=rng)
    return _batch("supervised", inputs, {"label": torch.randint(num_labels, (rows,), generator=rng)}, torch.ones(rows))


MAKERS = {
    "relative_position": relative_position,
    "colorization": colorization,
    "exemplar": exemplar,
    "motion_segmentation": motion_segmentation,
    "supervised": supervised,
}


def random_batch(task: Task, num_samples: int, seed: int = 0) -> TaskBatch:
    """A batch as the task itself would make it in shape and dtype, with classes and indices up to 4."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.rand(spec.shape, generator=rng)
        if spec.dtype.is_floating_point
        else torch.randint(int(spec.low), min(int(spec.high), 4) + 1, spec.shape, generator=rng)
        for name, spec in task.spec(num_samples).items()
    }
    inputs, weight = tensors.pop("inputs"), tensors.pop("weight")
    keys = tuple(f"sample{index}" for index in range(num_samples))
    return TaskBatch(task=task.name, inputs=inputs, target=tensors, weight=weight, keys=keys)
