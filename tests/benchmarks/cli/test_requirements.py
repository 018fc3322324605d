"""Requirements as pip states them; a checkout and an installed wheel say the same."""

from importlib import metadata
from pathlib import Path

import pytest

from benchmarks.cli import requirements
from benchmarks.cli.requirements import Requirement, extras, hard_requirements, installed_version

LINES = ["torch>=2.6", "numpy", "ray>=2.40; extra == 'ray'", 'moto[s3,server]>=5.2; extra == "dev"']


def test_metadata_of_a_wheel_is_read_where_there_is_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(metadata, "requires", lambda name: LINES)
    assert hard_requirements() == [Requirement(name="torch", at_least="2.6"), Requirement(name="numpy")]
    assert extras() == {
        "ray": [Requirement(name="ray", at_least="2.40")],
        "dev": [Requirement(name="moto", at_least="5.2")],
    }


def test_a_checkout_says_what_the_built_metadata_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hatchling = pytest.importorskip("hatchling.metadata.core")
    plugins = pytest.importorskip("hatchling.plugin.manager")
    root = requirements.PROJECT.parent
    core = hatchling.ProjectMetadata(str(root), plugins.PluginManager()).core
    lines = [*core.dependencies]
    lines += [f"{line}; extra == '{extra}'" for extra, added in core.optional_dependencies.items() for line in added]
    from_checkout = hard_requirements(), extras()
    monkeypatch.setattr(requirements, "PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    hard, added = from_checkout
    assert sorted(found.name for found in hard_requirements()) == sorted(found.name for found in hard)
    assert {name: len(found) for name, found in extras().items()} == {name: len(found) for name, found in added.items()}


@pytest.mark.parametrize(
    ("version", "at_least", "is_met"),
    [
        ("2.6.0+cu126", "2.6", True),
        ("2.10.1", "2.6", True),
        ("2.5.9", "2.6", False),
        ("3", "2.6", True),
        ("0.22.0a0", "0.21", True),
        ("1.2", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, at_least: str, is_met: bool) -> None:
    assert Requirement(name="x", at_least=at_least).is_met_by(version) is is_met


def test_any_opencv_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "opencv-contrib-python":
            raise metadata.PackageNotFoundError(name)
        return "4.12"

    monkeypatch.setattr(metadata, "version", version)
    assert installed_version("opencv-python-headless") == "4.12"
    assert installed_version("torch") is None
