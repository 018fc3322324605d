"""Faulty suite files: every message names the file, the line, the key, and what is allowed."""

from pathlib import Path

import pytest

from benchmarks.suite.suite_config import load_suite
from pipelines.base.errors import UsageError

GOOD = """\
name: bad
images: shards
task_sets: [colorization, exemplar]
baselines: [random_init]
depths: [10]
seeds: [0, 1]
pretrain:
  trunk: {width: 0.25}
  pipeline: {canvas_px: 64}
  budget: {steps: 2}
evaluations:
  linear_probe: {}
"""
CASES: list[tuple[str, str, int, str, str]] = [
    # what is wrong, by the text put in place of another: line, key, what is allowed
    ("seeds: [0, 1]", "sedes: [0, 1]", 6, "sedes", "Did you mean seeds?"),
    ("depths: [10]", "depths: []", 5, "depths", "at least 1"),
    ("depths: [10]", "depths: [10, 11]", 5, "trunk.depth = 11", "10, 14, 18"),
    ("depths: [10]", "depths: ten", 5, "depths = 'ten'", "valid list"),
    ("seeds: [0, 1]", "seeds: [0, 0]", 6, "seeds", "name each once"),
    ("seeds: [0, 1]", "seeds: [-1]", 6, "seeds", "at least 0"),
    ("seeds: [0, 1]", "seeds: [true]", 6, "seeds", "a number is wanted"),
    ("name: bad", "name: Bad Name", 1, "name", "^[a-z0-9]"),
    ("[colorization, exemplar]", "\n  - colorization\n  - exemplr", 5, "task_sets.1", "Did you mean exemplar?"),
    ("[colorization, exemplar]", "\n  - colorization\n  - []", 5, "task_sets.1", "Allowed: all, relative_position"),
    ("[colorization, exemplar]", "\n  - exemplar\n  - [exemplar]", 3, "task_sets", "name each once"),
    ("[colorization, exemplar]", "[motion_segmentation]", 3, "task_sets", "set clips: FOLDER"),
    ("[colorization, exemplar]", "\n  - tasks: all\n    nmae: x", 5, "task_sets.0.nmae", "Did you mean name?"),
    (
        "[colorization, exemplar]",
        "\n  - tasks: exemplar\n    options:\n      evaluations.knn.k: 3",
        6,
        "task_sets.0.options.evaluations.knn.k",
        "Allowed: pretrain.KEY.",
    ),
    (
        "[colorization, exemplar]",
        "\n  - tasks: exemplar\n    options:\n      pretrain.trunk.widht: 1",
        6,
        "trunk.widht",
        "Did you mean width?",
    ),
    (
        "[colorization, exemplar]",
        "\n  - tasks: all\n    name: a, b",
        5,
        "task_sets.0.name = 'a, b'",
        "1 to 60 characters without commas",
    ),
    (
        "[colorization, exemplar]",
        "\n  - tasks: exemplar\n    options:\n      pretrain.trunk: 7",
        6,
        "pretrain.trunk = 7",
        "need a mapping",
    ),
    (
        "[colorization, exemplar]",
        "\n  - tasks: exemplar\n    options:\n      pretrain.budget.steps.x: 7",
        6,
        "pretrain.budget.steps.x",
        "not a mapping",
    ),
    ("baselines: [random_init]", "baselines: [random]", 4, "baselines.0", "'random_init', 'supervised'"),
    ("  trunk: {width: 0.25}", "  trunk: {depth: 18}", 8, "pretrain.trunk.depth = 18", "use depths"),
    ("  trunk: {width: 0.25}", "  trunk: {width: wide}", 8, "trunk.width = 'wide'", "valid number"),
    ("  trunk: {width: 0.25}", "  trnk: {width: 0.25}", 8, "trnk", "Did you mean trunk?"),
    ("  budget: {steps: 2}", "  seed: 3\n  budget: {steps: 2}", 10, "pretrain.seed = 3", "use seeds"),
    ("  budget: {steps: 2}", "  budget: {step: 2}", 10, "budget.step", "Did you mean steps?"),
    (
        "  budget: {steps: 2}",
        "  updates: joined\n  budget: {steps: 2}",
        10,
        "updates",
        "'per_task', 'summed' or 'joint'",
    ),
    ("{canvas_px: 64}", "\n    tasks: {exemplr: {}}", 10, "pretrain.pipeline.tasks.exemplr", "Did you mean exemplar?"),
    (
        "{canvas_px: 64}",
        "\n    tasks:\n      supervised: {task_wieght: 2}",
        11,
        "task_wieght",
        "Did you mean task_weight?",
    ),
    ("  pipeline: {canvas_px: 64}", "  pipeline: 7", 9, "pretrain.pipeline = 7", "need a mapping"),
    ("  trunk: {width: 0.25}", "  trunk: [1]", 8, "pretrain.trunk = [1]", "need a mapping"),
    ("{canvas_px: 64}", "{canvas_px: 20}", 9, "tasks.colorization: canvas_px = 20", "need a multiple of 8"),
    ("  linear_probe: {}", "  linear_prob: {}", 12, "evaluations.linear_prob", "Did you mean linear_probe?"),
    ("  linear_probe: {}", "  linear_probe: {pol: 3}", 12, "pol", "Did you mean pool?"),
    ("  linear_probe: {}", "  wide: {kind: knn, pool: 5}", 12, "evaluations.wide.pool", "Allowed: kind, options."),
    ("  linear_probe: {}", "  linear_probe: {}\n  pixel_floor: {}", 13, "evaluations.pixel_floor", "to baselines"),
    ("  linear_probe: {}", "  linear_probe: []", 12, "evaluations.linear_probe", "valid dictionary"),
    ("images: shards", "images: null", 2, "images", "images: FOLDER"),
    ("evaluations:", "axes: {trunk.width: [1]}\nevaluations:", 11, "axes.trunk.width", "Allowed: pretrain.KEY"),
    ("evaluations:", "axes: {pretrain: [{}]}\nevaluations:", 11, "axes.pretrain", "Allowed: pretrain.KEY."),
    ("evaluations:", "axes: {pretrain.trunk.depth: [10]}\nevaluations:", 11, "axes.pretrain.trunk.depth", "depths"),
    ("evaluations:", "axes:\n  pretrain.lr: []\nevaluations:", 12, "axes.pretrain.lr", "at least one"),
    ("evaluations:", "axes:\n  pretrain.trunk.width: [1, 1]\nevaluations:", 12, "axes.pretrain.trunk.width", "once"),
    ("evaluations:", "axes:\n  pretrain.trunk.width: [1, -1]\nevaluations:", 12, "trunk.width = -1", "greater than 0"),
    ("evaluations:", "axes:\n  pretrain.trunk.widht: [1]\nevaluations:", 12, "trunk.widht", "Did you mean width?"),
    (
        "evaluations:",
        "axes: {pretrain.trunk: [{}]}\nvariants:\n  v:\n    pretrain.trunk.width: 1\nevaluations:",
        14,
        "variants.v.pretrain.trunk.width",
        "Allowed: one place for each key",
    ),
    ("evaluations:", "variants:\n  v: {images.x: 1}\nevaluations:", 12, "variants.v.images.x", "Allowed: images."),
    ("evaluations:", "variants:\n  v: {seeds: [3]}\nevaluations:", 12, "variants.v.seeds", "Allowed: pretrain.KEY"),
    ("evaluations:", "exclude:\n  - {depht: 10}\nevaluations:", 12, "exclude.0.depht", "Did you mean depth?"),
    ("evaluations:", "include:\n  - {depth: 18}\nevaluations:", 12, "include.0.depth = 18", "Allowed: 10."),
    ("evaluations:", "include:\n  - {}\nevaluations:", 12, "include.0", "Allowed: task_set, depth, seed, percent."),
    ("evaluations:", "exclude: [{depth: 10}]\nevaluations:", 11, "exclude", "keep at least one"),
    ("evaluations:", "evaluate_at: [10, 30]\nevaluations:", 11, "evaluate_at", "the last one 100"),
    ("evaluations:", "trunks: {r50: {timm: resnet50}}\nevaluations:", 11, "trunks.r50.weights", "required"),
    ("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]", 7, "seeds", "keep one"),
]


def test_the_suite_is_good_without_the_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(GOOD)
    assert len(load_suite(tmp_path / "bad.yaml").task_sets) == 3
    assert len(CASES) >= 30


@pytest.mark.parametrize(("old", "new", "line", "key", "allowed"), CASES, ids=[case[1][:50] for case in CASES])
def test_a_bad_suite_is_told_by_file_line_key_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, line: int, key: str, allowed: str
) -> None:
    path = tmp_path / "bad.yaml"
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError) as caught:
        load_suite(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert key in message
    assert allowed in message
