"""Do the contenders make the same? Both backends, and the plain way from the geometry that the pipeline drew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.studies.throughput.plain_loaders import make_sample
from pipelines.base.errors import DataError
from pipelines.build import PipelineConfig, Step, build_pipeline
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest
from pipelines.targets.color.lab import ab_bins

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
    """Mean differences from the opencv backend, by what is compared. `configs`: by backend, "opencv" among them.

    Raises DataError beyond a tolerance.
    """
    steps = {name: _first_step(config) for name, config in configs.items()}
    base = _tensors(steps["opencv"])
    found = {f"{name} backend": _differences(base, _tensors(steps[name])) for name in steps if name != "opencv"}
    found["plain pytorch"] = _differences(base, _plain_tensors(shards, steps["opencv"]))
    for name, differences in found.items():
        for what, difference in differences.items():
            if not difference <= TOLERANCES[what]:
                raise DataError(
                    f"{name}: {what} differs from the opencv backend by {difference:.3g} in the mean, at most "
                    f"{TOLERANCES[what]} is allowed. What does not make the same is not timed."
                )
    return {"num_samples": NUM_COMPARED, "tolerances": TOLERANCES, "mean_differences": found}


def check_same_bits(one: PipelineConfig, other: PipelineConfig) -> None:
    """Raises DataError unless the first steps of the two are equal in every tensor."""
    first, second = _first_step(one).batches, _first_step(other).batches
    for name, batch in first.items():
        pairs = [(batch.inputs, second[name].inputs), (batch.weight, second[name].weight)]
        pairs += [(tensor, second[name].target[key]) for key, tensor in batch.target.items()]
        if not all(torch.equal(*pair) for pair in pairs):
            raise DataError(f"{name}: threads and worker processes make different batches, so they are not timed.")


def _first_step(config: PipelineConfig) -> Step:
    with build_pipeline(config, seed=0) as pipeline:
        return next(pipeline)


def _tensors(step: Step) -> dict[str, npt.NDArray[Any]]:
    """What is compared, of the first samples of a step."""
    place, color, views = (step.batches[name] for name in ("relative_position", "colorization", "exemplar"))
    channel = torch.from_numpy(place.geometry["channel"][:, 0])
    found = {
        "relative_position kept": _kept(place.inputs, channel),
        "colorization inputs": color.inputs,
        "colorization nearest color": color.target["bins"][:, 0],
        "colorization bin_weights": color.target["bin_weights"],
        "colorization weight": color.weight,
        "exemplar inputs": views.inputs,
    }
    return {name: tensor[:NUM_COMPARED].numpy() for name, tensor in found.items()}


def _kept(inputs: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
    """(B, 2, P, P): of each patch the channel that is not noise."""
    return inputs.gather(2, channel[:, :, None, None, None].expand(-1, -1, 1, *inputs.shape[3:])).squeeze(2)


def _plain_tensors(shards: Path, step: Step) -> dict[str, npt.NDArray[Any]]:
    table = load_manifest(shards).select("image", "train")
    reader, rows = SampleReader(table), {key: row for row, key in enumerate(table.keys)}
    made, channels = [], []
    for index in range(NUM_COMPARED):
        geometry = {name: {k: v[index] for k, v in batch.geometry.items()} for name, batch in step.batches.items()}
        encoded = bytes(reader.read(rows[step.batches["exemplar"].keys[index]]))
        drawn = geometry | {"canvas": geometry["exemplar"]}
        made.append(make_sample(encoded, drawn, np.random.default_rng(0)))
        channels.append(geometry["relative_position"]["channel"])
    color = [one["colorization"] for one in made]
    places = torch.from_numpy(np.stack([one["relative_position"] for one in made]))
    return {
        "relative_position kept": _kept(places, torch.from_numpy(np.concatenate(channels))).numpy(),
        "colorization inputs": np.stack([one["inputs"] for one in color]),
        "colorization nearest color": np.stack([one["bins"][0] for one in color]),
        "colorization bin_weights": np.stack([one["bin_weights"] for one in color]),
        "colorization weight": np.stack([one["weight"] for one in color]),
        "exemplar inputs": np.stack([one["exemplar"] for one in made]),
    }


def _differences(base: dict[str, npt.NDArray[Any]], other: dict[str, npt.NDArray[Any]]) -> dict[str, float]:
    found = {}
    for name, ours in base.items():
        theirs = other[name]
        if ours.shape != theirs.shape:
            raise DataError(f"{name}: shapes {ours.shape} and {theirs.shape}; need the same tensors to compare speeds.")
        if name.endswith("nearest color"):
            ours, theirs = ab_bins()[ours], ab_bins()[theirs]
        unit = 255 if name.endswith(("inputs", "kept")) else 1
        found[name] = float(np.abs(ours.astype(np.float64) - theirs).mean() * unit)
    return found
