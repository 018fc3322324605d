"""A suite on a few made-up images, and a stage runner that learns nothing but leaves records: made in milliseconds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.results.record import Record, environment, write_record
from benchmarks.suite.stages import Stage
from benchmarks.suite.suite_config import Suite, load_suite
from tests.made.tiny_shards import coloured, write_shards

CONTENT: dict[str, Any] = {
    "name": "made-up",
    "task_sets": ["colorization", "exemplar", ["exemplar", "colorization"]],
    "baselines": ["random_init", "pixel_floor"],
    "depths": [10, 18],
    "seeds": [0, 1, 2],
    "pretrain": {"trunk": {"width": 0.25}, "budget": {"steps": 2}, "pipeline": {"canvas_px": 64}},
    "evaluations": {"linear_probe": {"labels_per_class": [2]}},
}
NUM_TEST = 400
BASE_PCT = {(): 50.0, ("colorization",): 60.0, ("exemplar",): 55.0, ("colorization", "exemplar"): 70.0}


def write_suite(folder: Path, **changes: Any) -> Path:
    """`made-up.yaml` and its shards (6 train and 3 val images of 3 classes)."""
    images = folder / "shards"
    if not images.exists():
        rng = np.random.default_rng(0)
        splits = {split: [(i % 3, coloured(i % 3, rng)) for i in range(n)] for split, n in (("train", 6), ("val", 3))}
        write_shards(images, splits)
    path = folder / "made-up.yaml"
    content = {**CONTENT, "images": str(images), **changes}
    if "pixel_floor" in content["baselines"]:
        # Two train images a class leave no room for the default of 20 labels a class.
        content["evaluations"] = {"pixel_floor": {"labels_per_class": [2]}} | content["evaluations"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def made_suite(folder: Path, **changes: Any) -> Suite:
    return load_suite(write_suite(folder, **changes))


def fake_runner(
    out: Path, *, fail: Callable[[Stage], bool] = lambda stage: False, ran: list[Stage] | None = None
) -> Callable[[Stage], Record]:
    """Records known numbers: `BASE_PCT` of the tasks, plus 1 per seed, plus a tenth of the depth."""

    def run(stage: Stage) -> Record:
        if ran is not None:
            ran.append(stage)
        if fail(stage):
            raise RuntimeError("made to fail")
        record = Record(
            kind=stage.kind,
            key=stage.key,
            label=stage.label,
            date="2026-01-02T03:04:05Z",
            seconds=2.0 if stage.kind == "pretrain" else 1.0,
            environment=environment(),
            config=stage.config,
            inputs=stage.inputs,
            results=dict(made_results(stage)),
        )
        write_record(stage.folder(out), record)
        return record

    return run


def made_results(stage: Stage) -> Mapping[str, Any]:
    if stage.kind == "pretrain":
        return {
            "num_steps": 2,
            "compute_tflop": 0.5,
            "samples_seen": {"colorization": 64},
            "num_trunk_parameters": 10**6,
            "losses": {"colorization": 2.5},
            "metrics": {"colorization": {"bin_accuracy": 0.75}},
            "passes": {"colorization": 60.4},
            "held_out": {
                "colorization": {
                    "model": {"loss": 6.25, "bin_accuracy": 0.125},
                    "constant": {"loss": 5.5, "bin_accuracy": 0.375},
                    "place": {"loss": 5.0, "bin_accuracy": 0.4375},
                }
            },
            "warnings": ["colorization: learned by <heart>."],
            "source_samples": {"image": 96},
            "source_passes": {"image": 16.0},
            "trunk_updates": 3,
            "head_updates": {"colorization": 2, "exemplar": 1},
            "decay": {"trunk": 0.0125, "colorization": 0.01, "exemplar": 0.0025},
            "cpu_seconds": 75.0,
            "gpu_seconds": 0.0,
        }
    if stage.kind == "pixel_floor":
        return {"top1_pct": 40.0, "num_test": NUM_TEST}
    if stage.kind == "unlabelled":
        others = enumerate(stage.config.get("others", []))
        return {"crop_retrieval_pct": 30.0, "cka_against": {label: 0.9 - 0.05 * index for index, label in others}}
    config = stage.needs[0].config
    top1 = BASE_PCT[tuple(config["pipeline"]["tasks"])] + config["seed"] + config["trunk"]["depth"] / 10
    few = {"top1_2_labels_pct": top1 - 20, "top1_2_labels_draws_pct": [top1 - 20]}
    return {"top1_pct": top1, **few, "l2": 0.1, "num_test": NUM_TEST}
