"""The batched chain against the CPU chain given the same flow, and against exact masks with its own."""

import cv2
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipelines.targets.motion.dense_flow import DenseFlow, DisFlow
from pipelines.targets.motion.device import batched_masks, torch_flow
from pipelines.targets.motion.device.batched_masks import mask_clips
from pipelines.targets.motion.motion_mask import VERDICTS, mask_clip
from tests.made.composites import Composite, MadeCameraPath, compose, cutout, iou, photo

CAMERAS = (
    MadeCameraPath(),
    MadeCameraPath(shift_px=(3.0, 1.0)),
    MadeCameraPath(shift_px=(-2.0, 1.0), rotation_deg=0.4, zoom=0.99, shake_px=0.7),
)


class WholeFlow(DenseFlow):
    """DIS from the coarsest level on, as the batched chain calls it: no guess."""

    def __init__(self) -> None:
        self._dis = DisFlow()

    def pair_flow(self, first_HW, later_HW):
        return self._dis.pair_flow(first_HW, later_HW)

    def batched(self, first: torch.Tensor, later: torch.Tensor) -> torch.Tensor:
        pairs = zip(*(one[:, 0].round().byte().numpy() for one in (first, later)), strict=True)
        return torch.from_numpy(np.stack([self.pair_flow(*pair).transpose(2, 0, 1) for pair in pairs]))


def squares(size: tuple[int, int] = (240, 320)) -> list[Composite]:
    """A square under several cameras; slow under the first, so that its third frame is used."""
    place = {"object_height_px": size[0] / 3, "object_start_xy": (size[1] * 0.45, size[0] * 0.5), "num_frames": 3}
    steps, kinds = ((0.8, 0.0), (-2.5, 1.5), (3.0, -1.0)), {"height": size[0], "width": size[1]}
    return [
        compose(photo(0), cutout(1), rng=np.random.default_rng(0), camera=camera, object_step_xy=step, **place, **kinds)
        for camera, step in zip(CAMERAS, steps, strict=True)
    ]


def planes_of(clip: np.ndarray) -> np.ndarray:
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    return np.concatenate([clip[0].transpose(2, 0, 1), np.stack(gray)])


@pytest.mark.parametrize("size", [(240, 320), (121, 158)])
def test_given_the_same_flow_cells_are_those_of_the_cpu_chain(size):
    planes, flow = np.stack([planes_of(made.clip) for made in squares(size)]), WholeFlow()
    found = mask_clips(torch.from_numpy(planes), flow=flow.batched)
    for row, one in enumerate(planes):
        expected = mask_clip(one[3:], np.ascontiguousarray(one[:3]), flow)
        assert np.mean(found.moving[row].numpy() == expected.moving) >= 0.995
        assert np.mean(found.is_known[row].numpy() == expected.is_known) >= 0.98


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (40, 200)])
def test_clips_of_fewer_nodes_than_the_widest_filter_work(size):
    """There the window is narrower than on the CPU, and one cell of 48 is 2 %."""
    planes, flow = np.stack([planes_of(made.clip) for made in squares(size)]), WholeFlow()
    found = mask_clips(torch.from_numpy(planes), flow=flow.batched)
    expected = np.stack([mask_clip(one[3:], np.ascontiguousarray(one[:3]), flow).moving for one in planes])
    assert np.mean(found.moving.numpy() == expected) >= 0.9


def test_with_its_own_flow_squares_are_found():
    made = squares()
    found = mask_clips(torch.from_numpy(np.stack([planes_of(one.clip) for one in made])))
    assert found.verdict.tolist() == [0, 0, 0]
    assert min(iou(mask.numpy(), one.mask) for mask, one in zip(found.moving, made, strict=True)) >= 0.8


def test_flat_and_cut_clips_are_named_and_empty():
    made = squares((96, 128))[1].clip
    other = compose(photo(5), None, rng=np.random.default_rng(1), camera=CAMERAS[0], height=96, width=128).clip
    clips = [made, np.full_like(made, 90), np.concatenate([made[:1], other[1:3]])]
    found = mask_clips(torch.from_numpy(np.stack([planes_of(clip) for clip in clips])))
    assert [VERDICTS[index] for index in found.verdict] == ["usable", "no_texture", "cut"]
    assert not (found.moving[1:] | found.is_known[1:]).any()


def test_no_value_leaves_the_device():
    """Tensors without values: reading one, as a copy to the CPU would, is an error."""
    with FakeTensorMode():
        found = mask_clips(torch.empty(2, 6, 96, 128, dtype=torch.uint8))
        assert found.moving.shape == found.is_known.shape == (2, 12, 16)


def test_kornia_does_what_it_can(monkeypatch):
    """Colors, filters and regions of the chain are Kornia's, and each is really used."""
    used = set()
    for module, names in (
        (batched_masks, ("rgb_to_lab", "connected_components", "box_blur", "spatial_gradient")),
        (torch_flow, ("box_blur", "median_blur", "spatial_gradient")),
    ):
        for name in names:
            call = getattr(module, name)
            assert call.__module__.startswith("kornia.")
            spy = lambda *a, call=call, where=f"{module.__name__}.{name}", **k: used.add(where) or call(*a, **k)  # noqa: E731
            monkeypatch.setattr(module, name, spy)
    with FakeTensorMode():
        mask_clips(torch.empty(1, 6, 64, 64, dtype=torch.uint8))
    assert len(used) == 7


@pytest.mark.cuda
def test_a_gpu_gives_the_cells_of_the_cpu():
    planes = torch.from_numpy(np.stack([planes_of(made.clip) for made in squares()]))
    found = mask_clips(planes.cuda())
    assert (found.moving.cpu() == mask_clips(planes).moving).float().mean() >= 0.995
