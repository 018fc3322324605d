"""What a wheel contains: everything that runs outside a checkout, and neither tests nor documents."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipelines", "training", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    builders = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


def test_it_has_every_source_and_every_recipe(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    recipes = {
        (Path("benchmarks/recipes") / path.relative_to(ROOT / "yaml")).as_posix()
        for path in (ROOT / "yaml").rglob("*.yaml")
    }
    assert sources | recipes | {"fourfold.py"} <= set(wheel.namelist())


def test_it_has_the_files_that_are_not_python(wheel: zipfile.ZipFile) -> None:
    """Templates and styles of the pages; py.typed, without which type checkers ignore our annotations."""
    found = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.suffix in (".j2", ".css", ".typed")
    }
    assert {f"{name}/py.typed" for name in PACKAGES} < found
    assert found <= set(wheel.namelist())


def test_it_has_nothing_else_at_the_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == {*PACKAGES, "fourfold.py"}


def test_its_command_is_the_launcher(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert wheel.read(name).decode().split() == ["[console_scripts]", "fourfold", "=", "fourfold:main"]


@pytest.mark.slow
def test_it_runs_outside_a_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Installing is unpacking: shards are built by a packaged recipe, and a packaged suite is planned on them."""
    wheel.extractall(tmp_path / "installed")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(5):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "photos" / label / f"{index}.jpg"), pixels)

    def fourfold(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
        command = [sys.executable, "-m", "fourfold", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    built = fourfold("shards", "build", "photos", "--config", "labelled-photos", "--out", "shards", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["num_images"] == 10
    given = ("images=shards", "clips=null", "task_sets=[exemplar]", "seeds=[0]")
    settings = [f"--set={text}" for text in (*given, "evaluations.pixel_floor.labels_per_class=[]")]
    planned = fourfold("bench", "plan", "demo", *settings, "--json")
    assert planned.returncode == 0, planned.stderr
    assert {cell["state"] for cell in json.loads(planned.stdout)["cells"]} == {"waiting"}
