"""Restart a pipeline at every step and compare what follows with the unbroken stream, to the bit."""

import hashlib
import itertools
import json
from collections.abc import Callable

import numpy as np

from pipelines.build import Pipeline, Step


def digest(step: Step) -> str:
    """sha256 of everything in a step: its index, keys, every tensor and all geometry."""
    content = hashlib.sha256(str(step.index).encode())
    for name, batch in sorted(step.batches.items()):
        content.update(repr((name, batch.keys)).encode())
        tensors = {"inputs": batch.inputs, "weight": batch.weight} | batch.target
        for key, tensor in sorted(tensors.items()):
            content.update(repr((key, tensor.shape, tensor.dtype)).encode() + tensor.contiguous().numpy().tobytes())
        for key in sorted(batch.geometry):
            content.update(key.encode() + np.ascontiguousarray(batch.geometry[key]).tobytes())
    return content.hexdigest()


def digests(pipeline: Pipeline, num_steps: int) -> list[str]:
    """Of the next steps; the pipeline is closed after them."""
    with pipeline:
        return [digest(step) for step in itertools.islice(pipeline, num_steps)]


def assert_every_restart_goes_on_the_same(build: Callable[[], Pipeline], num_steps: int, look_ahead: int = 2) -> None:
    """A new pipeline from `build` at every one of the first `num_steps` positions, saved as JSON, gives the
    `look_ahead` steps that the unbroken one gave there."""
    whole, saved = [], []
    with build() as pipeline:
        for step in itertools.islice(pipeline, num_steps + look_ahead):
            whole.append(digest(step))
            saved.append(json.dumps(pipeline.position()))
    assert len(set(whole)) == len(whole)
    for start, position in enumerate(saved[:num_steps], start=1):
        pipeline = build()
        pipeline.restore(json.loads(position))
        assert digests(pipeline, look_ahead) == whole[start : start + look_ahead], f"after step {start}"
