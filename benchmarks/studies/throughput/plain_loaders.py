"""What people use today: the plain tasks under torch's DataLoader, from files or from webdataset's tars."""

from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.studies.throughput import plain_tasks
from pipelines.run.sample_source import canvas_boxes
from pipelines.tasks import PRETEXT_TASKS, CanvasSpec, Geometry

__all__ = ["PlainDataset", "make_sample", "plain_loader", "webdataset_loader"]

Batches = Generator[Any, None, None]

CANVAS_PX = 256
PATCH_PX = 96
DRAWING = ("relative_position", "exemplar")


def drawn_for(width: int, height: int, rng: np.random.Generator) -> dict[str, Geometry]:
    """Geometry of one sample, by task; "canvas" is the crop."""
    tasks = {name: PRETEXT_TASKS[name] for name in DRAWING}
    uniform = rng.random((1, 4))
    box = canvas_boxes(uniform, np.array([width]), np.array([height]), (0.75, 1.0), CANVAS_PX)[0]
    drawn: dict[str, Geometry] = {"canvas": {"box": box, "flip": uniform[0, 3] < 0.5}}
    spec = CanvasSpec(canvas_px=CANVAS_PX)
    return drawn | {name: task(task.config_class(), spec).draw(rng) for name, task in tasks.items()}


def make_sample(encoded: bytes, drawn: dict[str, Geometry], rng: np.random.Generator) -> dict[str, Any]:
    """Inputs and targets of all three tasks from one decode."""
    canvas = plain_tasks.canvas_of(encoded, drawn["canvas"], CANVAS_PX)
    place = drawn["relative_position"]
    return {
        "relative_position": plain_tasks.relative_position(canvas, place, PATCH_PX, rng),
        "position": place["position"],
        "exemplar": plain_tasks.exemplar(canvas, drawn["exemplar"], PATCH_PX),
        "colorization": plain_tasks.colorization(canvas),
    }


def random_sample(encoded: bytes) -> dict[str, Any]:
    """As `make_sample`, of a geometry that it draws."""
    rng = np.random.default_rng()
    width, height = Image.open(BytesIO(encoded)).size
    return make_sample(encoded, drawn_for(width, height, rng), rng)


class PlainDataset(Dataset[dict[str, Any]]):
    """Files without end, so that a loader over them need not be started again."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, index: int) -> dict[str, Any]:
        return random_sample(self.paths[index % len(self.paths)].read_bytes())


def plain_loader(images: Path, batch_size: int, num_workers: int) -> Batches:
    """DataLoader over files."""
    yield from DataLoader(PlainDataset(images), batch_size=batch_size, num_workers=num_workers)


def webdataset_loader(shards: Path, batch_size: int, num_workers: int) -> Batches:
    """WebLoader over tars, in a shuffle buffer of webdataset's usual size."""
    import webdataset

    urls = sorted(str(path) for path in shards.glob("*.tar"))
    samples = webdataset.WebDataset(urls, resampled=True, shardshuffle=False).shuffle(1000, initial=100)
    made = samples.to_tuple("jpg").map(_from_tuple).batched(batch_size, collation_fn=torch.utils.data.default_collate)
    yield from webdataset.WebLoader(made, batch_size=None, num_workers=num_workers)


def _from_tuple(members: tuple[bytes]) -> dict[str, Any]:
    return random_sample(members[0])
