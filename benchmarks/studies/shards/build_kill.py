"""A build of shards killed at random moments, started again each time: is the result that of an unbroken build?

    python -m benchmarks.studies.shards.build_kill --kills 20

Small images are made in a temporary folder. Exit code 1 if a byte differs, or if anything partial was ever seen under
a final name.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

__all__ = ["KillResult", "kill_again_and_again", "main", "write_small_images"]

BUILD = """
import sys
from pipelines.shards import build
build.SMALL_ITEMS = 0  # worker processes, as in a large build
config = build.BuildConfig(sources=[sys.argv[1]], out=sys.argv[2], samples_per_shard=int(sys.argv[3]), num_workers=2)
build.build_shards(config)
"""
POLL_S = 0.02
MAX_RUNS_PER_KILL = 10


@dataclass(slots=True, kw_only=True)
class KillResult:
    """num_kills: builds that were killed while they ran; num_finished: those that were faster than their end."""

    num_kills: int = 0
    num_finished: int = 0
    problems: list[str] = field(default_factory=list)


def write_small_images(folder: Path, count: int, *, side_px: int = 96, num_classes: int = 10) -> None:
    """JPEGs of some kB in class folders; 200 different pictures, the same ones every time."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(min(200, count)):
        smooth = cv2.resize(
            rng.integers(0, 256, (6, 6, 3), np.uint8), (side_px, side_px), interpolation=cv2.INTER_CUBIC
        )
        noisy = smooth.astype(np.int64) + rng.integers(-12, 13, smooth.shape)
        pictures.append(cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8))[1].tobytes())
    for number in range(num_classes):
        (folder / f"class{number:03d}").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"class{index % num_classes:03d}" / f"{index:08d}.jpg"
        path.write_bytes(pictures[index % len(pictures)])


def kill_again_and_again(
    folder: Path, *, num_kills: int, num_images: int = 20_000, samples_per_shard: int = 100, seed: int = 0
) -> KillResult:
    """Build unbroken into `folder`/whole, then into `folder`/broken with that many kills, and compare."""
    images, whole, broken = folder / "images", folder / "whole", folder / "broken"
    write_small_images(images, num_images)
    start_s = time.monotonic()
    _start(images, whole, samples_per_shard).wait()
    whole_s = time.monotonic() - start_s
    want, rng, result = _digests(whole), random.Random(seed), KillResult()
    for _ in range(MAX_RUNS_PER_KILL * num_kills):
        if result.num_kills == num_kills:
            break
        is_killed = _run_for(rng.uniform(0, whole_s), images, broken, samples_per_shard, want, result.problems)
        result.num_kills += is_killed
        result.num_finished += not is_killed
        if not is_killed:  # nothing is left to kill: begin again
            result.problems += _differences(want, broken, is_finished=True)
            subprocess.run(["rm", "-r", str(broken)], check=True)
    if _start(images, broken, samples_per_shard).wait() != 0:
        result.problems.append("the last build, which nobody killed, failed")
    result.problems += _differences(want, broken, is_finished=True)
    return result


def _start(images: Path, out: Path, samples_per_shard: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", BUILD, str(images), str(out), str(samples_per_shard)]
    return subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3], stderr=subprocess.DEVNULL)


def _run_for(
    seconds: float, images: Path, out: Path, samples_per_shard: int, want: dict[str, str], problems: list[str]
) -> bool:
    """Whether the build was still running after this time, and so was killed."""
    process = _start(images, out, samples_per_shard)
    end_s = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end_s:
        time.sleep(min(POLL_S, max(0.0, end_s - time.monotonic())))
    if process.poll() is not None:
        if process.returncode != 0:
            problems.append(f"a build that nobody killed ended with {process.returncode}")
        return False
    process.kill()
    process.wait()
    problems += _differences(want, out, is_finished=False)
    return True


def _differences(want: dict[str, str], out: Path, *, is_finished: bool) -> list[str]:
    found = _digests(out)
    different = [f"{name}: not what an unbroken build makes" for name in found if found[name] != want.get(name)]
    missing = [f"{name}: missing" for name in want if name not in found] if is_finished else []
    return different + missing


def _digests(folder: Path) -> dict[str, str]:
    """Of all files under a final name."""
    paths = [path for path in folder.glob("*") if path.is_file() and not path.name.endswith(".tmp")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_again_and_again(
            Path(folder), num_kills=options.kills, num_images=options.images, seed=options.seed
        )
    print(f"{result.num_kills} kills, {result.num_finished} builds that finished before; the last one ran to its end")
    print("\n".join(result.problems) or "the result is byte-identical, and nothing partial was seen")
    sys.exit(1 if result.problems else 0)


if __name__ == "__main__":
    main()
