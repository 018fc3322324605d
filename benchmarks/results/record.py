"""`record.json`: the record of one finished stage. A record is complete or it is refused.

A valid record is the only mark that a stage is finished, so it is written last, under a temporary name, then renamed.
"""

import json
import math
import platform
import subprocess
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.base.atomic import write_atomically
from pipelines.base.errors import DataError
from pipelines.base.machine import num_cores

__all__ = [
    "RECORD_NAME",
    "Environment",
    "Record",
    "cpu_name",
    "environment",
    "installed_version",
    "read_record",
    "write_json",
    "write_record",
    "write_text",
]

RECORD_NAME = "record.json"
FORMAT_VERSION = 1
DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
VERSIONED_PACKAGES = ("torch", "torchvision", "timm", "kornia", "numpy", "scipy", "numba", "opencv-python-headless")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Code, machine and package versions that a number comes from."""

    commit: str
    is_dirty: bool
    machine: str
    cpu_name: str
    num_cores: int
    gpu_name: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One finished stage. `key`: hash of `config` and `inputs`; `seconds`: of all attempts together."""

    kind: str
    key: str
    label: str
    date: str
    seconds: float
    environment: Environment
    config: dict[str, Any]
    inputs: dict[str, str]
    results: dict[str, Any]
    format_version: int = FORMAT_VERSION
    coordinates: dict[str, Any] = field(default_factory=dict)
    """Place in the suite: task_set, depth, seed, variant, percent and axes, where all cells of the stage agree."""
    code: str = ""
    """Digest of the sources that made it; empty in records that are older than digests."""

    def __post_init__(self) -> None:
        if missing := _missing(self):
            raise ValueError(
                f"record of {self.label or self.kind or 'a stage'}: {', '.join(missing)}. A record has all of it, or "
                "is none: without code, machine and configuration, nobody can tell what a number is of."
            )


def _missing(record: Record) -> list[str]:
    """Return what a record lacks, in words; [] of a complete one."""
    texts = ("kind", "key", "label", "date", "config", "results")
    found = [f"{name} empty" for name in texts if not getattr(record, name)]
    place = record.environment
    # num_cores and versions too: seconds mean nothing without the one, numbers little without the other.
    found += [
        f"environment.{name} empty"
        for name in ("commit", "machine", "cpu_name", "num_cores", "gpu_name", "versions")
        if not getattr(place, name)
    ]
    found += [f"environment.versions has no {name}" for name in ("python", "fourfold") if name not in place.versions]
    try:
        datetime.strptime(record.date, DATE_FORMAT)
    except ValueError:
        found.append(f"date = {record.date!r}, need UTC like 2026-01-02T03:04:05Z")
    if not (math.isfinite(record.seconds) and record.seconds >= 0):
        found.append(f"seconds = {record.seconds}, need a finite number of at least 0")
    found += [f"inputs.{name} empty" for name, content in record.inputs.items() if not content]
    found += [f"{name} is not finite" for name in _not_finite(record.results, "results")]
    return found


def _not_finite(value: Any, name: str) -> list[str]:
    """Return the names of numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return [bad for key, inner in value.items() for bad in _not_finite(inner, f"{name}.{key}")]
    if isinstance(value, list | tuple):
        return [bad for index, inner in enumerate(value) for bad in _not_finite(inner, f"{name}.{index}")]
    return [name] if isinstance(value, float) and not math.isfinite(value) else []


def write_record(folder: Path, record: Record) -> Path:
    """Write the record of a finished stage into its folder and return its path."""
    path = folder / RECORD_NAME
    write_json(path, asdict(record))
    return path


def read_record(folder: Path, key: str) -> Record | None:
    """Return the record of a stage; None if there is none, or it is damaged, or it has another key."""
    try:
        content = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        if content["key"] != key or content["format_version"] != FORMAT_VERSION:
            return None
        place = Environment(**content.pop("environment"))
        needed = {one.name for one in fields(Record) if one.default is one.default_factory is MISSING}
        if missing := needed - {"environment"} - set(content):
            raise ValueError(f"no {', '.join(sorted(missing))}")
        return Record(environment=place, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a file, whole or not at all. Raises DataError."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Make the folder and write the file, whole or not at all. Raises DataError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise DataError(
            f"{path}: cannot write it ({error.strerror}). Free some space or give another --out."
        ) from error


def now_utc() -> str:
    return datetime.now(UTC).strftime(DATE_FORMAT)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return code, machine and versions of this process."""
    commit, is_dirty = _git_state()
    return Environment(
        commit=commit,
        is_dirty=is_dirty,
        machine=platform.platform(),
        cpu_name=cpu_name(),
        num_cores=num_cores(),
        gpu_name=_gpu_name(),
        versions={"python": platform.python_version(), "fourfold": _fourfold_version()}
        | {name: installed_version(name) for name in VERSIONED_PACKAGES},
    )


def _git_state() -> tuple[str, bool]:
    """Return commit and dirty flag of the checkout that this code runs from; a wheel has none."""
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # A wheel installed inside another repository must not claim that repository's commit.
        if git("rev-parse", "--show-toplevel") != str(folder):
            return "none (not a git checkout)", False
        return git("rev-parse", "HEAD") or "none (no commit yet)", bool(git("status", "--porcelain"))
    except (OSError, subprocess.TimeoutExpired):
        return "unknown (git did not answer)", False


def cpu_name() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def installed_version(package: str) -> str:
    """Return the version of a package, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _fourfold_version() -> str:
    """Return the version of the installed distribution, else of the checkout's pyproject.toml."""
    installed = installed_version("fourfold")
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    # A source tree that was never installed has no metadata, but a pyproject.toml.
    if installed != "not installed" or not project.is_file():
        return installed
    import tomllib

    return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
