"""Requirements of fourfold: read from its own metadata, so that no second list of dependencies can fall behind."""

import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Requirement", "extras", "hard_requirements", "installed_version"]

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
# Distributions that all provide `cv2`: whichever is there will do.
SAME_MODULE = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One distribution by its name on PyPI. `at_least`: the lowest version that will do, "" for any."""

    name: str
    at_least: str = ""

    def is_met_by(self, version: str) -> bool:
        """Compare the leading numbers: "2.6.0+cu126" meets "2.6"."""
        return _numbers(version) >= _numbers(self.at_least)

    @property
    def pip(self) -> str:
        """Argument of `pip install`."""
        return f"'{self.name}>={self.at_least}'" if self.at_least else self.name


def hard_requirements() -> list[Requirement]:
    """Return what every installation needs, in the order of pyproject.toml; [] if nothing says so."""
    return _all().get("", [])


def extras() -> dict[str, list[Requirement]]:
    """Return what the extras add, by their names."""
    return {name: found for name, found in _all().items() if name}


def installed_version(name: str) -> str | None:
    """Return the version of a distribution, or of one that provides the same module; None if there is none."""
    for candidate in (name, *SAME_MODULE.get(name, ())):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def _all() -> dict[str, list[Requirement]]:
    """Requirements by extra, "" for the hard ones."""
    found: dict[str, list[Requirement]] = {}
    # A checkout first: the metadata of an editable installation is as old as its last `pip install`.
    if PROJECT.is_file():
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
        for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items():
            found[extra] = [_parsed(line) for line in lines]
        return found
    try:
        lines = metadata.requires("fourfold") or []
    except metadata.PackageNotFoundError:
        return {}
    for line in lines:
        marker = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", line)
        found.setdefault(marker[1] if marker else "", []).append(_parsed(line))
    return found


def _parsed(line: str) -> Requirement:
    """Parse lines such as "torch>=2.6" and "moto[s3,server]>=5.2; extra == 'dev'"."""
    match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:>=\s*([0-9.]+))?", line)
    assert match is not None  # pip has accepted the same line
    return Requirement(name=match[1], at_least=match[2] or "")


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
