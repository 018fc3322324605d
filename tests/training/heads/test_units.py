"""Residual units of heads: their arithmetic, shortcut and stride."""

import pytest
import torch

from training.heads.base import HeadInput
from training.heads.units import PatchEncoder, ResidualUnit


@pytest.mark.parametrize("side", [3, 5, 6, 12])
@pytest.mark.parametrize("out_channels", [8, 16])
def test_stride_2_halves_the_map_rounding_up(side: int, out_channels: int) -> None:
    unit = ResidualUnit(4, 8, out_channels, stride=2)
    assert unit(torch.rand(2, 8, side, side)).shape == (2, out_channels, -(-side // 2), -(-side // 2))


def test_the_shortcut_is_the_input_where_channels_stay() -> None:
    unit = ResidualUnit(4, 8, 8, stride=2)
    torch.nn.init.zeros_(unit.conv3.weight)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(unit(x), x[:, :, ::2, ::2])


def test_the_shortcut_is_projected_after_the_activation_where_channels_change() -> None:
    unit = ResidualUnit(4, 8, 16).eval()
    torch.nn.init.zeros_(unit.conv3.weight)
    x = torch.randn(2, 8, 3, 3)
    active = torch.relu(x / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(unit(x), torch.einsum("oi,nihw->nohw", unit.project.weight[:, :, 0, 0], active))


def test_a_unit_on_vectors_has_no_3x3() -> None:
    assert sum(p.numel() for p in ResidualUnit(4, 8, 8, kernel=1).parameters() if p.ndim == 4) == 8 * 4 + 4 * 4 + 4 * 8


@pytest.mark.parametrize("side", [1, 2, 3, 5, 12])
def test_gradients_of_small_maps_do_not_read_freed_memory(side: int) -> None:
    encoder = PatchEncoder("small", HeadInput(num_channels=8, height=side, width=side))
    features = torch.rand(8, 8, side, side)
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            code = encoder(features)
        freed = [torch.full((size,), float("nan")) for size in range(1000, 60_000, 1000)]
        del freed
        code.float().sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())
    assert code.shape == (8, encoder.num_features)
