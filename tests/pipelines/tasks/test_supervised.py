"""The labelled baseline: the canvas as it is, and its label."""

import numpy as np
import pytest
import torch

from pipelines.targets.color.lab import lightness
from pipelines.tasks.base import CanvasSpec
from pipelines.tasks.supervised import Supervised, SupervisedConfig

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
GEOMETRY = {"label": np.array([4, -1, 0])}


def task(*, gray: bool = False) -> Supervised:
    return Supervised(SupervisedConfig(), CanvasSpec(canvas_px=16), lightness=gray)


def test_inputs_are_the_canvas() -> None:
    batch = task().make(PIXELS, GEOMETRY, ["a", "b", "c"])
    np.testing.assert_allclose(batch.inputs, PIXELS.numpy().transpose(0, 3, 1, 2) / 255, atol=1e-6)
    assert batch.keys == ("a", "b", "c")


def test_a_sample_without_a_label_has_weight_0_and_a_legal_class() -> None:
    batch = task().make(PIXELS, GEOMETRY, ["a", "b", "c"])
    assert batch.target["label"].tolist() == [4, 0, 0]
    assert batch.weight.tolist() == [1, 0, 1]


def test_harmonized_input_is_lightness() -> None:
    inputs = task(gray=True).make(PIXELS, GEOMETRY, ["a", "b", "c"]).inputs
    assert torch.equal(inputs, lightness(PIXELS)[:, None].expand(-1, 3, -1, -1))


def test_draws_nothing() -> None:
    assert task().draw(np.random.default_rng(0)) == {}


@pytest.mark.parametrize("gray", [False, True])
def test_the_batch_keeps_what_the_spec_promises(gray: bool) -> None:
    batch = task(gray=gray).make(PIXELS, GEOMETRY, ["a", "b", "c"])
    for name, tensor in {"inputs": batch.inputs, "weight": batch.weight, **batch.target}.items():
        promise = task(gray=gray).spec(3)[name]
        assert (tuple(tensor.shape), tensor.dtype) == (promise.shape, promise.dtype)
        assert promise.low <= tensor.min() <= tensor.max() <= promise.high
