"""A stage for a WebDataset pipeline of your own: decoded samples come in, batches of pretext tasks go out.

Random numbers are addressed by (seed, epoch, key, task), as in `build_pipeline`: a sample gets the same crop, flip and
task geometry wherever, whenever and next to whatever it comes. The stage is any callable from samples to batches, so
nothing of `webdataset` is imported here, and other pipelines of dicts may use it too.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.batch_rng import BatchRng, Geometry
from pipelines.base.errors import DataError, UsageError
from pipelines.decode.opencv import resize
from pipelines.pipeline_config import PipelineConfig
from pipelines.run.sample_source import canvas_boxes
from pipelines.targets.color.harmonize import task_sees_lightness
from pipelines.tasks import TASKS
from pipelines.tasks.base import Task, TaskBatch

__all__ = ["WebDatasetStage"]

Pixels = npt.NDArray[np.uint8]
IMAGE_FIELDS = ("jpg", "jpeg", "png", "webp", "image")
NOT_SET = -1
Sample = Mapping[str, Any]


class WebDatasetStage:
    """Stage for `webdataset.WebDataset(...).decode("rgb8").compose(WebDatasetStage(config, seed=0))`.

    Give it decoded images ("rgb8", "rgb", "torchrgb", "torchrgb8" or "pil") of any size. It yields one dict per batch:
    a `TaskBatch` by task name, with `config.batch_size` samples. All tasks run in every batch; `task_weight` has no
    effect. Can be pickled, so that DataLoader workers take it along.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        seed: int,
        image_field: str | None = None,
        label_field: str = "cls",
        drop_last: bool = False,
    ) -> None:
        """`config`: its tasks and sizes are used, its folders are not. `image_field`: None takes the first of jpg,
        jpeg, png, webp and image. `label_field`: an integer, or nothing. `drop_last`: leave out a short last batch.

        Raises UsageError for a negative seed, no task, or a task of clips.
        """
        clips = [name for name in config.tasks if TASKS[name].source != "image"]
        if seed < 0 or not config.tasks or clips:
            what = f"seed {seed}" if seed < 0 else f"tasks {', '.join(clips) or 'none'}"
            raise UsageError(f"a WebDataset stage with {what}; need a seed of at least 0 and tasks of images.")
        self.config, self.seed = config, seed
        self._image_field, self._label_field, self._drop_last = image_field, label_field, drop_last
        self._num_passes = 0
        # In shared memory, so that `set_epoch` reaches the worker processes of a DataLoader that keeps them.
        self._epoch = torch.full((), NOT_SET, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Use this epoch from the next pass on, in all worker processes; without it, epochs count a process's passes.

        Needed where passes start in new processes: a DataLoader with workers, and without `persistent_workers`.
        """
        self._epoch.fill_(epoch)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[dict[str, TaskBatch]]:
        """Yield a batch per task of every `batch_size` samples. Raises DataError naming a sample without an image."""
        # 1. The epoch once a pass: it must not change between two samples of one.
        epoch = self._num_passes if self._epoch.item() == NOT_SET else int(self._epoch.item())
        self._num_passes += 1
        # 2. Tasks once a process: they hold buffers, which are not pickled.
        tasks = self._tasks()
        smallest = max(task.min_batch_size for task in tasks.values())
        source = iter(samples)
        while part := tuple(islice(source, self.config.batch_size)):
            if len(part) < (self.config.batch_size if self._drop_last else smallest):
                return
            yield self._batches(part, epoch, tasks)

    def _tasks(self) -> dict[str, Task]:
        config = self.config
        tasks = {
            name: TASKS[name](task, config.canvas, lightness=task_sees_lightness(config.harmonize, name))
            for name, task in config.tasks.items()
        }
        for task in tasks.values():
            # Workers of a DataLoader run side by side, one per core.
            task.num_threads = config.num_threads if torch.utils.data.get_worker_info() is None else 1
        return tasks

    def _batches(self, samples: tuple[Sample, ...], epoch: int, tasks: Mapping[str, Task]) -> dict[str, TaskBatch]:
        keys = tuple(_key(sample) for sample in samples)
        images = [self._image(sample, key) for sample, key in zip(samples, keys, strict=True)]
        label = np.array([self._label(sample) for sample in samples], np.int64)
        epochs = [epoch] * len(keys)
        batches: dict[str, TaskBatch] = {}
        # One crop for all tasks, or one each if `share_decode` is off: as in a pipeline that reads shards.
        for group in [list(tasks)] if self.config.share_decode else [[name] for name in tasks]:
            stream = "canvas" if self.config.share_decode else f"canvas {group[0]}"
            uniform_B4 = BatchRng(self.seed, epochs, keys, stream).random(4)
            common = self._common_geometry(images, uniform_B4) | {"label": label}
            sizes_px = {tasks[name].canvas_px for name in group}
            pixels = {size_px: self._canvases(images, common, size_px) for size_px in sorted(sizes_px)}
            for name in group:
                own = tasks[name].draw(BatchRng(self.seed, epochs, keys, name))
                batches[name] = tasks[name].make(pixels[tasks[name].canvas_px], own | common, keys)
        return {name: batches[name] for name in tasks}

    def _common_geometry(self, images: list[Pixels], uniform_B4: npt.NDArray[np.float64]) -> Geometry:
        """Box int32 (B, 4) and flip bool (B,) of each canvas."""
        height_B, width_B = np.array([image.shape[:2] for image in images], np.int64).T
        box = canvas_boxes(uniform_B4, width_B, height_B, self.config.canvas_scale, self.config.canvas_px)
        return {"box": box, "flip": uniform_B4[:, 3] < self.config.flip_probability}

    def _canvases(self, images: list[Pixels], common: Geometry, size_px: int) -> torch.Tensor:
        """Cut, resized and mirrored as the backend `opencv` does: uint8 (B, S, S, 3)."""
        canvases = np.empty((len(images), size_px, size_px, 3), np.uint8)
        for image, (x0, y0, x1, y1), flip, canvas in zip(images, common["box"], common["flip"], canvases, strict=True):
            resize(image[y0:y1, x0:x1], bool(flip), canvas)
        return torch.from_numpy(canvases)

    def _image(self, sample: Sample, key: str) -> Pixels:
        fields = IMAGE_FIELDS if self._image_field is None else (self._image_field,)
        field = next((name for name in fields if name in sample), None)
        if field is None:
            there = ", ".join(name for name in sample if not name.startswith("__"))
            raise DataError(
                f"sample {key}: no image; it has {there or 'nothing'}. Give image_field one of these names."
            )
        return _rgb(sample[field], key, field)

    def _label(self, sample: Sample) -> int:
        label = sample.get(self._label_field)
        return -1 if label is None else int(label)


def _key(sample: Sample) -> str:
    key = sample.get("__key__")
    if not isinstance(key, str):
        raise DataError(f"a sample with __key__ {key!r}; random numbers are addressed by it, so it must be a text.")
    return key


def _rgb(value: Any, key: str, field: str) -> Pixels:
    """An image of WebDataset's decoders as uint8 (H, W, 3): arrays (H, W, 3), tensors (3, H, W), or Pillow's."""
    # Tensors are channels first, arrays channels last, as WebDataset's own decoders give them.
    if isinstance(value, torch.Tensor):
        value = value.numpy().transpose(1, 2, 0) if value.ndim == 3 else value.numpy()
    elif hasattr(value, "convert"):
        value = np.asarray(value.convert("RGB"))
    pixels = np.asarray(value) if not isinstance(value, bytes) else None
    if pixels is not None and pixels.dtype.kind == "f":
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        what = "encoded bytes" if pixels is None else f"{pixels.dtype} {pixels.shape}"
        raise DataError(f'sample {key}: {field} is {what}; need decoded RGB. Put .decode("rgb8") before this stage.')
    return np.ascontiguousarray(pixels)
