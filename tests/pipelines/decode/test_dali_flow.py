"""The GPU's flow unit: its grid and direction turned into ours. The unit itself runs under -m cuda only."""

import numpy as np
import pytest
import torch

from pipelines.decode.dali import require_dali
from pipelines.decode.dali_flow import HardwareFlow, dense_flow, flow_graph
from tests.made.dali import needs_dali
from tests.made.pictures import smooth_picture


@needs_dali
@pytest.mark.parametrize("grid_px", [1, 2, 4])
def test_the_graph_is_valid(grid_px):
    pipeline = require_dali().Pipeline(batch_size=1, num_threads=1, device_id=None, exec_dynamic=True)
    with pipeline:
        flow = flow_graph(grid_px)
    assert flow.device == "gpu"


@pytest.mark.parametrize(("grid_px", "height", "width"), [(4, 24, 32), (4, 22, 29), (2, 9, 13), (1, 7, 5)])
def test_a_constant_flow_keeps_its_length_in_pixels(grid_px, height, width):
    rows, columns = -(-height // grid_px), -(-width // grid_px)
    grid = torch.tensor([3.5, -1.25]).expand(2, 3, rows, columns, 2)
    dense = dense_flow(grid, grid_px, height, width)
    assert dense.shape == (2, 3, height, width, 2)
    torch.testing.assert_close(dense, grid[:, :, :1, :1].expand_as(dense), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid_px", [1, 2, 4])
def test_a_vector_stands_in_the_middle_of_its_square(grid_px):
    # The true field is x and y themselves, so a shift of the grid by a part of a pixel would show.
    height, width = 24, 32
    y, x = np.mgrid[:height, :width].astype(np.float32)
    field = np.stack([x, y], axis=-1)
    grid = field.reshape(height // grid_px, grid_px, width // grid_px, grid_px, 2).mean((1, 3))
    dense = dense_flow(torch.from_numpy(grid)[None, None], grid_px, height, width)[0, 0].numpy()
    inside = slice(grid_px, -grid_px)
    np.testing.assert_allclose(dense[inside, inside], field[inside, inside], atol=1e-5)


class Later:
    """A stand-in for the pipeline: tells for every later frame how much brighter it is than the earlier one."""

    def feed_input(self, name, clips):
        assert name == "clips"
        self.clips = clips

    def run(self, stream):
        level = torch.stack(self.clips)[..., 0].float()[:, :, ::4, ::4]
        self.made = torch.stack([level[:, :-1] - level[:, 1:]] * 2, dim=-1)
        return (self,)

    def as_tensor(self):
        return self.made


@needs_dali
def test_entry_t_goes_from_frame_t_to_the_next(monkeypatch):
    # The unit compares a frame with the one before it in the clip it is fed: fed backwards, with the one after it.
    flow = HardwareFlow(device=torch.device("cpu"))
    monkeypatch.setattr(flow, "_pipeline", lambda _: Later())
    levels = torch.tensor([[1, 2, 4, 8], [7, 7, 7, 9]], dtype=torch.uint8)
    clips = levels.view(2, 4, 1, 1, 1).expand(2, 4, 16, 24, 3).contiguous()
    found = flow.clip_flow(clips)
    assert found.shape == (2, 3, 16, 24, 2)
    assert found[:, :, 5, 5, 0].tolist() == [[1, 2, 4], [0, 0, 2]]


@pytest.mark.cuda
@pytest.mark.parametrize("grid_px", [1, 4])
@pytest.mark.gpu_only
def test_a_pan_is_found_with_its_direction_and_length(grid_px):
    wide = smooth_picture(3, 420, 260)
    # The camera goes 3 px right and 2 down a frame, so the picture goes 3 left and 2 up.
    frames = np.stack([wide[2 * t : 2 * t + 240, 3 * t : 3 * t + 320] for t in range(5)])
    flow = HardwareFlow(device=torch.device("cuda", 0), grid_px=grid_px)
    found = flow.clip_flow(torch.from_numpy(frames)[None].cuda())
    assert found.is_cuda
    assert found.shape == (1, 4, 240, 320, 2)
    middle = found[0, :, 40:-40, 40:-40].flatten(0, 2)
    torch.testing.assert_close(middle.median(0).values.cpu(), torch.tensor([-3.0, -2.0]), rtol=0, atol=0.3)
