"""What holds across files: imports go one way and have no side effects; the registries agree with everything else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.profile.config import ProfileConfig
from benchmarks.suite import load_suite
from pipelines.build import PipelineConfig
from pipelines.config import load_config
from pipelines.shards.build import BuildConfig
from pipelines.tasks import PRETEXT_TASKS, TASKS
from training.config import PretrainConfig
from training.heads import HEADS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipelines", "training", "benchmarks")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
RECIPES = sorted((ROOT / "yaml").rglob("*.yaml"))
CONFIGS = {
    "shards": BuildConfig,
    "pipelines": PipelineConfig,
    "pretrain": PretrainConfig,
    "profiles": ProfileConfig,
}
# A heavy or optional package may be imported by the files named here and by no other.
ONLY_IN = {
    "nvidia": {"pipelines/backends/dali.py", "pipelines/backends/dali_flow.py", "benchmarks/throughput/with_dali.py"},
    "plotly": {"benchmarks/report/charts.py"},
    "ray": {"benchmarks/executors/ray.py", "pipelines/shards/engine_ray.py"},
    "datasets": {"pipelines/shards/hf_dataset.py"},
    "webdataset": {
        "benchmarks/profile/loaders/webdataset_tars.py",
        "benchmarks/shards_contenders.py",
        "benchmarks/throughput/plain_loaders.py",
    },
    "litdata": {"benchmarks/profile/loaders/litdata_chunks.py"},
    "spdl": {"benchmarks/profile/loaders/spdl_files.py", "benchmarks/throughput/with_spdl.py"},
    "streaming": {"benchmarks/profile/loaders/mosaic_streaming.py"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    own = PACKAGES.index(relative(path).split("/")[0])
    later = set(PACKAGES[own + 1 :]) | {"tests"}
    assert not {name for name in imported(path) if name.split(".")[0] in later}


@pytest.mark.parametrize("package", ONLY_IN)
def test_optional_packages_are_imported_in_one_place(package: str) -> None:
    users = {relative(path) for path in SOURCES if any(name.split(".")[0] == package for name in imported(path))}
    assert users <= ONLY_IN[package]


def test_importing_everything_starts_no_thread_touches_no_gpu_configures_no_logging() -> None:
    modules = sorted(relative(path)[:-3].replace("/", ".").removesuffix(".__init__") for path in SOURCES)
    program = f"""
import logging, sys, threading
before = threading.active_count(), list(logging.getLogger().handlers), logging.getLogger().level
import importlib
for name in {modules!r}:
    importlib.import_module(name)
assert (threading.active_count(), list(logging.getLogger().handlers), logging.getLogger().level) == before
import torch
assert not torch.cuda.is_initialized()
for name in ("nvidia.dali", "plotly", "ray", "tensorboard"):
    assert name not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_torch() -> None:
    program = (
        "import sys; import benchmarks.cli; print([n for n in ('torch', 'cv2', 'av', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_grab_bags() -> None:
    names = {path.stem for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_yaml_folder_is_no_package() -> None:
    assert not list((ROOT / "yaml").rglob("__init__.py"))


def test_every_task_has_its_files() -> None:
    in_tasks = {path.stem for path in (ROOT / "pipelines" / "tasks").glob("*.py")} - {"__init__", "base"}
    in_heads = {path.stem for path in (ROOT / "training" / "heads").glob("*.py")} - {"__init__", "base", "units"}
    assert set(TASKS) == in_tasks == in_heads == set(HEADS)
    assert all(name == task.name for name, task in TASKS.items())
    assert all(name == head.name for name, head in HEADS.items())


def test_every_pretext_task_stands_in_the_readme_table() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == list(PRETEXT_TASKS)


def test_every_pretext_task_is_used_by_a_recipe() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in RECIPES)
    assert [name for name in PRETEXT_TASKS if name not in text] == []


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe_starts_with_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))]
    assert len(comment) >= 3
    assert len(" ".join(comment)) > 150


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe_loads(path: Path) -> None:
    kind = path.parent.name
    if kind == "suites":
        assert load_suite(path).config.depths
        return
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    needed = {"sources": ["photos"], "out": "shards"} if kind == "shards" else {}
    missing = [f"{name}={given}" for name, given in needed.items() if name not in value]
    assert load_config(CONFIGS[kind], path, missing) is not None


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    assert ast.get_docstring(ast.parse(text)), "a module says in its docstring what goes in and what comes out"
