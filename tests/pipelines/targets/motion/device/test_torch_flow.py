"""Flow on images shifted by a known amount; sampling against SciPy."""

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from pipelines.targets.motion.device import torch_flow
from pipelines.targets.motion.device.torch_flow import dense_flow, sampled


def shifted(*steps_xy: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (B, 1, 48, 64) twice: windows of one larger texture, the later one moved by its step."""
    noise = np.random.default_rng(0).standard_normal((88, 104)).astype(np.float32)
    large = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)
    first, later = (
        [large[20 - y : 68 - y, 20 - x : 84 - x] for x, y in steps] for steps in ([(0, 0)] * len(steps_xy), steps_xy)
    )
    return tuple(torch.from_numpy(np.stack(frames))[:, None] for frames in (first, later))


def test_known_shifts_are_recovered_clip_by_clip():
    steps = [(0, 0), (2, -1), (-5, 4)]
    flow = dense_flow(*shifted(*steps))
    assert flow.shape == (3, 2, 48, 64)
    off = (flow - torch.tensor(steps)[:, :, None, None]).norm(dim=1)[:, 10:-10, 10:-10]
    assert off.flatten(1).median(1).values.max() < 0.1
    alone = dense_flow(*(one[1:2] for one in shifted(*steps)))
    torch.testing.assert_close(alone, flow[1:2], atol=1e-2, rtol=0)


def test_flow_spreads_into_a_small_square(monkeypatch):
    """At the coarsest level it is two pixels wide. Without spreading fewer of its pixels get its motion."""
    first, later = (one[0, 0].clone() for one in shifted((0, 0)))
    patch = 255 - first[:16, :16]
    first[16:32, 20:36], later[16:32, 25:41] = patch, patch

    def share_found() -> float:
        flow = dense_flow(first[None, None], later[None, None])[0]
        off = (flow - torch.tensor([5.0, 0.0])[:, None, None]).norm(dim=0)
        return float((off[16:32, 20:36] < 0.5).float().mean())

    found = share_found()
    monkeypatch.setattr(torch_flow, "_spread", lambda first, later, flow, distance_px: flow)
    assert found > 0.7
    assert found > share_found() + 0.1


@pytest.mark.parametrize("size", [(8, 8), (12, 40)])
def test_small_frames_work(size):
    still = torch.rand(1, 1, *size) * 255
    assert dense_flow(still, still).abs().max() < 1e-3


def test_samples_are_scipys_and_the_border_is_repeated():
    rng = np.random.default_rng(0)
    image, shift = rng.uniform(0, 255, (20, 31)), rng.uniform(-6, 6, (2, 20, 31))
    found = sampled(torch.from_numpy(image)[None, None].float(), torch.from_numpy(shift)[None].float())[0, 0]
    rows, columns = np.mgrid[:20, :31]
    expected = map_coordinates(image, [rows + shift[1], columns + shift[0]], order=1, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=0.05)
