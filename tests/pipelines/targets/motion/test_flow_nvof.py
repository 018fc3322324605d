"""What needs no GPU: the error, and the frames that the flow unit is given. Its units and grid: test_dali_flow.py."""

import numpy as np
import pytest
import torch

from pipelines.base.errors import UsageError
from pipelines.targets.motion.flow_engines import build_engine
from pipelines.targets.motion.flow_nvof import NvofFlow, extended


def test_without_a_gpu_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="engine nvof: no NVIDIA GPU"):
        build_engine("nvof")


def test_frames_come_in_few_sizes_and_keep_their_place():
    frames = np.random.default_rng(0).integers(0, 256, (3, 100, 193), dtype=np.uint8)
    larger = extended(frames)
    assert larger.shape == (3, 192, 256)
    np.testing.assert_array_equal(larger[:, :100, :193], frames)
    np.testing.assert_array_equal(larger[:, 150, 255], frames[:, -1, -1])


@pytest.mark.cuda
@pytest.mark.gpu_only
def test_a_known_shift_is_recovered_on_the_gpu():
    x = np.cumsum(np.random.default_rng(0).normal(size=(260, 380)), axis=1)
    large = np.uint8(np.clip(128 + 20 * (x - x.mean(axis=1, keepdims=True)) / x.std(), 0, 255))
    frames = np.stack([large[8:248, 30 - 3 * t : 350 - 3 * t] for t in range(4)])
    flow = NvofFlow().clip_flow(frames)
    assert flow.shape == (3, 240, 320, 2)
    assert np.abs(np.median(flow[..., 40:-40, 40:-40, :], axis=(1, 2)) - [3, 0]).max() < 0.5
