"""A trained run: the model's answers to whole inputs first, then to what is left of them."""

import pytest

from benchmarks.shortcuts.tasks import SHORTCUTS
from benchmarks.shortcuts.trained import WHOLE, findings_of_run
from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress
from training.config import PretrainConfig
from training.loop import pretrain


def test_a_run_is_measured_with_whole_inputs_and_cut_down_ones(small_shards, tmp_path):
    config = {
        "pipeline": {
            "images": str(small_shards(images=8)),
            "canvas_px": 32,
            "batch_size": 4,
            "num_threads": 1,
            "tasks": {"relative_position": {}, "colorization": {}},
        },
        "trunk": {"depth": 10, "width": 0.125},
        "heads": {"preset": "small"},
        "budget": {"steps": 2},
        "held_out": "off",
    }
    with quiet_progress():
        pretrain(validate(PretrainConfig, config, source="test"), tmp_path / "run", device="cpu")
        found, again = (findings_of_run(tmp_path / "run", num_samples=4, device="cpu") for _ in range(2))
    assert found == again
    for name in ("relative_position", "colorization"):
        sees = [one.sees for one in found if one.task == name]
        assert sees == [WHOLE, *SHORTCUTS[name].restrictions]
    assert all(one.kept in (None, 1) for one in found if one.sees == WHOLE)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no run with config\.yaml"):
        findings_of_run(tmp_path, num_samples=4)
