"""What holds across files: imports go one way and have no side effects; the registries agree with everything else."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from benchmarks.profile.profile_config import ProfileConfig
from benchmarks.suite.suite_config import load_suite
from pipelines.base.config import load_config
from pipelines.build import PipelineConfig
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
    "nvidia": {
        "pipelines/decode/dali.py",
        "pipelines/decode/dali_flow.py",
    },
    "matplotlib": {"benchmarks/results/charts/figure.py"},
    "ray": {"benchmarks/suite/executors/ray.py", "pipelines/shards/making/engine_ray.py"},
    "datasets": {"pipelines/shards/sources/hf_dataset.py"},
    "webdataset": {
        "benchmarks/loaders/contenders/torch_peers.py",
        "benchmarks/studies/shards/build_contenders.py",
    },
    "litdata": {"benchmarks/loaders/contenders/torch_peers.py"},
    "spdl": {"benchmarks/loaders/contenders/spdl.py"},
    "streaming": {"benchmarks/loaders/contenders/torch_peers.py"},
}


# Folders (and modules) of `pipelines`, lowest first: each imports from those before it and from itself only.
LAYERS = (
    "kernels",
    "base",
    "shards.format",
    "shards.sources",
    "shards.media",
    "shards.making",
    "shards.dry_run",
    "shards.tools",
    "shards.adopting",
    "shards.build",
    "read",
    "decode",
    "targets",
    "tasks",
    "pipeline_config",
    "run",
    "build",
    "preview",
    "config",
    "backends",
)
# Below `shards.format`, reading shards must not know how they are made.
READS_SHARDS_ONLY = ("read", "decode", "targets", "tasks", "pipeline_config", "run", "build", "preview")
MOST_FILES = 18


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


def module_of(path: Path) -> str:
    return relative(path)[:-3].replace("/", ".").removesuffix(".__init__")


def layer_of(module: str) -> str | None:
    """The longest layer that a module of `pipelines` lies in; None for `pipelines`, `pipelines.shards`."""
    inside = module.removeprefix("pipelines.")
    found = [layer for layer in LAYERS if inside == layer or inside.startswith(f"{layer}.")]
    return max(found, key=len, default=None)


@pytest.mark.parametrize("path", [path for path in SOURCES if layer_of(module_of(path))], ids=relative)
def test_folders_of_pipelines_import_one_way(path: Path) -> None:
    own = layer_of(module_of(path))
    used = {layer_of(name) for name in imported_modules(path) if name.startswith("pipelines.")} - {None}
    assert not {layer for layer in used if LAYERS.index(layer) > LAYERS.index(own)}
    if own in READS_SHARDS_ONLY:
        assert not {layer for layer in used if layer.startswith("shards.") and layer != "shards.format"}


# Folders of `benchmarks` that others stand on, and what they may import of it.
MEASURING_LAYERS = {
    "harness": {"results", "harness"},
    "loaders": {"results", "harness", "loaders"},
}


@pytest.mark.parametrize("folder", MEASURING_LAYERS)
def test_the_harness_knows_nothing_that_is_measured_with_it(folder: str) -> None:
    paths = [path for path in SOURCES if relative(path).startswith(f"benchmarks/{folder}/")]
    used = {name.split(".")[1] for path in paths for name in imported_modules(path) if name.startswith("benchmarks.")}
    assert used <= MEASURING_LAYERS[folder]


def test_every_module_of_pipelines_has_a_layer() -> None:
    modules = {module_of(path) for path in SOURCES if relative(path).startswith("pipelines/")}
    assert {name for name in modules if layer_of(name) is None} == {"pipelines", "pipelines.shards"}


def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file imports, also inside functions: `from a import b` means a.b where that is a file."""
    modules, names = {module_of(other) for other in SOURCES}, set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {
                full if (full := f"{node.module}.{alias.name}") in modules else node.module for alias in node.names
            }
    return (names & modules) - {module_of(path)}


