"""Colors of exemplar's views against scikit-learn and, one color at a time, the standard library."""

import colorsys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from pipelines.base.buffer_pool import BufferPool
from pipelines.targets.views import view_colors
from pipelines.tasks.base import Geometry
from tests.made.exemplar_views import one_view, photos


def scaled_on_a_cpu(patch: torch.Tensor, factor: np.ndarray) -> torch.Tensor:
    affine = view_colors.component_affine_cpu(color_sums(words(patch)), patch.shape[1], factor)
    levels = np.concatenate([patch.numpy(), np.ones_like(patch.numpy()[..., :1])], axis=-1)
    return torch.from_numpy(np.einsum("nck,nhwk->nhwc", affine, levels).clip(0, 1)).float()


def color_sums(pixels: np.ndarray) -> np.ndarray:
    sums = np.empty((len(pixels), 9), np.int64)
    for patch, own in zip(pixels, sums, strict=True):
        view_colors.write_color_sums(patch, own)
    return sums


def recolored(pixels: np.ndarray, views: Geometry) -> np.ndarray:
    return view_colors.recolored_cpu(pixels, color_sums(pixels), views, BufferPool())


def words(patches: torch.Tensor) -> np.ndarray:
    """As `Words`; the fourth byte is anybody's."""
    return np.concatenate([patches.numpy(), np.full_like(patches.numpy()[..., :1], 255)], axis=-1).view(np.uint32)[
        ..., 0
    ]


SCALINGS = pytest.mark.parametrize("path", [scaled_on_a_cpu, view_colors.scale_components], ids=["cpu", "device"])


@SCALINGS
def test_component_contrast_is_that_of_a_principal_component_analysis(path) -> None:  # type: ignore[no-untyped-def]
    patch = photos(1, 36)
    factor = np.array([[0.5, 1.5, 2.0]])
    colors = patch.numpy().reshape(-1, 3) / 255.0
    analysis = PCA().fit(patch[:, ::2, ::2].numpy().reshape(-1, 3) / 255.0)
    # scikit-learn orders components from the largest variance down.
    expected = analysis.inverse_transform(analysis.transform(colors) * factor[0, ::-1]).clip(0, 1)
    np.testing.assert_allclose(path(patch, factor).view(-1, 3), expected, atol=1e-4)


@SCALINGS
def test_component_contrast_leaves_a_flat_patch_alone(path) -> None:  # type: ignore[no-untyped-def]
    flat = torch.full((1, 8, 8, 3), 77, dtype=torch.uint8)
    out = path(flat, np.array([[2.0, 2.0, 2.0]]))
    torch.testing.assert_close(out, torch.full((1, 8, 8, 3), 77 / 255))


def slow_jitter(rgb: np.ndarray, view: Geometry) -> np.ndarray:
    """One color at a time, by the standard library."""
    out = []
    for color in rgb.reshape(-1, 3):
        hue, *rest = colorsys.rgb_to_hsv(*color)
        saturation, value = (
            min(max(number ** view["power"][0, i] * view["factor"][0, i] + view["shift"][0, i], 0), 1)
            for i, number in enumerate(rest)
        )
        saturation *= min((max(color) - min(color)) * 255, 1)
        out.append(colorsys.hsv_to_rgb((hue + view["hue_shift"][0]) % 1, saturation, value))
    return np.array(out).reshape(rgb.shape)


VIEWS = {
    "neutral": one_view(),
    "hue up": one_view(hue_shift=0.1),
    "hue down": one_view(hue_shift=-0.1),
    "half turn": one_view(hue_shift=0.5),
    "powers": one_view(power=(0.25, 4)),
    "factors": one_view(factor=(1.4, 0.7)),
    "shifts": one_view(shift=(-0.1, 0.1)),
    "all": one_view(hue_shift=-0.07, power=(2, 0.5), factor=(0.7, 1.4), shift=(0.1, -0.1)),
}


def jittered_on_a_cpu(rgb: torch.Tensor, view: Geometry) -> torch.Tensor:
    levels = (rgb * 255).round().to(torch.uint8)
    return torch.from_numpy(recolored(words(levels), view)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("path", [jittered_on_a_cpu, view_colors.jitter_hsv_torch], ids=["cpu", "device"])
@pytest.mark.parametrize("name", VIEWS)
def test_color_jitter_is_that_of_one_color_at_a_time(path, name: str) -> None:  # type: ignore[no-untyped-def]
    # 24 x 24 pixels: a vector takes 4 to 16 at once, and what is over is done one by one.
    levels = np.random.default_rng(1).integers(0, 256, (1, 24, 24, 3))
    levels[0, 0, :4] = [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0)]
    rgb = (levels / 255).astype(np.float32)
    out = path(torch.from_numpy(rgb), VIEWS[name]).permute(0, 2, 3, 1)
    np.testing.assert_allclose(out, slow_jitter(rgb, VIEWS[name]), atol=1e-3)


def test_gray_stays_gray_where_saturation_is_added() -> None:
    # Saturation is 0 and its logarithm has none: what stands in for it must not show.
    gray = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3).contiguous()
    view = one_view(power=(0.25, 1), shift=(0.1, 0))
    out = recolored(words(gray), view)
    np.testing.assert_allclose(out, gray.numpy() / 255, atol=1e-4)


def test_colors_are_cut_off_at_black_and_white() -> None:
    patch = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8).repeat(128, 1).view(1, 16, 16, 3)
    out = recolored(words(patch), one_view(pca_factor=(2, 2, 2)))
    np.testing.assert_allclose(out, patch.numpy() / 255, atol=1e-6)


def test_each_view_has_its_own_numbers_in_any_group() -> None:
    patches = words(photos(11, 20))
    rng = np.random.default_rng(3)
    views = {
        name: rng.uniform(0.5, 1.0, (11, *one_view()[name].shape[1:])) for name in ("pca_factor", "power", "factor")
    } | {"shift": rng.uniform(-0.1, 0.1, (11, 2)), "hue_shift": rng.uniform(-0.1, 0.1, 11)}
    together = recolored(patches, views)
    for row in range(11):
        own = {name: value[row : row + 1] for name, value in views.items()}
        alone = recolored(patches[row : row + 1], own)
        np.testing.assert_array_equal(together[row], alone[0])
