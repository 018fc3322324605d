"""The measuring script on a few small clips: what it calls quality, its splits, and that a whole record is written."""

import json

import cv2
import numpy as np
import pytest

from benchmarks.studies.throughput import clips as script
from benchmarks.studies.throughput.motion_ways import OFFLINE_WAYS, OfflineWay, cells_moving, residual_px
from pipelines.targets.motion.dense_flow import FarnebackFlow
from tests.made.composites import MadeCameraPath, compose, cutout, photo


def mask(*cells: tuple[int, int]) -> np.ndarray:
    made = np.zeros((3, 4), bool)
    for cell in cells:
        made[cell] = True
    return made


def test_quality_counts_unknown_cells_as_still():
    masks, expected = [mask((0, 0), (0, 1)), mask((1, 1))], [mask((0, 0), (0, 2)), mask()]
    found = script.quality_of(masks, expected, [~mask((0, 1), (0, 2)), ~mask()])
    assert found["mean_iou"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["mean_iou_weights_ignored"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["mean_iou_where_weight_is_1"] == pytest.approx((1 + 0) / 2)
    assert found["false_foreground_ratio"] == pytest.approx(1 / 24)
    assert found["weight_ratio"] == pytest.approx((10 / 12 + 1) / 2)
    assert found["num_clips_with_moving_cells"] == 1
    assert found["mean_iou_with_moving_cells"] == pytest.approx(1 / 2)


def test_the_usual_way_finds_a_square_before_a_static_camera():
    made = compose(
        photo(0),
        cutout(1),
        rng=np.random.default_rng(0),
        camera=MadeCameraPath(),
        object_height_px=80,
        object_start_xy=(150, 120),
        object_step_xy=(2.0, 0.0),
    )
    residual = residual_px(OfflineWay(engine=FarnebackFlow(), shrink=1), made.clip[:3])
    assert residual.shape == (240, 320)
    found = cells_moving(residual, 1.0)
    assert np.count_nonzero(found & made.mask) / np.count_nonzero(found | made.mask) > 0.5


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Options that name folders of made photos and cut-outs; one set is enough."""
    monkeypatch.setattr(script, "ENGINES", ("dis",))
    monkeypatch.setattr(script, "CAMERAS", ("all",))
    monkeypatch.setattr(script, "TIMED_SETS", ("object, camera all",))
    for folder, picture in (("photos", photo), ("cutouts", cutout)):
        (tmp_path / folder).mkdir()
        for index in range(4):
            image = picture(index)
            code = cv2.COLOR_RGBA2BGRA if image.shape[-1] == 4 else cv2.COLOR_RGB2BGR
            cv2.imwrite(str(tmp_path / folder / f"{index}.png"), cv2.cvtColor(image, code))
    return [f"--{name}={tmp_path / name}" for name in ("photos", "cutouts")]


def test_masks_and_speed_alone(pictures, tmp_path):
    small = ["--clips=2", "--timed-clips=2", "--repeats=2", "--threads=1"]
    found = {}
    for part in ("masks", "speed"):
        script.STUDY.main([*pictures, *small, f"--parts={part}", f"--out={tmp_path / part}.json"])
        found[part] = json.loads((tmp_path / f"{part}.json").read_text())["results"]
    assert {row["way"] for row in found["masks"]["quality"]} == {"fourfold, dis"}
    assert not any(name.startswith("timings") for name in found["masks"])
    assert "quality" not in found["speed"]
    assert {row["name"] for row in found["speed"]["timings, object, camera all"]} == set(script.SPEED_WAYS)
    assert f"{script.WORKERS} / decode only" in found["speed"]["ratios, object, camera all"]


def test_a_whole_record_is_written(pictures, tmp_path):
    options = ["--clips=2", "--timed-clips=2", "--repeats=2", "--threads=1", f"--out={tmp_path / 'clips.json'}"]
    script.STUDY.main([*pictures, *options])
    record = json.loads((tmp_path / "clips.json").read_text())
    assert record["kind"] == "throughput_clips"
    assert {row["way"] for row in record["results"]["quality"]} >= {"fourfold, dis", *OFFLINE_WAYS}
    timed = record["results"]["timings, object, camera all"]
    assert all(len(row["repeats"]) == 2 for row in timed)
    assert "fourfold, dis / decode only" in record["results"]["ratios, object, camera all"]
