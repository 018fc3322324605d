import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.base import Context
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.features.store import features_of
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.suite.evaluate_trunk import evaluate_trunk
from pipelines.base.errors import DataError, FourfoldError, UsageError
from tests.made.boxed_data import voc_xml, write_voc
from tests.made.cutouts import write_cutouts
from tests.made.depth_data import write_nyu, write_rooms
from tests.made.tiny_shards import coloured, write_shards

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
FROZEN = {"canvas_px": 32, "recalibrate_norm": False}
TRAINED = {"steps": 1, "batch_size": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "linear_probe": {**FROZEN, "labels_per_class": [], "l2_grid": [1.0], "lasso": True},
    "knn": FROZEN,
    "few_shot": {**FROZEN, "labels_per_class": [1, 3], "num_draws": 2},
    "unit_probe": {**FROZEN, "l2_grid": [1.0]},
}
OTHER_OPTIONS: dict[str, dict[str, Any]] = {
    "fine_tune": {"canvas_px": 32, "labels_pct": [100], "num_samples": 8, "batch_size": 8},
    "unlabelled": {"canvas_px": 32},
    "dense": {"height_px": 64, "width_px": 64, "num_cells": 100, "l2_grid": [0.1], "per_cutout": 1},
    "depth": {**TRAINED, "width_px": 64, "height_px": 48},
    "detection": {**TRAINED, "train_px": [64], "test_px": 64, "most_px": 96, "roi_cells": 2, "rois_per_image": 4},
}


