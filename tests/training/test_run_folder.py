"""Who owns a run's folder, and when it is finished."""

import json

import pytest
import torch

from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.pipeline_config import PipelineConfig
from training.config import PretrainConfig
from training.run_folder import BACKEND_NAME, RunSummary, claim, read_summary, settle_backends, write_summary

ALL = PipelineConfig(tasks={"colorization": {}, "motion_segmentation": {}})
SUMMARY = RunSummary(
    num_steps=3,
    seconds=1.5,
    compute_tflop=0.25,
    num_trunk_parameters=7,
    device="cpu",
    samples_seen={"exemplar": 12},
    losses={"exemplar": 0.5},
    metrics={"exemplar": {"satisfied": 0.75}},
)


def config_of(**values) -> PretrainConfig:
    return validate(PretrainConfig, values, source="test")


def test_the_same_config_may_come_back(tmp_path) -> None:
    claim(tmp_path / "new" / "run", config_of(seed=3))
    claim(tmp_path / "new" / "run", config_of(seed=3))


def test_what_the_result_does_not_depend_on_may_change(tmp_path) -> None:
    claim(tmp_path, config_of())
    claim(tmp_path, config_of(log_every_steps=3, checkpoint={"every_steps": 5}))


def test_every_other_change_is_named(tmp_path) -> None:
    claim(tmp_path, config_of())
    with pytest.raises(
        UsageError, match=r"other values of trunk, seed\. .* checkpoint, diagnostics, held_out and log_every_steps only"
    ):
        claim(tmp_path, config_of(seed=1, trunk={"depth": 34}))


def test_a_summary_comes_back_once_there_is_a_trunk(tmp_path) -> None:
    write_summary(tmp_path, SUMMARY)
    assert read_summary(tmp_path) is None
    (tmp_path / "trunk.pt").touch()
    assert read_summary(tmp_path) == SUMMARY


def test_a_new_folder_has_no_summary(tmp_path) -> None:
    assert read_summary(tmp_path) is None


def test_the_backend_is_chosen_once_and_written_down_with_its_reason(tmp_path) -> None:
    settled = settle_backends(tmp_path, ALL, torch.device("cpu"))
    written = json.loads((tmp_path / BACKEND_NAME).read_text())
    assert {name: settled.placement[name].backend for name in written} == {"images": "opencv", "clips": "opencv"}
    assert "device is cpu" in written["images"]["reason"]
    assert written["clips"]["placement"].startswith("opencv on cpu, threads")


def test_a_run_goes_on_with_the_backend_it_began_with(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.decode.dali.require_dali", lambda: None)
    monkeypatch.setattr("pipelines.decode.placement.num_cores", lambda: 8)
    for device in ("cuda", "cpu"):
        settled = settle_backends(tmp_path, ALL, torch.device(device))
        assert {name: one.backend for name, one in settled.placement.items()} == {"images": "dali", "clips": "opencv"}


def test_a_run_of_an_earlier_version_has_one_backend_for_all(tmp_path) -> None:
    (tmp_path / BACKEND_NAME).write_text('{"name": "opencv", "reason": "asked for"}')
    settled = settle_backends(tmp_path, ALL, torch.device("cuda"))
    assert {name: one.backend for name, one in settled.placement.items()} == {"images": "opencv", "clips": "opencv"}


def test_a_run_whose_backend_is_gone_does_not_go_on_with_another(tmp_path, monkeypatch) -> None:
    def no_dali():
        raise UsageError("DALI cannot be loaded")

    (tmp_path / BACKEND_NAME).write_text('{"name": "dali", "reason": "device is cuda"}')
    monkeypatch.setattr("pipelines.decode.dali.require_dali", no_dali)
    with pytest.raises(UsageError, match=r"began with dali for images and resumes with no other\. DALI cannot"):
        settle_backends(tmp_path, ALL, torch.device("cpu"))
