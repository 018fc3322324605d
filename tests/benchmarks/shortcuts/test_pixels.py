"""What is left of images, against NumPy."""

import numpy as np
import pytest
import torch

from benchmarks.shortcuts import pixels


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).random((3, 3, 32, 40), np.float32))


def test_mean_color_and_thumbnail_are_means(images):
    mean = images.numpy().mean((2, 3))
    assert np.allclose(pixels.thumbnail(images, 1), mean, atol=1e-6)
    assert np.allclose(pixels.mean_color(images), np.broadcast_to(mean[..., None, None], images.shape), atol=1e-6)
    cells = images.numpy().reshape(3, 3, 4, 8, 4, 10).mean((3, 5)).reshape(3, -1)
    assert np.allclose(pixels.thumbnail(images, 4), cells, atol=1e-6)


def test_border_only_keeps_the_ring(images):
    left = pixels.border_only(images)
    assert (left[..., 8:-8, 8:-8] == 0.5).all()
    assert torch.equal(left[..., :8, :], images[..., :8, :])
    assert torch.equal(left[..., :, -8:], images[..., :, -8:])
    assert [pixels.ring_px(side) for side in (96, 32, 24, 2)] == [8, 8, 6, 1]


def test_border_profiles_are_in_the_order_top_bottom_left_right(images):
    profiles = pixels.border_profiles(images[..., :36, :36]).numpy()
    assert profiles.shape == (3, 4, 3, 6)
    array = images.numpy()[..., :36, :36]
    sides = (array[..., :8, :].mean(2), array[..., -8:, :].mean(2), array[..., :8].mean(3), array[..., -8:].mean(3))
    for number, strip in enumerate(sides):
        assert np.allclose(
            profiles[:, number], strip[..., :32].reshape(3, 3, -1)[..., :0].sum() + _cells(strip), atol=1e-5
        )


def _cells(strip):
    """Means of 6 parts of a strip, as adaptive pooling cuts it: from floor(i n / 6) to ceil((i + 1) n / 6)."""
    n = strip.shape[-1]
    return np.stack([strip[..., i * n // 6 : -(-(i + 1) * n // 6)].mean(-1) for i in range(6)], -1)


def test_high_and_low_pass_share_an_image_between_them():
    flat = torch.full((1, 3, 24, 24), 0.3)
    assert torch.allclose(pixels.high_pass(flat), torch.tensor(0.5))
    assert torch.allclose(pixels.low_pass(flat), flat)
    fine = torch.from_numpy((np.indices((24, 24)).sum(0) % 2).astype(np.float32)).expand(1, 3, -1, -1)
    assert pixels.low_pass(fine).std() < 0.01
    assert pixels.high_pass(fine).std() > 0.45
    assert (pixels.fine_detail(fine) > 0.4).all()


@pytest.mark.parametrize("offset", range(8))
def test_block_phases_say_where_blocks_begin(offset):
    levels = np.random.default_rng(offset).random((7, 7)).repeat(8, 0).repeat(8, 1)
    image = torch.from_numpy(levels[offset : offset + 48, :48].astype(np.float32)).expand(1, 3, -1, -1)
    columns, rows = pixels.block_phases(image)[0]
    # The first step that is compared lies between pixels 1 and 2: a block that begins at b has number b - 2.
    assert int(rows.argmax()) == (-offset - 2) % 8
    assert int(columns.argmax()) == 6
