import numpy as np
import pytest
import torch

from benchmarks.evaluations.depth.model import DepthNetwork, UpProjection, filters_of, reverse_huber, unpool
from benchmarks.evaluations.fine_tuning.features import TrunkFeatures
from training.trunk import Trunk, TrunkConfig


def test_reverse_huber_equals_the_formula_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    measured = torch.rand(2, 1, 5, 7, generator=generator) + 1
    measured[:, :, 0] = 0
    measured[0, 0, 1, 0] = torch.nan
    predicted = (torch.rand(2, 1, 5, 7, generator=generator) * 3).requires_grad_()
    loss = reverse_huber(predicted, measured)
    loss.backward()
    # NumPy, pixel by pixel, as Laina et al. write it.
    error = (predicted - measured).detach().numpy()
    known = measured.numpy() > 0
    limit = 0.2 * np.abs(error[known]).max()
    values, slopes = [], np.zeros(error.shape)
    for place in zip(*np.nonzero(known), strict=True):
        x = error[place]
        is_small = abs(x) <= limit
        values.append(abs(x) if is_small else (x**2 + limit**2) / (2 * limit))
        slopes[place] = np.sign(x) if is_small else x / limit
    assert loss.item() == pytest.approx(np.mean(values), rel=1e-5)
    np.testing.assert_allclose(predicted.grad.numpy(), slopes / known.sum(), rtol=1e-4, atol=1e-7)
    assert 0.05 < np.mean(np.abs(error[known]) <= limit) < 0.5  # both branches are used


def test_reverse_huber_without_a_known_pixel_is_zero_and_has_a_gradient() -> None:
    predicted = torch.ones(1, 1, 2, 2, requires_grad=True)
    loss = reverse_huber(predicted, torch.tensor([[[[0.0, torch.nan], [0, 0]]]]))
    loss.backward()
    assert float(loss) == 0
    assert not predicted.grad.any()


def test_unpooling_puts_zeros_between() -> None:
    assert unpool(torch.tensor([[[[1.0, 2], [3, 4]]]])).tolist() == [
        [[[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]]
    ]


def test_up_projection_equals_its_parts_written_out() -> None:
    torch.manual_seed(0)
    block = UpProjection(4, 3).eval()
    x = torch.randn(2, 4, 5, 6)
    wide = torch.nn.functional.conv_transpose2d(
        x, torch.tensor([1.0, 0, 0, 0]).view(1, 1, 2, 2).expand(4, 1, 2, 2), stride=2, groups=4
    )
    branch = block.second_norm(block.second(block.first_norm(block.first(wide)).relu()))
    torch.testing.assert_close(block(x), (branch + block.project_norm(block.project(wide))).relu())


@pytest.mark.parametrize(
    ("channels", "filters"), [(1024, (512, 256, 128)), (2048, (512, 256, 128)), (256, (128, 64, 32)), (24, (12, 8, 8))]
)
def test_filters_follow_the_paper_at_1024_channels(channels: int, filters: tuple[int, int, int]) -> None:
    assert filters_of(channels) == filters


@pytest.mark.parametrize("lasso", [False, True])
def test_network_starts_at_the_mean_depth_and_answers_at_half_size(lasso: bool) -> None:
    trunk = Trunk(TrunkConfig(depth=18, width=0.125))
    network = DepthNetwork(TrunkFeatures(trunk, lasso=lasso), mean_m=2.5, deviation_m=0.7).eval()
    depth = network(torch.rand(2, 3, 64, 96))
    assert depth.shape == (2, 1, 32, 48)
    torch.testing.assert_close(depth, torch.full_like(depth, 2.5))
