"""The registry of heads and its configuration."""

import re
from pathlib import Path

import pytest
import torch

import training.heads
from pipelines.base.config import load_config
from pipelines.base.errors import UsageError
from pipelines.tasks import PRETEXT_TASKS, TASKS
from tests.made.task_batches import MAKERS
from training.config import PretrainConfig
from training.heads import HEADS, HeadInput, HeadsConfig, build_head

ROOT = Path(__file__).parents[3]
SHAPE = HeadInput(num_channels=8, height=4, width=4, num_labels=5)


def test_every_task_has_a_head() -> None:
    assert set(HEADS) == set(TASKS)


@pytest.mark.parametrize("task", list(HEADS))
def test_loss_and_gradient_of_every_head_are_finite(task: str) -> None:
    batch = MAKERS[task]()
    *_, height, width = batch.inputs.shape
    shape = HeadInput(num_channels=8, height=-(-height // 8), width=-(-width // 8), num_labels=5)
    head = build_head(task, HeadsConfig(preset="small"), shape)
    patches = batch.inputs.shape[1] if batch.inputs.ndim == 5 else 1
    features = torch.rand(len(batch.inputs) * patches, 8, shape.height, shape.width, requires_grad=True)
    loss = head.loss(head(features), batch)
    loss.total.backward()
    assert loss.total.ndim == 0
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert all(not value.requires_grad and 0 <= value <= 1 for value in loss.metrics.values())


@pytest.mark.parametrize("task", list(HEADS))
def test_a_batch_of_weight_0_costs_nothing_and_teaches_nothing(task: str) -> None:
    batch = MAKERS[task]()
    batch.weight.zero_()
    *_, height, width = batch.inputs.shape
    shape = HeadInput(num_channels=8, height=-(-height // 8), width=-(-width // 8), num_labels=5)
    head = build_head(task, HeadsConfig(preset="small"), shape)
    patches = batch.inputs.shape[1] if batch.inputs.ndim == 5 else 1
    loss = head.loss(head(torch.rand(len(batch.inputs) * patches, 8, shape.height, shape.width)), batch)
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert all((p.grad is None) or (p.grad == 0).all() for p in head.parameters())


def test_a_task_without_a_head_is_refused() -> None:
    with pytest.raises(UsageError, match="rotation: no head of this name"):
        build_head("rotation", HeadsConfig(), SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exemplars": {}}, "no head named exemplars"),
        ({"exemplar": {"margins": 1}}, "Did you mean margin"),
        ({"exemplar": {"margin": -1}}, "greater than 0"),
        ({"relative_position": {"joint": "both"}}, "wide"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        HeadsConfig(options=options)


def sizes(recipe: str) -> dict[str, int]:
    """Weights of every pretext task's head with a packaged recipe."""
    config = load_config(PretrainConfig, ROOT / "yaml" / "pretrain" / f"{recipe}.yaml")
    found = {}
    for name, task in PRETEXT_TASKS.items():
        height, width = task(task.config_class(), config.pipeline.canvas).spec(1)["inputs"].shape[-2:]
        shape = HeadInput(num_channels=config.trunk.channels[-1], height=-(-height // 8), width=-(-width // 8))
        with torch.device("meta"):
            found[name] = sum(p.numel() for p in build_head(name, config.heads, shape).parameters())
    return found


@pytest.mark.parametrize("preset", ["paper", "small"])
def test_the_sizes_that_the_presets_state(preset: str) -> None:
    source = Path(training.heads.__file__).read_text(encoding="utf-8")
    pattern = rf'"{preset}":[^"]*?([\d.]+) M[^(]*\((\w+)\) to ([\d.]+) M[^(]*\((\w+)\) with the recipe `{preset}`'
    stated = re.search(pattern, source)
    assert stated is not None
    found = sizes(preset)
    smallest, largest = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    assert (stated[2], stated[4]) == (smallest, largest)
    for number, task in ((stated[1], smallest), (stated[3], largest)):
        decimals = len(number.partition(".")[2])
        assert float(number) == round(found[task] / 1e6, decimals)


def test_heads_have_the_sizes_that_the_paper_states() -> None:
    found = sizes("paper")
    # Section 3.4: colorization "roughly 35 M parameters"; the others follow from the layers that it names.
    assert found["colorization"] / 1e6 == pytest.approx(34.84, abs=0.01)
    assert found["motion_segmentation"] / 1e6 == pytest.approx(20.98, abs=0.01)
    assert found["exemplar"] / 1e6 == pytest.approx(1.28, abs=0.01)
