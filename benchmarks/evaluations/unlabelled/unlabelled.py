"""Evaluation without labels: effective rank, alignment and uniformity, CKA, instance retrieval.

Two random square crops of each image, last map of stage 3 mean-pooled. CKA compares every two units of stage 3, and the
last unit with that of other runs (`against`) or of other cells of a suite (`against_suite`), on the same crops.

Letters: M units, N images, D features.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from benchmarks.evaluations.base import Context, Evaluation, Results
from benchmarks.evaluations.content import folder_content, split_content, text_content
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.evaluations.unlabelled.cutout_pairs import cutout_files, cutout_pairs
from benchmarks.evaluations.unlabelled.measures import (
    alignment,
    effective_rank,
    linear_cka,
    retrieval_pct,
    uniformity,
    unit_rows,
)
from pipelines.base.atomic import atomic_file
from pipelines.base.blas_threads import one_blas_thread
from pipelines.base.config import Config
from pipelines.base.errors import UsageError
from pipelines.base.rng import rng_for
from pipelines.run.canvases import Cut, canvases_at
from pipelines.shards.format.manifest import SampleTable, load_manifest
from training.parallel import cpu_threads
from training.trunk import Trunk

__all__ = ["EVALUATION", "UnlabelledConfig", "run"]

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


class UnlabelledConfig(Config):
    """Options of the evaluation without labels."""

    canvas_px: int = Field(default=256, ge=16)
    """Side of the square the trunk sees; cost grows with its square. A suite takes the pretraining's if not given."""
    num_images: int = Field(default=2000, ge=2)
    """Images of the test split at most, evenly spaced; two passes each, and memory for N x N cosines."""
    crop_scale: tuple[float, float] = (0.4, 0.8)
    """Area of a crop as a share of the largest square: smaller makes retrieval harder."""
    against: list[Path] = Field(default_factory=list)
    """Folders of other runs, for CKA with their last unit; one pass each."""
    against_suite: bool = False
    """In a suite: CKA with the trunks of the cells before it that share its seed, too (other task sets and depths). One
    pass a trunk. A pretraining that fails then fails this evaluation of the cells after it."""
    cutouts: Path | None = None
    """Folder of RGBA cut-outs, for retrieval of one object on other backgrounds; two passes each."""
    seed: int = Field(default=0, ge=0)
    """Seed of crops and composites: the same for every trunk."""
    batch_size: int = Field(default=64, ge=1)
    """Images per forward pass; memory grows with it."""


def run(context: Context, config: UnlabelledConfig) -> Results:
    """Return effective_rank (and as % of D), alignment, uniformity, cka_units (M x M), cka_against, and shares of crops
    and of cut-outs that find their other half (crop_retrieval_pct, cutout_retrieval_pct)."""
    start_s = time.monotonic()
    table = load_manifest(context.the_images()).select("image", context.test_split)
    rows = np.unique(np.linspace(0, len(table) - 1, min(config.num_images, len(table))).astype(np.int64))
    trunk = context.the_trunk().load()
    # 1. Two crops of every image.
    with cpu_threads(0):
        units = _features(trunk, _crops(table, rows, config, view=0), config)
        second = unit_rows(_features(trunk, _crops(table, rows, config, view=1), config)[-1])
        _keep(context, context.the_trunk(), config, units[-1])
        sources = {str(path): TrunkSource(run=path) for path in config.against} | dict(context.others)
        others = {name: _last_unit(context, source, table, rows, config) for name, source in sources.items()}
    first = unit_rows(units[-1])
    # 2. The measures, of the last unit if not said otherwise.
    with one_blas_thread():
        rank = effective_rank(units[-1])
        results: Results = {
            "crop_retrieval_pct": retrieval_pct(first, second),
            "effective_rank": rank,
            "effective_rank_pct": 100.0 * rank / min(units[-1].shape),
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "cka_units": [[round(linear_cka(one, two), 4) for two in units] for one in units],
            "cka_against": {name: linear_cka(units[-1], other) for name, other in others.items()},
        }
    # 3. Objects on other backgrounds.
    if config.cutouts is not None:
        with cpu_threads(0):
            halves = _cutout_features(trunk, table, rows, config)
        results["cutout_retrieval_pct"] = retrieval_pct(*halves)
        results["num_cutouts"] = len(halves[0])
    return results | {"num_images": len(rows), "seconds_all": time.monotonic() - start_s}


def check(context: Context, config: UnlabelledConfig) -> None:
    """Check images, runs to compare with and cut-outs. Raises UsageError or DataError."""
    load_manifest(context.the_images()).select("image", context.test_split)
    low, high = config.crop_scale
    if not 0 < low <= high <= 1:
        raise UsageError(f"crop_scale = [{low}, {high}]; need two numbers with 0 < first <= second <= 1.")
    for path in config.against:
        TrunkSource(run=path).load(torch.device("cpu"))
    if config.cutouts is not None:
        cutout_files(config.cutouts)


