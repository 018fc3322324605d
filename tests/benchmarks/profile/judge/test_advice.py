"""Advice: what is offered where, what it is predicted to give, and in which order it is told."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.profile.judge import advice
from benchmarks.profile.judge.advice import MANY_PREFETCHED, Option, advise, settings_options
from benchmarks.profile.model.queueing import ConsumerCost, PipelineModel
from benchmarks.profile.profile_config import changed
from pipelines.base.machine import num_cores
from tests.made.made_profiles import made_config, made_feed, made_measured, made_model


def names(model: PipelineModel, **pipeline: Any) -> list[str]:
    return [option.name for option in settings_options(made_config(**pipeline), model)]


def test_settings_that_are_as_they_should_be_are_not_offered() -> None:
    assert names(made_model(), num_threads=num_cores(), prefetch_batches=MANY_PREFETCHED) == []


@pytest.mark.parametrize(
    ("model", "pipeline", "name"),
    [
        (made_model(), {"prefetch_batches": 2}, "prefetch"),
        (made_model(consumer=ConsumerCost(transfer_s=0.01)), {"prefetch_batches": 16}, "overlap_transfer"),
        (made_model(feed=made_feed(waits_s=(0.01,))), {"prefetch_batches": 16}, "memory"),
    ],
)
def test_each_setting_is_offered_where_it_applies(model: PipelineModel, pipeline: dict[str, Any], name: str) -> None:
    assert names(model, num_threads=num_cores(), **pipeline) == [name]


@pytest.mark.skipif(num_cores() < 2, reason="one core")
def test_threads_up_to_the_cores() -> None:
    assert "threads" in names(made_model(), num_threads=1)


def test_settings_of_an_option_are_a_valid_profile() -> None:
    config = made_config(num_threads=1, prefetch_batches=1)
    model = made_model(consumer=ConsumerCost(transfer_s=0.01), feed=made_feed(waits_s=(0.01,)))
    for option in settings_options(config, model):
        if option.settings:
            assert changed(config, option.settings) != config


def test_gains_by_hand() -> None:
    # Reading waits 48 ms a batch and decoding takes 16 ms on two workers, 8 ms of wall time; a task keeps one
    # of them for 8 ms: 56 ms a step with the waits, (16 + 8) / 2 without.
    waiting = made_model(feed=made_feed(waits_s=(0.048,)), num_cores=64.0, prefetch_batches=16)
    (memory,) = (one for one in settings_options(made_config(), waiting) if one.name == "memory")
    assert memory.gain(waiting) == pytest.approx(56 / 12, rel=0.01)
    # Copies of 20 ms before steps of 30 ms.
    copying = made_model(consumer=ConsumerCost(transfer_s=0.02, step_wait_s=0.03))
    (overlap,) = (one for one in settings_options(made_config(), copying) if one.name == "overlap_transfer")
    assert overlap.gain(copying) == pytest.approx(50 / 30, rel=0.01)


def test_the_most_helpful_comes_first_and_the_useless_not_at_all() -> None:
    def option(name: str, factor: float) -> Option:
        def change(model: PipelineModel) -> PipelineModel:
            return model.with_feeds("image", decode_s=model.feeds[0].decode_s * factor)

        return Option(name=name, stage="decode", text=name, change=change)

    measured = made_measured(made_model(prefetch_batches=16))
    found = advise(measured, (option("none", 1.0), option("some", 0.7), option("most", 0.2)))
    assert [one.option.name for one in found] == ["most", "some"]
    assert found[0].before_samples_per_s == measured.samples_per_s
    assert found[0].after_samples_per_s == pytest.approx(measured.samples_per_s * found[0].gain)


def test_alternatives_are_measured_of_large_stages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(advice, "_image_options", lambda config, device: looked_at.append("decode") or [])
    monkeypatch.setattr(advice, "_motion_options", lambda config, device: looked_at.append("motion") or [])
    model = made_model()
    advice.options_of(made_measured(model))
    assert looked_at == ["decode"]
    looked_at.clear()
    advice.options_of(made_measured(replace(model, feeds=(made_feed(decode_s=1e-6),))))
    assert looked_at == []
