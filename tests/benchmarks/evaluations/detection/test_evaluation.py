import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.detection import evaluation as module
from benchmarks.evaluations.detection.boxed_images import BoxedSplit
from benchmarks.evaluations.detection.evaluation import EVALUATION, DetectionConfig, measure_detection
from benchmarks.evaluations.trunk_source import TrunkSource
from pipelines.base.errors import FourfoldError
from tests.made.boxed_data import write_coco, write_voc
from training.trunk import Trunk, TrunkConfig, save_trunk

ROOT = Path(__file__).resolve().parents[4]


def small_trunk(depth: int = 10) -> Trunk:
    torch.manual_seed(3)
    return Trunk(TrunkConfig(depth=depth, width=0.125)).eval()


def options(data: Path, **changes: Any) -> DetectionConfig:
    small = {"train_px": [32, 48], "test_px": 48, "most_px": 80, "roi_cells": 4, "rois_per_image": 16, "batch_size": 2}
    fast = {"optimizer": "adamw", "lr": 0.003, "steps": 2}
    return DetectionConfig(**{"data": data, **small, **fast, **changes})


def test_squares_and_discs_are_found(tmp_path: Path) -> None:
    config = options(write_voc(tmp_path / "voc", num_train=8, num_test=3), steps=50, norm_statistics="batch")
    results = measure_detection(small_trunk(), config, folder=tmp_path / "run", key="key")
    assert results["ap50_area_pct"] > 30
    assert results["learning_curve"][-1] < 0.7 * results["learning_curve"][0]
    assert (results["num_train"], results["num_test"], results["num_test_boxes"]) == (8, 3, 6)
    assert set(results["ap50_area_by_class_pct"]) == {"square", "disc"}
    json.dumps(results)


def test_a_run_with_a_lasso_and_a_supervised_fourth_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.evaluations.detection.detector import FourthStage

    data = write_coco(tmp_path / "coco", num_train=2, num_test=1)
    run, trunk = tmp_path / "run", small_trunk(18)
    run.mkdir()
    save_trunk(trunk, run)
    context = Context(trunk=TrunkSource(run=run), images=None, store=tmp_path / "store")
    config = options(data, train_split="train2017", test_split="val2017", lasso=True, fourth_stage="checkpoint")
    with pytest.raises(FourfoldError, match="no trained fourth stage"):
        EVALUATION.check(context, config)
    state = {f"heads.supervised.{name}": value for name, value in FourthStage(32).state_dict().items()}
    state["heads.supervised.classify.weight"] = torch.zeros(2, 64)
    monkeypatch.setattr(module, "load_checkpoint", lambda _: SimpleNamespace(model=state))
    EVALUATION.check(context, config)
    results = EVALUATION.run(context, config)
    assert len(results["lasso_mix"]) == 2
    assert np.linalg.norm(results["lasso_mix"]) == pytest.approx(1, abs=1e-3)
    assert not list((tmp_path / "store").glob("fine_tuning/*"))  # no checkpoint stays behind a finished evaluation


def test_batches_hold_boxes_where_the_objects_are(tmp_path: Path) -> None:
    """Mirrored and at any scale, the mean color inside a box stays that of its object."""
    images = module.open_boxes(options(write_voc(tmp_path / "voc")))[0].images
    split = BoxedSplit(images=images, class_names=("disc", "square"))
    seen = set()
    for step in range(6):
        batch = module._train_batch(split, step, options(tmp_path))
        for image, target in zip(batch.images, batch.targets, strict=True):
            seen.add(min(image.shape[1:]))
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                x0, y0, x1, y1 = (round(value) for value in box.tolist())
                inside = image[:, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].mean((1, 2))
                is_square = bool(inside[0] > 0.8 and inside[2] < 0.4)
                assert is_square == (int(label) == 2)
                assert not is_square or inside[0] > 0.9
    assert seen == {32, 48}
    again = [module._train_batch(split, 3, options(tmp_path)) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(again[0].images, again[1].images, strict=True))


def test_images_without_boxes_train_too(tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc", num_train=2, num_test=1)
    (data / "Annotations/scene0.xml").write_text("<annotation/>")
    results = measure_detection(small_trunk(), options(data, steps=1), folder=tmp_path / "run", key="key")
    assert results["num_train_boxes"] == 2


def test_torchvisions_detection_is_imported_in_one_place() -> None:
    users = []
    for package in ("pipelines", "training", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if "torchvision" not in text:
                continue
            names = [
                node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.ImportFrom | ast.Import)
            ]
            if any(name.startswith(("torchvision.models.detection", "torchvision.ops")) for name in names):
                users.append(path.relative_to(ROOT).as_posix())
    assert users == ["benchmarks/evaluations/detection/detector.py"]
