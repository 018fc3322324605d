"""The packaged recipes, YAML files by kind and name: `demo` -> .../suites/demo.yaml. For every command alike.

They lie in `yaml/` of a checkout and in `benchmarks/recipes/` of a wheel. Imports nothing heavy.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipelines.base.errors import UsageError
from pipelines.base.paths import expanded

__all__ = ["RecipeKind", "completing", "find_recipe", "recipe_names"]

RecipeKind = Literal["suites", "pretrain", "pipelines", "profiles", "shards"]

WHAT: dict[RecipeKind, str] = {
    "suites": "suite",
    "pretrain": "pretraining",
    "pipelines": "pipeline",
    "profiles": "profile",
    "shards": "shard settings",
}


def find_recipe(given: str | Path, *kinds: RecipeKind, or_give: str = "") -> Path:
    """Return the path as given if there is such a file, else the packaged recipe of that name.

    Kinds are searched in the order given. Raises UsageError that lists the names of these kinds; `or_give` says what
    else the caller accepts.
    """
    path = Path(expanded(str(given)))
    # A file wins over a name; a folder does not: after `fourfold demo`, ./demo exists and `bench plan demo` must work.
    if path.is_file():
        return path
    packaged = _packaged(*kinds)
    if str(given) in packaged:
        return packaged[str(given)]
    what = " or ".join(WHAT[kind] for kind in kinds)
    choices = ["a YAML file", *([or_give] if or_give else []), f"one of: {', '.join(packaged) or 'none'}"]
    raise UsageError(f"{given}: no such {what}. Give {', '.join(choices[:-1])}, or {choices[-1]}.")


def recipe_names(*kinds: RecipeKind) -> list[str]:
    """Return the names of the packaged recipes, sorted within each kind."""
    return list(_packaged(*kinds))


def completing(*kinds: RecipeKind) -> Callable[[str], list[str]]:
    """Return a function for Typer's `autocompletion`: what was typed -> names that start with it.

    Where none does, the shell completes file names.
    """

    def names(incomplete: str) -> list[str]:
        return [name for name in recipe_names(*kinds) if name.startswith(incomplete)]

    return names


def _packaged(*kinds: RecipeKind) -> dict[str, Path]:
    package = Path(__file__).resolve().parent
    # The wheel's folder first: beside an installed package, `yaml` is PyYAML.
    root = next((folder for folder in (package / "recipes", package.parent / "yaml") if folder.is_dir()), package)
    files = [file for kind in kinds for file in sorted((root / kind).glob("*.yaml"))]
    # Reversed, so that of two equal names that of the first kind stays.
    by_name = {file.stem: file for file in reversed(files)}
    return dict(reversed(by_name.items()))
