"""A diagnosis on planted gradients, and labelled images from shards."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.base.config import validate
from pipelines.build import PipelineConfig
from tests.made.planted_gradients import PlantedModel, planted
from tests.made.tiny_shards import coloured, write_shards
from training.diagnostics.diagnosis import Diagnosis, DiagnosticsConfig, open_labelled
from training.heads import HeadsConfig
from training.model import build_model, build_trunk
from training.trunk import TrunkConfig

SIZE = 500
PIPELINE = PipelineConfig.model_validate({"tasks": {"relative_position": {"accumulate": 2}, "colorization": {}}})


def run(num_steps: int, every: int, moved=None) -> tuple[Diagnosis, list[dict]]:
    """Relative position's gradient is noise; colorization's is always the same."""
    generator = torch.Generator().manual_seed(0)
    diagnosis, model = Diagnosis(DiagnosticsConfig(every=every), PIPELINE), PlantedModel(SIZE)
    updater, lines = SimpleNamespace(watch="as before"), []
    for number in range(1, num_steps + 1):
        noise = torch.randn(4 * SIZE, generator=generator)
        batches = {
            "colorization": planted("colorization", torch.ones(4 * SIZE)),
            "relative_position": planted("relative_position", noise),
        }
        with diagnosis.around(number, batches, model, updater):  # type: ignore[arg-type]
            for task, by in (moved or {}).items():
                with updater.watch(task), torch.no_grad():
                    model.trunk.units[0][0] += by
        assert updater.watch == "as before"
        lines.append(diagnosis.take_line())
    return diagnosis, lines


def test_a_task_of_pure_noise_is_named_and_the_other_is_not() -> None:
    diagnosis, lines = run(6, every=2)
    assert [bool(line) for line in lines] == [False, True] * 3
    found = lines[-1]["diagnostics"]
    assert found["batch_cosine"]["colorization"] == pytest.approx(1.0)
    assert abs(found["batch_cosine"]["relative_position"]) < 0.1
    assert abs(found["task_cosine"]["colorization + relative_position"]["trunk"]) < 0.1
    assert len(diagnosis.warnings) == 1
    assert diagnosis.warnings[0].startswith("relative_position: its gradient is mostly noise")
    assert "accumulate (now 2), more grids or pairs per image" in diagnosis.warnings[0]


def test_one_measurement_names_nothing() -> None:
    assert run(4, every=4)[0].warnings == []


def test_the_first_step_has_one_batch_and_so_no_cosine_within_a_task() -> None:
    _, (line,) = run(1, every=1)
    assert line["diagnostics"]["batch_cosine"] == {}
    assert set(line["diagnostics"]["gradient_norm"]) == {"colorization", "relative_position"}


def test_each_tasks_share_of_the_trunks_motion() -> None:
    _, (line,) = run(1, every=1, moved={"colorization": 0.3, "relative_position": 0.1})
    assert line["diagnostics"]["motion_share"] == pytest.approx(
        {"colorization": 0.75, "relative_position": 0.25}, abs=1e-5
    )


def test_labelled_images_are_read_once_and_classified(tmp_path) -> None:
    rng = np.random.default_rng(0)
    splits = {
        split: [(label, coloured(label, rng, 32)) for label in (0, 1, 2) * n] for split, n in (("train", 8), ("val", 4))
    }
    config = DiagnosticsConfig(labelled=write_shards(tmp_path, splits), labelled_samples=20)
    pipeline = validate(PipelineConfig, {"canvas_px": 32, "batch_size": 8, "num_threads": 1}, source="test")
    labelled = open_labelled(config, pipeline, seed=0)
    assert labelled is not None
    train, test = labelled._train, labelled._test
    assert (len(train[0]), len(test[0])) == (20, 10)
    assert train[0].dtype == torch.uint8
    # Images are of one color per label, which any features tell apart.
    model = build_model(build_trunk(TrunkConfig(depth=10, width=0.125), (), 0), HeadsConfig(), {}, seed=0)
    before = [value.clone() for value in model.state_dict().values()]
    assert labelled.accuracy(model, torch.device("cpu"), 8) > 0.8
    assert all(torch.equal(one, other) for one, other in zip(before, model.state_dict().values(), strict=True))
    assert open_labelled(DiagnosticsConfig(), pipeline, seed=0) is None
