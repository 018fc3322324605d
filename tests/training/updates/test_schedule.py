"""Learning-rate factors by hand."""

import pytest

from training.updates.schedule import ScheduleConfig, lr_factor


@pytest.mark.parametrize("step", [0, 5, 99])
def test_constant_is_constant(step: int) -> None:
    assert lr_factor(ScheduleConfig(lr_warmup_steps=0), step, 100) == 1.0


def test_warm_up_grows_linearly_and_never_is_zero() -> None:
    config = ScheduleConfig(lr_warmup_steps=3)
    assert [lr_factor(config, step, 10) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_by_hand() -> None:
    config = ScheduleConfig(name="cosine", lr_warmup_steps=0)
    assert lr_factor(config, 0, 100) == 1.0
    assert lr_factor(config, 50, 100) == pytest.approx(0.5)
    assert lr_factor(config, 75, 100) == pytest.approx(0.1464466)


def test_cosine_starts_after_the_warm_up() -> None:
    config = ScheduleConfig(name="cosine", lr_warmup_steps=50)
    assert lr_factor(config, 50, 150) == 1.0
    assert lr_factor(config, 100, 150) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3, 10, 1000])
def test_every_factor_is_above_0_and_at_most_1(name: str, warmup: int) -> None:
    config = ScheduleConfig.model_validate({"name": name, "lr_warmup_steps": warmup})
    assert all(0 < lr_factor(config, step, 10) <= 1 for step in range(10))