def content(config: UnlabelledConfig) -> dict[str, str]:
    """Return the sha256 of cut-outs and of the runs compared with."""
    found = {} if config.cutouts is None else {"cutouts": folder_content(config.cutouts)}
    if config.against:
        found["against"] = text_content(" ".join(TrunkSource(run=path).content for path in config.against))
    return found


def _crops(table: SampleTable, rows: npt.NDArray[np.int64], config: UnlabelledConfig, *, view: int) -> Iterator[Pixels]:
    """Yield batches of one crop of each image, uint8 (B, S, S, 3)."""
    cuts = []
    for start in range(0, len(rows), config.batch_size):
        chosen = rows[start : start + config.batch_size]
        boxes = [_box(table, int(row), config, view) for row in chosen]
        cuts.append(Cut(rows=chosen, boxes=np.array(boxes, dtype=np.int32), flips=np.zeros(len(chosen), bool)))
    return (batch.pixels.numpy() for batch in canvases_at(table, cuts, canvas_px=config.canvas_px))


def _box(table: SampleTable, row: int, config: UnlabelledConfig, view: int) -> tuple[int, int, int, int]:
    width, height = int(table.width[row]), int(table.height[row])
    # Addressed by the image's key: other images in the split leave this crop as it is.
    rng = rng_for(config.seed, view, table.keys[row], "unlabelled")
    side = max(1, round(min(width, height) * rng.uniform(*config.crop_scale) ** 0.5))
    x0, y0 = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return x0, y0, x0 + side, y0 + side


@torch.no_grad()
def _features(trunk: Trunk, batches: Iterator[Pixels], config: UnlabelledConfig) -> list[Floats]:
    """Return the mean-pooled maps of every unit, float64 (N, D) each."""
    device = next(trunk.parameters()).device
    trunk.to(memory_format=torch.channels_last).eval()
    rows: list[list[Any]] = []
    for pixels in batches:
        inputs = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
        rows.append([unit.float().mean(dim=(2, 3)).cpu().numpy() for unit in trunk(inputs).units])
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*rows, strict=True)]


def _last_unit(
    context: Context, source: TrunkSource, table: SampleTable, rows: npt.NDArray[np.int64], config: UnlabelledConfig
) -> Floats:
    """Return the features of another trunk's last unit, made once for all trunks that are compared with it."""
    path = _kept_path(context, source, config)
    if not path.is_file():
        _keep(context, source, config, _features(source.load(), _crops(table, rows, config, view=0), config)[-1])
    return np.asarray(np.load(path), dtype=np.float64)


def _keep(context: Context, source: TrunkSource, config: UnlabelledConfig, features_ND: Floats) -> None:
    path = _kept_path(context, source, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        # float32, as the trunk gave them: nothing is lost.
        np.save(file, features_ND.astype(np.float32))


def _kept_path(context: Context, source: TrunkSource, config: UnlabelledConfig) -> Path:
    names = {"canvas_px", "num_images", "crop_scale", "seed", "batch_size"}
    images = split_content(context.the_images(), "image", context.test_split)
    identity = [config.model_dump(mode="json", include=names), source.content, images]
    return context.store / f"crops-{text_content(json.dumps(identity, sort_keys=True))}.npy"


def _cutout_features(
    trunk: Trunk, table: SampleTable, rows: npt.NDArray[np.int64], config: UnlabelledConfig
) -> tuple[Floats, Floats]:
    """Return features of both composites of every cut-out, rows of length 1."""
    assert config.cutouts is not None

    def backgrounds() -> Iterator[Pixels]:
        # From the start again when the split has fewer images than two a cut-out.
        while True:
            for pixels in _crops(table, rows, config, view=2):
                yield from pixels

    pairs = list(cutout_pairs(cutout_files(config.cutouts), backgrounds(), config.seed))
    halves = []
    for side in (0, 1):
        pictures = [pair[side] for pair in pairs]
        starts = range(0, len(pictures), config.batch_size)
        batches = (np.stack(pictures[start : start + config.batch_size]) for start in starts)
        halves.append(unit_rows(_features(trunk, batches, config)[-1]))
    return halves[0], halves[1]


EVALUATION = Evaluation(
    config_class=UnlabelledConfig,
    run=run,
    check=check,
    content=content,
    compares=lambda config: bool(config.against_suite),
    data_fields=("against", "cutouts"),
    metric="crop_retrieval_pct",
)