def test_no_import_cycle() -> None:
    """TopologicalSorter raises CycleError, which names the files of the cycle."""
    graph = {module_of(path): imported_modules(path) for path in SOURCES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(SOURCES)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(path: Path) -> tuple[set[str], set[str]]:
    """Names with a leading underscore: those a file defines, and those it takes from others (not from self or cls)."""
    defined, taken = set[str](), set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (defined if is_own and isinstance(node.ctx, ast.Store) else set() if is_own else taken).add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            taken |= {alias.name for alias in node.names}
    return set(filter(private, defined)), set(filter(private, taken))


def test_nothing_private_is_used_across_packages() -> None:
    """A name counts as ours if another of the three packages defines it; `os._exit` and `_replace` are not."""
    names = {path: private_names(path) for path in SOURCES}
    for path, (defined, taken) in names.items():
        others = [one for one in SOURCES if relative(one).split("/")[0] != relative(path).split("/")[0]]
        foreign = set[str]().union(*(names[other][0] for other in others))
        assert not (taken - defined) & foreign, relative(path)


def test_nothing_but_the_command_line_imports_the_command_line() -> None:
    outside = [path for path in SOURCES if not relative(path).startswith("benchmarks/cli/")]
    assert [relative(path) for path in outside if any("benchmarks.cli" in name for name in imported(path))] == []


def test_folders_are_small_and_say_what_they_are_for() -> None:
    for folder in sorted({path.parent for path in SOURCES}):
        assert len(list(folder.glob("*.py"))) <= MOST_FILES, relative(folder)
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert docstring, f"{relative(folder)}/__init__.py: say what comes in and what goes out"


def test_the_page_of_the_architecture_prints_the_tree() -> None:
    """Every folder of the sources stands in the tree of docs/architecture.md; every folder of that tree exists."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parents: list[str] = []
    printed = set()
    for line in page.partition("```text\n")[2].partition("```")[0].splitlines():
        name, _, purpose = line.strip().partition("/")
        parents[(len(line) - len(line.lstrip())) // 2 :] = [name]
        assert purpose.strip(), f"{line}: say in one line what the folder is for"
        printed.add("/".join(parents))
    assert [folder for folder in sorted(printed) if not (ROOT / folder).is_dir()] == []
    assert sorted({relative(path.parent) for path in SOURCES} - printed) == []


def test_the_page_of_the_architecture_names_paths_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:pipelines|training|benchmarks|tests)/[\w/.]*)`", page)
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(named) > 30


def test_tests_mirror_the_sources() -> None:
    for folder in sorted({path.parent for path in (ROOT / "tests").rglob("test_*.py")} - {ROOT / "tests"}):
        assert (ROOT / folder.relative_to(ROOT / "tests")).is_dir(), relative(folder)


@pytest.mark.parametrize("package", ONLY_IN)
def test_optional_packages_are_imported_in_one_place(package: str) -> None:
    users = {relative(path) for path in SOURCES if any(name.split(".")[0] == package for name in imported(path))}
    assert users <= ONLY_IN[package]


def test_importing_everything_starts_no_thread_touches_no_gpu_configures_no_logging() -> None:
    modules = sorted(module_of(path) for path in SOURCES)
    program = f"""
import logging, sys, threading
before = threading.active_count(), list(logging.getLogger().handlers), logging.getLogger().level
import importlib
for name in {modules!r}:
    importlib.import_module(name)
assert (threading.active_count(), list(logging.getLogger().handlers), logging.getLogger().level) == before
import torch
assert not torch.cuda.is_initialized()
for name in ("nvidia.dali", "matplotlib", "ray", "tensorboard"):
    assert name not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_torch() -> None:
    program = (
        "import sys; import benchmarks.cli.app; print([n for n in ('torch', 'cv2', 'av', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_grab_bags() -> None:
    names = {path.stem for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_yaml_folder_is_no_package() -> None:
    assert not list((ROOT / "yaml").rglob("__init__.py"))


def test_every_task_has_its_files() -> None:
    shared = {"__init__", "base", "target_cache"}
    in_tasks = {path.stem for path in (ROOT / "pipelines" / "tasks").glob("*.py")} - shared
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
