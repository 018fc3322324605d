"""A trained run: the model's answers to whole inputs first, then to what is left of them."""

import pytest

from benchmarks.shortcuts.tasks import SHORTCUTS
from benchmarks.shortcuts.trained import WHOLE, findings_of_run
from pipelines.base.config import validate
from pipelines.base.errors import DataError, UsageError
from pipelines.base.progress import quiet_progress
from training.config import PretrainConfig
from training.loop import pretrain
from training.weights.checkpoint import CHECKPOINT_NAME, MODEL_NAME, keep_model_only, load_model_weights


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
        # As a suite leaves its pretrainings: without a checkpoint.
        keep_model_only(tmp_path / "run")
        assert not (tmp_path / "run" / CHECKPOINT_NAME).exists()
        assert findings_of_run(tmp_path / "run", num_samples=4, device="cpu") == found
    assert found == again
    for name in ("relative_position", "colorization"):
        sees = [one.sees for one in found if one.task == name]
        assert sees == [WHOLE, *SHORTCUTS[name].restrictions]
    assert all(one.kept in (None, 1) for one in found if one.sees == WHOLE)


def test_a_damaged_model_is_one_message(tmp_path):
    assert load_model_weights(tmp_path) is None
    (tmp_path / MODEL_NAME).write_bytes(b"")
    with pytest.raises(DataError, match=r"model\.pt: damaged"):
        load_model_weights(tmp_path)


def test_random_weights_leave_no_model(tmp_path):
    config = {"pipeline": {"tasks": {}}, "trunk": {"depth": 10, "width": 0.125}}
    pretrain(validate(PretrainConfig, config, source="test"), tmp_path / "run", device="cpu")
    keep_model_only(tmp_path / "run")
    assert not (tmp_path / "run" / MODEL_NAME).exists()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no run with config\.yaml"):
        findings_of_run(tmp_path, num_samples=4)
