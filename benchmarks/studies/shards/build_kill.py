"""Kill a build of shards at random moments, start it again each time, and compare with an unbroken build.

    python -m benchmarks.studies.shards.build_kill --kills 20

Small images are made in a temporary folder. Exit code 1 if a byte differs, or if anything partial was ever seen under
a final name.
"""

import hashlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np

from benchmarks.harness.child import start_python
from benchmarks.harness.study import Study
from benchmarks.harness.temporary import temporary_folder

__all__ = ["STUDY", "KillOptions", "KillResult", "build", "kill_again_and_again", "write_small_images"]

POLL_S = 0.02
MAX_RUNS_PER_KILL = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class KillOptions:
    """Number of kills, and what is built."""

    num_kills: Annotated[int, "builds to kill"] = 20
    num_images: Annotated[int, "small images to build shards of"] = 20_000
    seed: Annotated[int, "of the moments"] = 0


@dataclass(slots=True, kw_only=True)
class KillResult:
    """num_kills: builds that were killed while they ran; num_finished: builds that ended before they were killed."""

    num_kills: int = 0
    num_finished: int = 0
    problems: list[str] = field(default_factory=list)


def write_small_images(folder: Path, count: int, *, side_px: int = 96, num_classes: int = 10) -> None:
    """Write JPEGs of some kB in class folders; 200 different pictures, the same ones every time."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(min(200, count)):
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        smooth = cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        noisy = smooth.astype(np.int64) + rng.integers(-12, 13, smooth.shape)
        pictures.append(cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8))[1].tobytes())
    for number in range(num_classes):
        (folder / f"class{number:03d}").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"class{index % num_classes:03d}" / f"{index:08d}.jpg"
        path.write_bytes(pictures[index % len(pictures)])


def build(images: str, out: str, samples_per_shard: int) -> None:
    """Build shards, in a process that may be killed."""
    from pipelines.shards import build as module

    module.SMALL_ITEMS = 0  # worker processes, as in a large build
    config = {"sources": [images], "out": out, "samples_per_shard": samples_per_shard, "num_workers": 2}
    module.build_shards(module.BuildConfig.model_validate(config))


def measure(options: KillOptions) -> dict[str, Any]:
    given = {"num_kills": options.num_kills, "num_images": options.num_images, "seed": options.seed}
    with temporary_folder() as folder:
        return asdict(kill_again_and_again(folder, **given))


def kill_again_and_again(
    folder: Path, *, num_kills: int, num_images: int = 20_000, samples_per_shard: int = 100, seed: int = 0
) -> KillResult:
    """Build unbroken into `folder`/whole, then into `folder`/broken with that many kills, and compare."""
    images, whole, broken = folder / "images", folder / "whole", folder / "broken"
    write_small_images(images, num_images)
    start_s = time.monotonic()
    # 1. Unbroken: it gives the bytes to compare with, and the time within which to kill.
    _start(images, whole, samples_per_shard).wait()
    whole_s = time.monotonic() - start_s
    want, rng, result = _digests(whole), random.Random(seed), KillResult()
    # 2. Killed again and again. Limited, since builds may keep ending before they are killed.
    for _ in range(MAX_RUNS_PER_KILL * num_kills):
        if result.num_kills == num_kills:
            break
        process = _start(images, broken, samples_per_shard)
        # At any moment of a whole build, so that the kills hit every phase of it.
        if is_killed := _killed_after(rng.uniform(0, whole_s), process):
            # After a kill files may be missing, but what stands under a final name must be whole.
            result.problems += _differences(want, broken, is_finished=False)
        else:  # nothing is left to kill: begin again
            if process.returncode != 0:
                result.problems.append(f"a build that was not killed ended with {process.returncode}")
            result.problems += _differences(want, broken, is_finished=True)
            shutil.rmtree(broken)
        result.num_kills += is_killed
        result.num_finished += not is_killed
    # What the last kill left behind must come to the same end, too.
    if _start(images, broken, samples_per_shard).wait() != 0:
        result.problems.append("the last build, which was not killed, failed")
    result.problems += _differences(want, broken, is_finished=True)
    return result


def _start(images: Path, out: Path, samples_per_shard: int) -> "subprocess.Popen[bytes]":
    given = {"images": str(images), "out": str(out), "samples_per_shard": samples_per_shard}
    silent: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return start_python("benchmarks.studies.shards.build_kill:build", given, **silent)


def _killed_after(seconds: float, process: "subprocess.Popen[bytes]") -> bool:
    """Return whether the build was still running after this time, and so was killed."""
    end_s = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end_s:
        # In short steps, so that a build that ends early does not cost the whole time.
        time.sleep(min(POLL_S, max(0.0, end_s - time.monotonic())))
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


def _differences(want: dict[str, str], out: Path, *, is_finished: bool) -> list[str]:
    found = _digests(out)
    # By name and content: a file that is there must be whole, one that is missing is wrong at the end only.
    different = [f"{name}: not what an unbroken build makes" for name in found if found[name] != want.get(name)]
    missing = [f"{name}: missing" for name in want if name not in found] if is_finished else []
    return different + missing


def _digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of all files under a final name."""
    paths = [path for path in folder.glob("*") if path.is_file() and not path.name.endswith(".tmp")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def shown(results: dict[str, Any]) -> Iterator[str]:
    yield f"{results['num_kills']} kills, {results['num_finished']} builds that ended before they were killed"
    yield from results["problems"] or ["the result is byte-identical, and nothing partial was seen"]


STUDY = Study(
    module="benchmarks.studies.shards.build_kill",
    kind="shards_build_kill",
    label="a build killed again and again",
    description=__doc__,
    options=KillOptions,
    measure=measure,
    lines=shown,
    is_failed=lambda results: bool(results["problems"]),
)

if __name__ == "__main__":
    STUDY.main()
