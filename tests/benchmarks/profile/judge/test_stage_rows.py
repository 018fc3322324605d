"""The table of stages and the decode limit, from made-up measurements."""

from dataclasses import replace

import pytest

from benchmarks.profile.judge.stage_rows import decode_limit, stage_rows
from benchmarks.profile.measure.ceilings import Ceilings, DiskSpeed
from benchmarks.profile.model.queueing import ConsumerCost
from tests.made.made_profiles import made_feed, made_measured, made_model

CEILINGS = Ceilings(
    read=DiskSpeed(
        sequential_warm_bytes_per_s=4e9,
        sequential_cold_bytes_per_s=None,
        random_warm_bytes_per_s=2e9,
        random_cold_bytes_per_s=None,
        random_cold_reads_per_s=None,
        note="not measured cold",
    ),
    memory_copy_bytes_per_s=1e9,
    decode_images_per_s_core=2000.0,
    decode_images_per_s=4000.0,
    decode_clips_per_s_core=None,
    decode_clips_per_s=None,
    flow_pairs_per_s={},
    to_device_bytes_per_s=None,
    to_device_pinned_bytes_per_s=None,
    matrix_flop_per_s=1e11,
    device="cpu",
)


def test_rows_are_in_the_order_of_a_samples_way_and_shares_sum_to_one() -> None:
    measured = made_measured(made_model(feed=made_feed(read_s=1.6e-3, draw_s=0.8e-3)))
    rows = stage_rows(measured, CEILINGS)
    assert [row.stage for row in rows] == ["read image", "draw image", "decode image", "colorization"]
    assert sum(row.cpu_ratio for row in rows) == pytest.approx(1)
    assert [row.cpu_ms_per_sample for row in rows] == pytest.approx([0.1, 0.05, 1.0, 0.5])


def test_achieved_over_ceiling() -> None:
    rows = {row.stage: row for row in stage_rows(made_measured(made_model(feed=made_feed(read_s=1.6e-3))), CEILINGS)}
    assert rows["read image"].achieved_per_s == pytest.approx(50_000 / 1e-4)
    assert rows["read image"].ratio == pytest.approx(5e8 / 2e9)
    assert rows["decode image"].ratio == pytest.approx(1000 / 2000)
    assert rows["draw image"].ratio is None


def test_a_ceiling_that_was_not_measured_is_none() -> None:
    rows = stage_rows(made_measured(made_model()), replace(CEILINGS, read=None, decode_images_per_s_core=None))
    assert [row.ratio for row in rows[:3]] == [None, None, None]


def test_the_step_against_a_matrix_product() -> None:
    measured = made_measured(made_model(consumer=ConsumerCost(step_cpu_s=0.1, transfer_s=0.01)))
    rows = stage_rows(replace(measured, flop_per_step=1e9), CEILINGS)
    assert rows[-1].stage == "step"
    assert rows[-1].ratio == pytest.approx(1e10 / 1e11)
    on_gpu = replace(CEILINGS, to_device_bytes_per_s=5e9, to_device_pinned_bytes_per_s=2e10)
    assert [row.stage for row in stage_rows(replace(measured, flop_per_step=1e9), on_gpu)][-2:] == ["transfer", "step"]


@pytest.mark.parametrize(("num_decodes", "expected"), [(1, 4000.0), (3, 4000 / 3)])
def test_decode_limit_counts_every_decode(num_decodes: int, expected: float) -> None:
    measured = made_measured(made_model(feed=made_feed(num_decodes=num_decodes)))
    assert decode_limit(measured, CEILINGS) == pytest.approx(expected)
    assert decode_limit(measured, replace(CEILINGS, decode_images_per_s=None)) is None
