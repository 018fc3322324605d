"""Both chains on hand-made masks and on made clips, and the record of a small run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.studies.motion import device_chain
from benchmarks.studies.motion.device_chain import STUDY, MaskedClips, compare
from pipelines.base.errors import UsageError
from pipelines.decode.clip_planes import planes_of
from tests.made.composites import MadeCameraPath, compose, cutout, photo


def test_shares_and_qualities_are_those_counted_by_hand(monkeypatch):
    """Four cells: the device has the exact mask, of which one cell is unknown; the CPU misses another one."""
    truth = np.array([[True, True], [True, False]])
    device = SimpleNamespace(moving=torch.tensor(truth)[None], is_known=torch.tensor([[[True, True], [False, True]]]))
    moving, weight = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), torch.ones(1, 2, 2)
    monkeypatch.setattr(device_chain, "mask_clips", lambda _: device)
    monkeypatch.setattr(
        device_chain, "batch_of_planes", lambda *_: SimpleNamespace(target={"moving": moving}, weight=weight)
    )
    planes = torch.zeros(2, 6, 16, 16, dtype=torch.uint8)
    row = compare(MaskedClips(planes=planes, moving=(truth, truth)), batch_size=1)
    assert (row["num_clips"], row["num_clips_all_equal"]) == (2, 0)
    assert (row["equal_cells"], row["equal_known"]) == (0.5, 0.75)
    assert row["device"]["mean_iou"] == pytest.approx(2 / 3)
    assert row["device"]["mean_iou_where_weight_is_1"] == 1
    assert row["cpu"]["mean_iou"] == pytest.approx(2 / 3)
    assert row["difference"] == pytest.approx(0)


def test_both_chains_find_a_square_that_moves():
    place = {"object_height_px": 80, "object_start_xy": (144, 120), "object_step_xy": (3.0, -1.0)}
    size = {"height": 240, "width": 320, "num_frames": 3}
    made = compose(photo(0), cutout(1), rng=np.random.default_rng(0), camera=MadeCameraPath(), **place, **size)
    planes = planes_of(torch.from_numpy(made.clip)[None])
    row = compare(MaskedClips(planes=planes, moving=(made.mask,)), batch_size=2)
    assert row["equal_cells"] >= 0.98
    assert min(row["device"]["mean_iou"], row["cpu"]["mean_iou"]) >= 0.7


def test_stored_clips_are_compared_without_truth(small_shards, tmp_path):
    out = tmp_path / "chain.json"
    STUDY.main(["--shards", str(small_shards(clips=3)), "--stored-clips", "2", "--out", str(out)])
    (row,) = json.loads(out.read_text())["results"]["rows"]
    assert (row["clips"], row["num_clips"]) == ("clips of shards", 2)
    assert 0 <= row["equal_cells"] <= 1
    assert "device" not in row


def test_nothing_to_read_and_half_of_the_composites_are_refused(tmp_path):
    with pytest.raises(UsageError, match="nothing to read"):
        device_chain.ChainOptions()
    with pytest.raises(UsageError, match="both --photos and --cutouts"):
        device_chain.ChainOptions(photos=tmp_path)
