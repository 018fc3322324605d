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


def test_step_by_hand() -> None:
    config = ScheduleConfig(name="step", lr_warmup_steps=0, factor=0.5, at=(0.5, 0.75))
    assert [lr_factor(config, step, 4) for step in range(4)] == [1.0, 1.0, 0.5, 0.25]


def test_exponential_is_the_supervised_baselines() -> None:
    config = ScheduleConfig(name="exponential", lr_warmup_steps=2)
    found = [lr_factor(config, 5, 10, passes) for passes in (0.0, 1.99, 2.0, 3.9, 4.0, 20.0)]
    assert found == pytest.approx([1, 1, 0.94, 0.94, 0.94**2, 0.94**10])
    assert lr_factor(config, 0, 10, 0.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize("at", [(), (0.0,), (0.5, 0.5), (0.7, 0.3), (0.5, 1.0)])
def test_shares_of_the_run_ascend_inside_it(at) -> None:
    with pytest.raises(ValueError, match="ascending"):
        ScheduleConfig(name="step", at=at)


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "exponential"])
@pytest.mark.parametrize("warmup", [0, 3, 10, 1000])
def test_every_factor_is_above_0_and_at_most_1(name: str, warmup: int) -> None:
    config = ScheduleConfig.model_validate({"name": name, "lr_warmup_steps": warmup})
    assert all(0 < lr_factor(config, step, 10, step) <= 1 for step in range(10))
