"""Tasks that give back their pixels and a drawn number: what goes through a pipeline, seen from outside."""

import time
from typing import ClassVar

import torch

from pipelines.build import PipelineConfig
from pipelines.tasks.base import Task, TaskBatch, TaskConfig, TensorSpec


class EchoConfig(TaskConfig):
    repeats: int = 1
    fail_at_call: int = -1
    sleep_s: float = 0.0


class Echo(Task):
    """Gives back its pixels and a drawn number: what goes through the pipeline, seen from outside."""

    name: ClassVar[str] = "echo"
    source: ClassVar[str] = "image"
    config_class: ClassVar[type[TaskConfig]] = EchoConfig

    def __init__(self, config, canvas, *, lightness=False):
        super().__init__(config, canvas, lightness=lightness)
        self.num_calls = 0

    @property
    def examples_per_sample(self):
        return self.config.repeats

    def draw(self, rng):
        return {"number": rng.integers(0, 2**40, (self.config.repeats,))}

    def make(self, pixels, geometry, keys):
        self.num_calls += 1
        if self.num_calls - 1 == self.config.fail_at_call:
            raise ZeroDivisionError("task broke")
        time.sleep(self.config.sleep_s)
        pixels = pixels if pixels.ndim == 4 else pixels[:, 0]
        return TaskBatch(
            task=self.name,
            inputs=pixels.permute(0, 3, 1, 2).repeat_interleave(self.config.repeats, 0).float() / 255,
            target={"number": torch.from_numpy(geometry["number"]).flatten()},
            weight=torch.ones(len(keys) * self.config.repeats),
            keys=tuple(keys),
            geometry=geometry,
        )

    def spec(self, batch_size):
        side, rows = self.canvas.canvas_px, batch_size * self.config.repeats
        return {
            "inputs": TensorSpec(shape=(rows, 3, side, side), dtype=torch.float32, low=0, high=1),
            "number": TensorSpec(shape=(rows,), dtype=torch.int64, low=0, high=2**40),
            "weight": TensorSpec(shape=(rows,), dtype=torch.float32, low=0, high=1),
        }


class OtherEcho(Echo):
    name: ClassVar[str] = "other_echo"


class ClipEcho(Echo):
    name: ClassVar[str] = "clip_echo"
    source: ClassVar[str] = "clip"


def config_for(folder, tasks=("echo",), **options):
    tasks = tasks if isinstance(tasks, dict) else {key: {} for key in tasks}
    small = {"canvas_px": 24, "clip_height_px": 16, "clip_width_px": 24, "num_frames": 3, "num_threads": 2}
    sizes = {"batch_size": 4, "clip_batch_size": 2}
    return PipelineConfig(**({"images": folder, "clips": folder, "tasks": tasks} | small | sizes | options))