def options(*kinds: str, **changes: Any) -> dict[str, Any]:
    return {kind: EVALUATIONS[kind].config_class(**(OPTIONS | OTHER_OPTIONS)[kind] | changes) for kind in kinds}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 3 classes and the state dict of a random torchvision ResNet-18."""
    path, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    counts = {"train": 30, "val": 15}
    write_shards(
        path, {split: [(i % 3, coloured(i % 3, rng)) for i in range(count)] for split, count in counts.items()}
    )
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), path / "resnet18.pth")
    return path


def context(folder: Path, weights: str = "resnet18.pth", name: str = "torchvision:resnet18") -> Context:
    source = TrunkSource(architecture=name, weights=folder / weights)
    return Context(trunk=source, images=folder, store=folder / "unused")


def test_foreign_weights_go_through_every_probe_and_leave_records(folder: Path, tmp_path: Path) -> None:
    records = evaluate_trunk(context(folder), options(*OPTIONS), tmp_path)
    assert list(records) == list(OPTIONS)
    for kind, record in records.items():
        written = json.loads((tmp_path / f"{kind}-{record.key[:12]}" / "record.json").read_text())
        assert written["results"] == record.results
        assert record.results[EVALUATIONS[kind].metric if kind != "few_shot" else "top1_3_labels_pct"] > 33
    # The same again: nothing runs.
    lines: list[str] = []
    assert evaluate_trunk(context(folder), options(*OPTIONS), tmp_path, say=lines.append) == records
    assert all("finished before" in line for line in lines)
    # Only what other code made runs again.
    path = tmp_path / f"knn-{records['knn'].key[:12]}" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "of before"}))
    lines.clear()
    again = evaluate_trunk(context(folder), options(*OPTIONS), tmp_path, say=lines.append)
    assert again["knn"].results["top1_pct"] == records["knn"].results["top1_pct"]
    assert [line.split(":")[0] for line in lines if "since other code made the record" in line] == ["knn"]


def test_foreign_weights_go_through_all_that_read_places_or_train(folder: Path, tmp_path: Path) -> None:
    """With the probes above, every evaluation of a trunk."""
    assert {*OPTIONS, *OTHER_OPTIONS} == {kind for kind, one in EVALUATIONS.items() if one.needs_trunk}
    given = options("fine_tune", "unlabelled")
    for kind, data in (
        ("dense", write_cutouts(tmp_path / "cut")),
        ("depth", write_rooms(tmp_path / "rooms", 2, 1)),
        ("detection", write_voc(tmp_path / "voc", 2, 1)),
    ):
        given |= options(kind, data=data)
    records = evaluate_trunk(context(folder), given, tmp_path / "out")
    assert list(records) == list(OTHER_OPTIONS)
    for kind, record in records.items():
        assert 0 <= record.results[EVALUATIONS[kind].metric] <= 100
    assert records["depth"].results["filters"] == [128, 64, 32]  # of 256 channels
    # What fine-tuning keeps to resume from is gone, and each record is in its folder.
    written = (tmp_path / "out").glob("*/record.json")
    assert sorted(path.parent.name.split("-")[0] for path in written) == sorted(records)
    assert not list((tmp_path / "out").rglob("*.pt"))


def test_features_of_foreign_weights_equal_torchvisions_own(folder: Path, tmp_path: Path) -> None:
    network = resnet18().eval()
    network.load_state_dict(torch.load(folder / "resnet18.pth", weights_only=True))
    seen: list[torch.Tensor] = []
    network.layer3.register_forward_hook(lambda module, inputs, output: seen.append(output.mean(dim=(2, 3))))
    rng = np.random.default_rng(0)
    image = torch.from_numpy(coloured(0, rng)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        network((image - MEAN) / DEVIATION)
    request = FeatureRequest(split="train", canvas_px=32, pooling="mean", pool=1)
    place = Context(trunk=context(folder).trunk, images=folder, store=tmp_path)
    found = features_of(place, [request])[0].last_ND()[0]
    np.testing.assert_allclose(found, seen[0][0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "kinds", "error", "words"),
    [
        ({"weights": "none.pth"}, ("knn",), UsageError, "none.pth"),
        ({"name": "torchvision:resnet34"}, ("knn",), DataError, "They fit torchvision:resnet18"),
        ({}, ("knn", "few_shot"), DataError, "few_shot: labels_per_class = 11: class 0 has 10 samples"),
    ],
)
def test_what_cannot_work_is_one_message_and_leaves_nothing(
    folder: Path, tmp_path: Path, changes: dict[str, str], kinds: tuple[str, ...], error: type, words: str
) -> None:
    given = options(*kinds)
    if "few_shot" in given:
        given |= options("few_shot", labels_per_class=[11])
    with pytest.raises(error, match=words) as caught:
        evaluate_trunk(context(folder, **changes), given, tmp_path / "out")
    assert isinstance(caught.value, FourfoldError)
    assert not (tmp_path / "out").exists()


def spoiled_boxes(data: Path) -> None:
    (data / "Annotations/scene0.xml").write_text(voc_xml([("disc", (9, 5, 9, 20))]))


def other_class(data: Path) -> None:
    (data / "Annotations/scene2.xml").write_text(voc_xml([("cat", (1, 1, 20, 20))]))


def infinite_depth(data: Path) -> None:
    with h5py.File(data / "nyu_depth_v2_labeled.mat", "a") as file:
        file["depths"][1, 3, 4] = np.inf


@pytest.mark.parametrize(
    ("kind", "make", "spoil", "words"),
    [
        ("detection", write_voc, shutil.rmtree, ["is no folder", "VOCtest_06-Nov-2007.tar"]),
        ("depth", write_nyu, lambda data: (data / "splits.mat").unlink(), ["Download http", "splits.mat"]),
        ("dense", write_cutouts, lambda data: shutil.rmtree(data / "photos"), ["none of the layouts", "DAVIS"]),
        ("detection", lambda data: write_voc(data, 2, 1), spoiled_boxes, ["scene0 has the box 9 5 9 20"]),
        ("detection", lambda data: write_voc(data, 2, 1), other_class, ["no box of cat in the train split"]),
        ("depth", write_nyu, infinite_depth, ["1 of 2 pairs of split test", "pair 2 (infinite depth)"]),
    ],
    ids=["no data", "half the data", "wrong layout", "corrupt box", "class mismatch", "depth not finite"],
)
def test_unfit_data_of_one_evaluation_stops_all_before_the_first_pass(
    folder: Path, tmp_path: Path, kind: str, make: Any, spoil: Any, words: list[str]
) -> None:
    data = make(tmp_path / "data")
    spoil(data)
    with pytest.raises(FourfoldError) as raised:
        evaluate_trunk(
            context(folder), options("knn") | options(kind, data=data) | options("few_shot"), tmp_path / "out"
        )
    assert str(raised.value).startswith(f"{kind}: ")
    assert [word for word in words if word not in str(raised.value)] == []
    assert not (tmp_path / "out").exists()


def test_missing_images_are_told(folder: Path, tmp_path: Path) -> None:
    nothing = Context(trunk=context(folder).trunk, images=None, store=tmp_path)
    with pytest.raises(UsageError, match="knn: no labelled images given"):
        evaluate_trunk(nothing, options("knn"), tmp_path / "out")
