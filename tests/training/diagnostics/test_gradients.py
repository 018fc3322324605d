"""Planted gradients: opposed, equal and unrelated tasks, and a task of pure noise."""

import pytest
import torch

from tests.made.planted_gradients import PlantedModel, planted
from training.diagnostics.gradients import cosine, cosines_between, noise_line, shares, trunk_gradient


def unit(*values: float) -> torch.Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("other", "expected"),
    [((-1.0, -2.0, -3.0, -4.0), -1.0), ((2.0, 4.0, 6.0, 8.0), 1.0), ((2.0, -1.0, 4.0, -3.0), 0.0)],
    ids=["opposed", "equal", "unrelated"],
)
def test_planted_tasks_have_the_cosine_they_were_given(other: tuple[float, ...], expected: float) -> None:
    model = PlantedModel()
    gradients = {
        "a": trunk_gradient(model, planted("a", unit(1.0, 2.0, 3.0, 4.0))),
        "b": trunk_gradient(model, planted("b", unit(*other))),
    }
    (found,) = cosines_between(gradients).values()
    assert found["trunk"] == pytest.approx(expected, abs=1e-6)
    # A block of one number has no angle but 0 and 180 degrees.
    signs = [1.0 if one > 0 else -1.0 for one in other]
    assert [found[name] for name in ("stem", "stage1", "stage2", "stage3")] == signs


def test_a_gradient_leaves_no_gradient_behind() -> None:
    model = PlantedModel()
    found = trunk_gradient(model, planted("a", unit(1.0, 2.0, 3.0, 4.0)))
    assert torch.cat(list(found.values())).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert cosine(found, {name: torch.zeros(1) for name in found}) == 0.0


def test_pure_noise_is_named_with_what_would_help() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [{"trunk": torch.randn(10_000, generator=generator)} for _ in range(10)]
    cosines = [cosine(one, other) for one, other in zip(noise[::2], noise[1::2], strict=True)]
    line = noise_line("exemplar", cosines, accumulate=1, has_pairs=False)
    assert line is not None
    assert "exemplar: its gradient is mostly noise" in line
    assert "batch_size, tasks.exemplar.accumulate (now 1)." in line
    grids = noise_line("relative_position", cosines, accumulate=2, has_pairs=True)
    assert grids is not None
    assert "more grids or pairs per image" in grids


def test_a_signal_below_the_noise_tells_how_many_samples_it_takes() -> None:
    # Signal 0.2, noise 1: cosine 0.04 / 1.04.
    line = noise_line("exemplar", [0.04 / 1.04], accumulate=1, has_pairs=False)
    assert line is not None
    assert "about 25 times the samples" in line
    assert noise_line("exemplar", [0.33, 0.2], accumulate=1, has_pairs=False) is None


def test_shares_add_up_to_1() -> None:
    assert shares({"a": 3.0, "b": 1.0}) == {"a": 0.75, "b": 0.25}
    assert shares({"a": 0.0}) == {"a": 0.0}
