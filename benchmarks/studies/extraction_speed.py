"""How much of the bare forward pass is left when features are extracted: decoding, pooling and writing included.

Both sides run the same trunk on the same images in one process, in turns; the bare side finds its batches in memory as
float32 and keeps nothing. Wall time tells what a user waits for where a core is free to decode; CPU time, which other
work on the machine changes little, tells what decoding, pooling and writing add.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch

from benchmarks.evaluations.features.extract import FeatureFile, image_inputs, write_features
from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.harness.study import Study
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import turns
from pipelines.base.errors import FourfoldError
from pipelines.shards.format.manifest import load_manifest
from training.parallel import choose_device, cpu_threads
from training.trunk import Trunk, TrunkConfig

__all__ = ["STUDY", "ExtractionOptions", "measure"]

LIMIT_RATIO = 0.95


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionOptions:
    images: Annotated[Path, "folder of shards with images"]
    split: Annotated[str, "split to extract"] = "test"
    depth: Annotated[int, "depth of the trunk"] = 18
    width: Annotated[float, "width of the trunk"] = 0.25
    canvas_px: Annotated[int, "side of the canvas"] = 96
    batch_size: Annotated[int, "images of a batch"] = 64
    num_repeats: Annotated[int, "turns of each side"] = 5
    num_threads: Annotated[int, "CPU threads of the forward pass"] = 1


def measure(options: ExtractionOptions) -> dict[str, Any]:
    """Return images per second of both sides, and extraction divided by the bare pass, by wall and by CPU time."""
    device = choose_device("auto")
    table = load_manifest(options.images).select("image", options.split)
    torch.manual_seed(0)
    trunk = Trunk(TrunkConfig(depth=options.depth, width=options.width)).to(device).eval()
    trunk.to(memory_format=torch.channels_last)
    sizes = {"canvas_px": options.canvas_px, "batch_size": options.batch_size}
    with cpu_threads(options.num_threads), temporary_folder() as folder, torch.no_grad():
        batches = list(image_inputs(options.images, options.split, **sizes, device=device))

        def extraction() -> None:
            with (folder / "rows").open("wb") as file:
                target = FeatureFile(file=file, unit=trunk.num_units - 1, is_flipped=False, pooling="max", pool=3)
                write_features(trunk, table, [target], **sizes)
            _wait(device)

        def bare() -> None:
            for batch in batches:
                trunk(batch)
            _wait(device)

        seconds = _seconds({"extraction": extraction, "bare": bare}, options.num_repeats)
        num_bytes = (folder / "rows").stat().st_size
    if num_bytes != len(table) * trunk.num_channels * 9 * 4:
        raise FourfoldError(f"extraction wrote {num_bytes} bytes for {len(table)} images; there is nothing to compare")
    return {
        "device": str(device),
        "num_images": len(table),
        **{clock: _compared(found, len(table)) for clock, found in seconds.items()},
        "limit_ratio": LIMIT_RATIO,
    }


def _seconds(jobs: dict[str, Callable[[], None]], num_repeats: int) -> dict[str, dict[str, list[float]]]:
    """Return seconds by clock and job, one number for each repeat."""
    found: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in jobs} for clock in ("wall", "cpu")}
    for repeat, name in turns(jobs, num_repeats, num_warm_up=1):
        before_s = time.perf_counter(), time.process_time()
        jobs[name]()
        taken_s = time.perf_counter() - before_s[0], time.process_time() - before_s[1]
        if repeat >= 0:
            for clock, one in zip(found, taken_s, strict=True):
                found[clock][name].append(one)
    return found


def _compared(seconds: dict[str, list[float]], num_images: int) -> dict[str, Any]:
    images_per_s = {name: spread_of([num_images / one for one in values]) for name, values in seconds.items()}
    # Images per second of extraction, divided by those of the bare pass.
    ratio = ratio_spread(seconds["bare"], seconds["extraction"])
    return {
        "images_per_s": {name: dataclasses.asdict(one) for name, one in images_per_s.items()},
        "ratio": dataclasses.asdict(ratio),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _lines(results: dict[str, Any]) -> Iterator[str]:
    for clock in ("wall", "cpu"):
        found = results[clock]
        rates = {name: one["median"] for name, one in found["images_per_s"].items()}
        yield (
            f"{clock} time: extraction {rates['extraction']:.0f} images/s, bare forward pass {rates['bare']:.0f}, "
            f"ratio {found['ratio']['median']:.3f} (at least {results['limit_ratio']})"
        )


STUDY = Study(
    module="benchmarks.studies.extraction_speed",
    kind="extraction_speed",
    label="features extracted, beside the bare forward pass",
    description=__doc__,
    options=ExtractionOptions,
    measure=measure,
    lines=_lines,
    packages=("torch", "timm", "opencv-python-headless"),
)

if __name__ == "__main__":
    STUDY.main()
