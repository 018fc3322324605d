"""The study of speed runs: every option takes the same first step and is timed."""

from benchmarks.studies.trainer.speed import SpeedOptions, measure


def test_options_are_equal_and_timed() -> None:
    options = SpeedOptions(
        depths=(10,), num_repeats=2, num_steps=1, batch_size=2, width=0.125, canvas_px=64, is_compiling=False
    )
    found = measure(options)["depths"]["10"]
    assert set(found["ratio"]) == set(found["step_cpu_s"]) - {"plain"}
    assert set(found["ratio"]) >= {"recompute", "rmsprop_foreach", "adamw_fused", "bf16_heads"}
    assert all(ratio["median"] > 0 for ratio in found["ratio"].values())
