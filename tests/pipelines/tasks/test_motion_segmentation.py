"""The task around the mask: shapes, cells, weights, threads, and a golden target."""

import cv2
import numpy as np
import pytest
import torch

from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.base.rng import rng_for
from pipelines.decode.clip_planes import planes_of
from pipelines.targets.motion.motion_mask import VERDICTS
from pipelines.tasks.base import CanvasSpec
from pipelines.tasks.motion_segmentation import MotionSegmentation, MotionSegmentationConfig
from pipelines.tasks.target_cache import cached_targets
from tests.made.composites import MadeCameraPath, compose, cutout, photo

HEIGHT, WIDTH = 100, 132


def task(*, lightness: bool = False, **options) -> MotionSegmentation:
    canvas = CanvasSpec(clip_height_px=HEIGHT, clip_width_px=WIDTH)
    return MotionSegmentation(MotionSegmentationConfig(**options), canvas, lightness=lightness)


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """uint8 (3, 10, 100, 132, 3): a moving square, a camera motion alone, a cut."""

    def made(index: int, pasted: np.ndarray | None, step_xy: tuple[float, float]) -> np.ndarray:
        return compose(
            photo(index),
            pasted,
            rng=np.random.default_rng(index),
            camera=MadeCameraPath(shift_px=(-1.0, 0.5)),
            object_height_px=40,
            object_start_xy=(60, 50),
            object_step_xy=step_xy,
            height=HEIGHT,
            width=WIDTH,
        ).clip

    alone, other = made(3, None, (0, 0)), made(5, None, (0, 0))
    cut = np.concatenate([alone[:1], other[1:]])
    return torch.from_numpy(np.stack([made(0, cutout(1), (2.0, 0.5)), alone, cut]))


def test_a_batch_keeps_the_promise_of_spec(clips):
    batch = task().make(clips, {"flip": np.zeros(3, bool)}, ["a", "b", "c"])
    made = {"inputs": batch.inputs, "weight": batch.weight, **batch.target}
    spec = task().spec(3)
    assert set(made) == set(spec)
    for name, tensor in made.items():
        assert tuple(tensor.shape) == spec[name].shape
        assert tensor.dtype == spec[name].dtype
        assert spec[name].low <= float(tensor.min()) <= float(tensor.max()) <= spec[name].high
    assert batch.keys == ("a", "b", "c")
    assert set(batch.geometry) == {"flip", "verdict", "known_ratio"}


def test_cells_cover_sizes_that_are_no_multiple_of_the_stride():
    assert task().spec(2)["moving"].shape == (2, 13, 17)


def test_planes_and_colors_give_the_same_batch(clips):
    whole, planes = (task().make(pixels, {}, "abc") for pixels in (clips, planes_of(clips)))
    assert torch.equal(whole.inputs, planes.inputs)
    assert torch.equal(whole.weight, planes.weight)
    assert torch.equal(whole.target["moving"], planes.target["moving"])


def test_an_engine_that_cannot_be_had_is_refused_at_once(tmp_path):
    with pytest.raises(UsageError, match=r"raft_weights = .*none\.pth; cannot be had"):
        task(engine="raft", raft_weights=str(tmp_path / "none.pth"))


def test_inputs_are_the_first_frame(clips):
    inputs = task().make(clips, {}, ["a", "b", "c"]).inputs
    np.testing.assert_allclose(inputs[1].numpy(), clips[1, 0].numpy().transpose(2, 0, 1) / 255, atol=1e-6)


def test_harmonized_inputs_are_lightness_three_times(clips):
    inputs = task(lightness=True).make(clips, {}, ["a", "b", "c"]).inputs
    lab = cv2.cvtColor(np.float32(clips[0, 0].numpy() / 255), cv2.COLOR_RGB2LAB)
    for channel in inputs[0].numpy():
        np.testing.assert_allclose(channel, lab[..., 0] / 100, atol=1.5 / 255)


