"""The documents run: README's example prints what its comments say; docs/add-a-task.md adds a task that trains."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from benchmarks.suite.suite_config import SuiteConfig, load_suite
from pipelines.base.config import validate

ROOT = Path(__file__).resolve().parents[1]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def write_photos(folder: Path, num_photos: int = 8) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(num_photos):
        smooth = cv2.resize(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), (320, 280), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index}.jpg"), smooth)


def run_python(program: str, cwd: Path, sources: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(sources)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_example_prints_its_comments(tmp_path: Path) -> None:
    (example,) = blocks("README.md", "python")
    write_photos(tmp_path / "photos")
    expected = re.findall(r"^print\(.*\)  # (torch\.Size\(\[.*?\]\))", example, flags=re.MULTILINE)
    assert run_python(example, tmp_path, ROOT).splitlines() == expected
    assert len(expected) == 6
    assert len(example.splitlines()) <= 25


def test_readme_suite_is_valid() -> None:
    (suite,) = blocks("README.md", "yaml")
    config = validate(SuiteConfig, yaml.safe_load(suite), source="README.md")
    assert len(config.task_sets) == 4


def test_suite_of_the_page_on_suites_is_valid(tmp_path: Path) -> None:
    (suite,) = blocks("docs/suites.md", "yaml")
    (tmp_path / "suite.yaml").write_text(suite)
    places = list(load_suite(tmp_path / "suite.yaml").places())
    # Random weights at 100 % of 4 points, labels at 2 points, three task sets at 4; the trained ones at three shares.
    assert len(places) == 3 * (4 + 3 * 2 + 3 * 3 * 4)


@pytest.fixture
def sources_with_rotation(tmp_path: Path) -> Path:
    """A copy of the sources with what docs/add-a-task.md adds."""
    copy = tmp_path / "sources"
    for package in ("pipelines", "training", "benchmarks"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "docs" / "add-a-task.md").read_text(encoding="utf-8")
    for path, language, content in re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```(\w+)\n(.*?)```", text, flags=re.DOTALL):
        assert language in ("python", "yaml")
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_text(content, encoding="utf-8")
    for path, diffs in re.findall(
        r"`([\w/]+/__init__\.py)`: .*?\n\n((?:```diff\n.*?```\n\n?)+)", text, flags=re.DOTALL
    ):
        for diff in re.findall(r"```diff\n(.*?)```", diffs, flags=re.DOTALL):
            apply_diff(copy / path, diff)
    return copy


def apply_diff(path: Path, diff: str) -> None:
    """Replace the lines before (context and "-") by the lines after (context and "+"); they must be there once."""
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if line[0] in " -")
    after = "\n".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path}: {before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


TRAIN = """
from pathlib import Path
from pipelines.base.config import load_config
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.tasks import PRETEXT_TASKS
from training.config import PretrainConfig
from training.heads import HEADS
from training.loop import pretrain

assert "rotation" in PRETEXT_TASKS and "rotation" in HEADS
build_shards(BuildConfig(sources=[Path("photos")], out=Path("shards")))
overrides = ["budget={steps: 3}", "pipeline.batch_size=4", "trunk.width=0.125"]
config = load_config(PretrainConfig, Path("sources/yaml/pretrain/rotation.yaml"), overrides)
summary = pretrain(config, Path("run"), device="cpu")
assert summary.num_steps == 3 and "rotation" in summary.losses
"""

CHECK_BATCH = """
import numpy as np, torch
from pipelines.tasks import CanvasSpec, TASKS, TaskConfig
task = TASKS["rotation"](TaskConfig(), CanvasSpec(canvas_px=16))
pixels = torch.arange(4 * 16 * 16 * 3).reshape(4, 16, 16, 3).remainder(251).to(torch.uint8)
batch = task.make(pixels, {"quarter_turns": np.arange(4)}, ["a", "b", "c", "d"])
for turns in range(4):
    expected = np.rot90(pixels[turns].numpy(), turns) / np.float32(255)
    assert np.allclose(batch.inputs[turns].permute(1, 2, 0).numpy(), expected)
assert batch.target["quarter_turns"].tolist() == [0, 1, 2, 3]
"""


def test_page_adds_a_task_that_trains(sources_with_rotation: Path) -> None:
    folder = sources_with_rotation.parent
    write_photos(folder / "photos")
    run_python(CHECK_BATCH + TRAIN, folder, sources_with_rotation)
