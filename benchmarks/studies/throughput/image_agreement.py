"""Check that contenders make the same: both backends, and the plain way from the geometry that the pipeline drew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.loaders.agreement import difference
from benchmarks.studies.throughput.plain_pytorch import make_sample
from pipelines.base.errors import DataError
from pipelines.build import PipelineConfig, Step, build_pipeline
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest

__all__ = ["TOLERANCES", "check_agreement", "check_same_bits"]

NUM_COMPARED = 16
TOLERANCES = {
    "relative_position kept": 0.5,
    "colorization inputs": 0.5,
    "colorization nearest color": 0.25,
    "colorization bin_weights": 0.01,
    "colorization weight": 0.0,
    "exemplar inputs": 1.5,
}
"""Largest mean difference. Inputs in levels of 1/255; the nearest bin's color in units of ab. Decoders, resizes and
warps round to 8 bits each in their own way, and exemplar's powers magnify a level in the dark."""


def check_agreement(shards: Path, configs: Mapping[str, PipelineConfig]) -> dict[str, Any]:
    """Return mean differences from the opencv backend. `configs`: by backend, "opencv" among them.

    Raises DataError beyond a tolerance.
    """
    # First steps of one seed: all of them have the same crops and geometry.
    steps = {name: _first_step(config) for name, config in configs.items()}
    base = _tensors(steps["opencv"])
    found = {f"{name} backend": _differences(base, _tensors(steps[name])) for name in steps if name != "opencv"}
    found["plain pytorch"] = _differences(base, _plain_tensors(shards, steps["opencv"]))
    for name, differences in found.items():
        for what, apart in differences.items():
            if not apart <= TOLERANCES[what]:
                raise DataError(
                    f"{name}: {what} differs from the opencv backend by {apart:.3g} in the mean, at most "
                    f"{TOLERANCES[what]} is allowed. What does not make the same is not timed."
                )
    return {"num_samples": NUM_COMPARED, "tolerances": TOLERANCES, "mean_differences": found}


def check_same_bits(one: PipelineConfig, other: PipelineConfig) -> None:
    """Check that the first steps of the two are equal in every tensor. Raises DataError."""
    first, second = _first_step(one).batches, _first_step(other).batches
    for name, batch in first.items():
        pairs = [(batch.inputs, second[name].inputs), (batch.weight, second[name].weight)]
        pairs += [(tensor, second[name].target[key]) for key, tensor in batch.target.items()]
        if not all(torch.equal(*pair) for pair in pairs):
            raise DataError(f"{name}: threads and worker processes make different batches, so they are not timed.")


def _first_step(config: PipelineConfig) -> Step:
    with build_pipeline(config, seed=0) as pipeline:
        return next(pipeline)


def _tensors(step: Step) -> dict[str, torch.Tensor]:
    """Return what is compared, of the first samples of a step."""
    place, color, views = (step.batches[name] for name in ("relative_position", "colorization", "exemplar"))
    found = {
        "relative_position kept": _kept(place.inputs, torch.from_numpy(place.geometry["channel"][:, 0])),
        "colorization inputs": color.inputs,
        "colorization nearest color": color.target["bins"],
        "colorization bin_weights": color.target["bin_weights"],
        "colorization weight": color.weight,
        "exemplar inputs": views.inputs,
    }
    return {name: tensor[:NUM_COMPARED] for name, tensor in found.items()}


def _kept(inputs: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
    """Return (B, 2, P, P): of each patch the channel that is not noise."""
    return inputs.gather(2, channel[:, :, None, None, None].expand(-1, -1, 1, *inputs.shape[3:])).squeeze(2)


def _plain_tensors(shards: Path, step: Step) -> dict[str, torch.Tensor]:
    table = load_manifest(shards).select("image", "train")
    reader, rows = SampleReader(table), {key: row for row, key in enumerate(table.keys)}
    made, channels = [], []
    for index in range(NUM_COMPARED):
        geometry = {name: {k: v[index] for k, v in batch.geometry.items()} for name, batch in step.batches.items()}
        encoded = bytes(reader.read(rows[step.batches["exemplar"].keys[index]]))
        # The noise of left-out channels is other noise here; `_kept` compares the channel without noise only.
        sample = make_sample(encoded, geometry | {"canvas": geometry["exemplar"]}, np.random.default_rng(0))
        made.append(sample | {f"colorization {name}": value for name, value in sample["colorization"].items()})
        channels.append(geometry["relative_position"]["channel"])

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([one[name] for one in made]))

    same = ("colorization inputs", "colorization bin_weights", "colorization weight")
    return {name: stacked(name) for name in same} | {
        "relative_position kept": _kept(stacked("relative_position"), torch.from_numpy(np.concatenate(channels))),
        "colorization nearest color": stacked("colorization bins"),
        "exemplar inputs": stacked("exemplar"),
    }


def _differences(base: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> dict[str, float]:
    found = {}
    for name, ours in base.items():
        theirs = other[name]
        if ours.shape != theirs.shape:
            shapes = f"{tuple(ours.shape)} and {tuple(theirs.shape)}"
            raise DataError(f"{name}: shapes {shapes}; need the same tensors to compare speeds.")
        kind = "bins" if name.endswith("color") else "inputs" if name.endswith(("inputs", "kept")) else ""
        found[name] = float(difference(kind, ours, theirs).double().mean())
    return found
