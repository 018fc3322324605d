"""Do the detection and depth evaluations learn, and does a pretrained trunk help? Pretrained against random weights.

    python -m benchmarks.studies.fine_tuning_gain --run RUN --boxes VOC_DIR --depth RGBD_DIR --jobs 4 --out FILE.json

Both starts take the same steps on the same images in the same order; a seed changes new weights, order, augmentation
and the random trunk. A check of the code on small data, not a benchmark of methods: one pretraining, small images, few
steps, settings that were not tuned.
"""

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from benchmarks.evaluations.depth.evaluation import DepthConfig, measure_depth
from benchmarks.evaluations.detection.evaluation import DetectionConfig, measure_detection
from benchmarks.harness.study import Study, say
from benchmarks.results.statistics import summarize
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress
from training.trunk import Trunk, load_trunk

__all__ = ["STUDY", "GainOptions", "measure"]

Kind = Literal["detection", "depth"]
Start = Literal["pretrained", "random"]

# Small on purpose: all runs together take minutes of one core.
DETECTION = {
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 0.001,
    "schedule": "cosine",
    "train_px": [96, 112, 128],
    "test_px": 112,
    "most_px": 200,
    "roi_cells": 7,
    "rois_per_image": 32,
}
DEPTH = {
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 0.001,
    "schedule": "cosine",
    "width_px": 128,
    "height_px": 96,
}
METRICS: dict[Kind, tuple[str, ...]] = {
    "detection": ("ap50_11_point_pct", "ap50_area_pct", "ap75_pct", "ap50_95_pct"),
    "depth": ("under_1.25_pct", "mae_m", "mre", "rmse_m"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GainOptions:
    """The trunk, the data, and how long to train."""

    run: Annotated[Path, "folder of a finished pretraining"]
    boxes: Annotated[Path | None, "folder in VOC layout; detection is left out without it"] = None
    depth: Annotated[Path | None, "folder of RGB and depth; depth is left out without it"] = None
    num_seeds: Annotated[int, "runs of every start"] = 3
    num_detection_steps: Annotated[int, "steps of a detection run"] = 120
    num_depth_steps: Annotated[int, "steps of a depth run"] = 120
    num_jobs: Annotated[int, "runs at a time, one core each"] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    kind: Kind
    start: Start
    seed: int
    options: GainOptions


def measure(options: GainOptions) -> dict[str, Any]:
    """Return one row for each kind, start and seed, and the differences of the starts, paired by seed."""
    kinds: list[Kind] = []
    if options.boxes is not None:
        kinds.append("detection")
    if options.depth is not None:
        kinds.append("depth")
    if not kinds:
        raise UsageError("nothing to measure. Give --boxes DIR, --depth DIR or both.")
    starts: tuple[Start, ...] = ("pretrained", "random")
    jobs = [
        _Job(kind=kind, start=start, seed=seed, options=options)
        for seed in range(options.num_seeds)
        for kind in kinds
        for start in starts
    ]
    # Spawned: torch's threads do not survive a fork.
    with ProcessPoolExecutor(max(1, options.num_jobs), mp_context=get_context("spawn")) as pool:
        rows = []
        for row in pool.map(_run, jobs):
            # Said at once: a run that is stopped leaves what it has measured on the screen.
            say(_line(row))
            rows.append(row)
    return {"rows": rows, "differences": {kind: _differences(rows, kind) for kind in kinds}}


def _run(job: _Job) -> dict[str, Any]:
    """Fine-tune one trunk and return its results."""
    torch.set_num_threads(1)
    options = job.options
    trunk = load_trunk(options.run)
    if job.start == "random":
        torch.manual_seed(job.seed)
        trunk = Trunk(trunk.config).eval()
    with tempfile.TemporaryDirectory() as folder, quiet_progress():
        if job.kind == "detection":
            boxes = DetectionConfig(data=options.boxes, steps=options.num_detection_steps, seed=job.seed, **DETECTION)
            results = measure_detection(trunk, boxes, folder=Path(folder), key="run")
        else:
            depth = DepthConfig(data=options.depth, steps=options.num_depth_steps, seed=job.seed, **DEPTH)
            results = measure_depth(trunk, depth, folder=Path(folder), key="run")
    return {"kind": job.kind, "start": job.start, "seed": job.seed, **results}


def _differences(rows: Sequence[dict[str, Any]], kind: Kind) -> dict[str, Any]:
    """Return pretrained minus random by metric: mean over seeds, and the half width of its 95 % interval."""
    found = {}
    for metric in METRICS[kind]:
        first, second = (
            {row["seed"]: row[metric] for row in rows if row["kind"] == kind and row["start"] == start}
            for start in ("pretrained", "random")
        )
        summary = summarize([first[seed] - second[seed] for seed in sorted(first)])
        half_width = summary.half_width if summary.has_interval else None
        found[metric] = {"mean": summary.mean, "half_width_95": half_width}
    return found


def _line(row: dict[str, Any]) -> str:
    values = ", ".join(f"{metric} {row[metric]:.3g}" for metric in METRICS[row["kind"]])
    return f"{row['kind']}, {row['start']}, seed {row['seed']}: {values}"


def _lines(results: dict[str, Any]) -> Iterable[str]:
    for kind, differences in results["differences"].items():
        for metric, value in differences.items():
            width = "" if value["half_width_95"] is None else f" +- {value['half_width_95']:.2g}"
            yield f"{kind}, pretrained minus random, {metric}: {value['mean']:+.3g}{width}"


STUDY = Study(
    module="benchmarks.studies.fine_tuning_gain",
    kind="fine_tuning_gain",
    label="detection and depth, fine-tuned from pretrained and from random weights",
    description=__doc__,
    options=GainOptions,
    measure=measure,
    lines=_lines,
    constants={"detection_options": DETECTION, "depth_options": DEPTH},
    packages=("torch", "torchvision", "torchmetrics", "faster-coco-eval", "opencv-python-headless"),
)

if __name__ == "__main__":
    STUDY.main()