def test_the_cut_has_no_weight_and_is_counted(clips):
    batch = task().make(clips, {}, ["a", "b", "c"])
    assert [VERDICTS[verdict] for verdict in batch.geometry["verdict"]] == ["usable", "usable", "cut"]
    assert batch.num_left_out == 1
    assert batch.geometry["known_ratio"][2] == 0
    assert not batch.weight[2].any()
    assert not batch.target["moving"][2].any()
    assert batch.weight[:2].mean() > 0.9


def test_only_the_moving_square_is_foreground(clips):
    moving = task().make(clips, {}, ["a", "b", "c"]).target["moving"]
    assert 15 <= moving[0].sum() <= 40
    assert not moving[1].any()


def test_a_target_is_the_same_for_any_threads_and_company(clips):
    one, two = (task(num_threads=n).make(clips, {}, ["a", "b", "c"]) for n in (1, 2))
    alone = task().make(clips[:1], {}, ["a"])
    assert torch.equal(one.target["moving"], two.target["moving"])
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.target["moving"][:1], alone.target["moving"])


GOLDEN = """
.................
.................
.................
.................
.....?####?......
.....#####?......
.....#####?......
.....#####?......
.....?####.......
.................
.................
.................
?................
"""


def test_golden_target(clips):
    """Changes only on purpose: what was pretrained before depends on it. The exact mask is a square of 5 x 5 cells."""
    batch = task().make(clips[:1], {}, ["a"])
    moving, weight = batch.target["moving"][0].numpy(), batch.weight[0].numpy()
    shown = np.where(weight == 0, "?", np.where(moving == 1, "#", "."))
    assert "\n".join(map("".join, shown)) == GOLDEN.strip()


def test_nothing_is_drawn():
    assert task().draw(rng_for(0, 0, "a", "motion_segmentation")) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold_px": 2.0}, "threshold_px: removed, because .* delete the line"),
        ({"preset": "fast", "reach_px": 16}, "preset, reach_px: removed"),
        ({"engine": "lucas_kanade"}, "engine = 'lucas_kanade': removed, .* need 'dis'"),
        ({"engine": "eyes"}, "Input should be 'dis', 'farneback', 'raft' or 'nvof'"),
    ],
)
def test_options_of_earlier_versions_say_what_to_do(options, message):
    with pytest.raises(UsageError, match=message):
        validate(MotionSegmentationConfig, options, source="old.yaml")


def test_another_flow_can_be_plugged_in(clips):
    """RAFT with random weights has no idea of motion, so it is only seen to be used."""
    batches = [task(engine=name, raft_weights="random").make(clips[:1], {}, "a") for name in ("farneback", "raft")]
    assert 15 <= batches[0].target["moving"].sum() <= 40
    assert not torch.equal(batches[0].target["moving"], batches[1].target["moving"])


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        (CanvasSpec(num_frames=1), "num_frames = 1; need at least 2"),
        (CanvasSpec(clip_height_px=24), "clips of 24 x 320 px; need at least 32 px a side"),
    ],
)
def test_clips_that_cannot_work_are_refused(canvas, message):
    with pytest.raises(UsageError, match=message):
        MotionSegmentation(MotionSegmentationConfig(), canvas)


@pytest.mark.parametrize("size", [(2, 32, 32), (3, 32, 32), (3, 40, 200), (10, 33, 47)])
def test_small_and_odd_clips_work(size):
    num_frames, height, width = size
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8))
    canvas = CanvasSpec(clip_height_px=height, clip_width_px=width, num_frames=num_frames)
    small = MotionSegmentation(MotionSegmentationConfig(), canvas)
    batch = small.make(noise, {}, ["a"])
    assert tuple(batch.weight.shape) == small.spec(1)["weight"].shape


@pytest.mark.cuda
def test_device_clips_stay_on_the_device(clips):
    batch, expected = (task().make(clips.to(device), {}, "abc") for device in ("cuda", "cpu"))
    assert {t.device.type for t in (batch.inputs, batch.weight, batch.target["moving"])} == {"cuda"}
    agree_with_the_cpu(batch.to("cpu"), expected)


