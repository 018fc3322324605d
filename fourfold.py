"""Start the `fourfold` command, or say in one line what hides its packages.

This file has a name that nobody else uses. `pipelines`, `training` and `benchmarks` are names that a user's own folders
may have, and Python takes the first folder of that name on its path. Nothing of ours can be imported before that is
checked, so this module imports only the standard library.
"""

import importlib.util
import os
import sys
from pathlib import Path

__all__ = ["main"]

OWN_FILES = {
    "pipelines": "pipeline_config.py",
    "training": "run_folder.py",
    "benchmarks": "recipe_files.py",
}
"""One file of each package that no other package of that name would have."""


def main() -> None:
    """Run the command line and exit with its code; 2 where another folder or package hides one of ours."""
    for name, file in OWN_FILES.items():
        if (problem := _problem(name, file)) is not None:
            sys.exit(_say(problem))
    try:
        from benchmarks.cli.app import main as run
    except ImportError as error:
        if os.environ.get("FOURFOLD_DEBUG") == "1":
            raise
        sys.exit(_say(f"cannot start: {error}. Install it again: pip install --force-reinstall fourfold"))
    run()


def _say(problem: str) -> int:
    print(f"fourfold: {problem}", file=sys.stderr)
    return 2


def _problem(name: str, file: str) -> str | None:
    """What is wrong with the package that Python finds by this name; None if it is ours."""
    # Looks along sys.path and runs no code of what it finds.
    spec = importlib.util.find_spec(name)
    places = [Path(place) for place in (spec.submodule_search_locations or [spec.origin or ""])] if spec else []
    if any((place / file).is_file() for place in places):
        return None
    if not places:
        return f"its package {name} is missing. Install it again: pip install --force-reinstall fourfold"
    return (
        f"{places[0]} hides fourfold's own package of that name, because {_why_first(places[0])}. Rename that folder, "
        "start fourfold elsewhere, or install it in an environment of its own."
    )


def _why_first(place: Path) -> str:
    folder = place.resolve().parent
    in_variable = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if folder in [Path(part).resolve() for part in in_variable]:
        return "PYTHONPATH names the folder around it"
    if folder == Path.cwd().resolve():
        return "it lies in the current folder"
    return f"{folder} comes first on Python's path"


if __name__ == "__main__":
    main()
