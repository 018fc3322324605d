"""What a wheel contains: everything that runs outside a checkout, and neither tests nor documents."""

import zipfile
from pathlib import Path

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