def agree_with_the_cpu(batch, expected):
    """Cells differ, since flow on a device is not DIS; inputs and verdicts do not."""
    assert (batch.target["moving"] == expected.target["moving"]).float().mean() >= 0.98
    assert (batch.weight == expected.weight).float().mean() >= 0.95
    np.testing.assert_array_equal(batch.geometry["verdict"], expected.geometry["verdict"])
    torch.testing.assert_close(batch.inputs, expected.inputs, atol=1e-6, rtol=0)


def test_on_a_device_nothing_is_read_by_the_host(clips, stand_in):
    made = task(remembered_clips=2)
    on_device = clips.cuda()
    with stand_in.no_reads():
        batches = [made.make(on_device, {}, "abc")]
        for addresses in (["one", None, "three"], ["one", "two", "three"]):
            known = cached_targets(made.targets, addresses)
            batches.append(made.make_cached(planes_of(on_device), {}, "abc", known))
        counts = [batch.num_left_out for batch in batches]
    expected = task().make(clips, {}, "abc")
    for batch, count in zip(batches, counts, strict=True):
        assert {t.device.type for t in (batch.inputs, batch.weight, batch.target["moving"], count)} == {"cuda"}
        agree_with_the_cpu(batch.to("cpu"), expected)
        assert count.cpu() == 1


def test_on_a_device_a_cached_clip_is_not_labelled(clips, stand_in, monkeypatch):
    made, labelled = task(remembered_clips=2), []
    flow = made._flow_on(torch.device("cuda", 0))
    monkeypatch.setattr(made, "_flow_on", lambda _: lambda *pair: labelled.append(len(pair[0])) or flow(*pair))
    planes = planes_of(clips[:2]).cuda()
    first = made.make_cached(planes, {}, "ab", cached_targets(made.targets, ["one", "two"]))
    planes[1, 3:] = 77  # of a cached clip only the colors of its first frame are decoded
    again = made.make_cached(planes, {}, "ab", cached_targets(made.targets, ["three", "two"]))
    assert labelled == [2, 2, 1, 1]  # flow is found twice: at half the size, then at the whole
    assert torch.equal(again.target["moving"].cpu(), first.target["moving"].cpu())
    assert torch.equal(again.weight.cpu(), first.weight.cpu())


def test_masks_of_device_clips_can_be_made_on_the_cpu(clips, stand_in):
    batch, expected = (task(device_masks=False).make(pixels, {}, "abc") for pixels in (clips.cuda(), clips))
    assert torch.equal(batch.target["moving"].cpu(), expected.target["moving"])
    assert len(stand_in.reads) >= 3  # the planes of each clip


def test_a_cached_clip_is_not_labelled_and_its_luma_not_looked_at(clips, monkeypatch):
    expected = task().make(clips[:2], {}, ["a", "b"])
    remembering, computed = task(remembered_clips=2), []
    label = MotionSegmentation._target
    monkeypatch.setattr(MotionSegmentation, "_target", lambda self, clip: computed.append(1) or label(self, clip))
    for addresses in (["one", "two"], ["one", "two"], ["two", None], ["three", "two"], ["one", "two"]):
        known = cached_targets(remembering.targets, addresses)
        planes = planes_of(clips[:2] if addresses[0] != "two" else clips[[1, 1]])
        planes[[row for row, target in enumerate(known.target) if target is not None], 3:] = 77
        batch = remembering.make_cached(planes, {}, ["a", "b"], known)
        first = 0 if addresses[0] != "two" else 1
        assert torch.equal(batch.target["moving"][0], expected.target["moving"][first])
        assert torch.equal(batch.weight[1], expected.weight[1])
        assert len(remembering.targets) == 2
    # Two at first; the one without an address; "three"; and "one", which was forgotten for it.
    assert len(computed) == 5


def test_make_alone_remembers_nothing(clips):
    remembering = task()
    remembering.make(clips[:1], {}, ["a"])
    assert len(remembering.targets) == 0
    assert task(remembered_clips=0).targets is None
