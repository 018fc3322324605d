"""The order of 40 samples and the geometry of ten, as numbers: written to golden_geometry.json by

    python -m tests.made.golden_geometry

which is right only where a change of the numbers is meant: it gives every run of the same seed other crops and targets.
Say so in the CHANGELOG.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.base.rng import rng_for
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.tasks import Geometry, Task
from tests.made.pictures import stored_clips, stored_images, write_folder

PATH = Path(__file__).with_suffix(".json")
SEED = 7
NUM_SAMPLES = 10
TASKS = {"relative_position": {}, "colorization": {}, "exemplar": {}, "motion_segmentation": {"num_threads": 1}}
COMMON = ("box", "flip", "label")


def compute(folder: Path) -> dict[str, Any]:
    """Keys in order, and by task the geometry of the first ten samples, floats rounded to 6 digits."""
    write_folder(folder, stored_images(23) + stored_clips(5, num_frames=4), per_shard=4)
    config = PipelineConfig(
        images=folder, clips=folder, tasks=TASKS, canvas_px=64, clip_height_px=48, clip_width_px=64, num_frames=4,
        batch_size=NUM_SAMPLES, clip_batch_size=2, num_threads=1, window_shards=3,
    )  # fmt: skip
    keys: dict[str, list[str]] = {"image": [], "clip": []}
    geometry: dict[str, Any] = {}
    with build_pipeline(config, seed=SEED) as pipeline:
        for _ in range(4):
            batches = next(pipeline).batches
            keys["image"] += batches["colorization"].keys
            keys["clip"] += batches["motion_segmentation"].keys
            if not geometry:
                geometry = {name: _drawn(pipeline.tasks[name], batch.geometry) for name, batch in batches.items()}
    return {"keys": keys, "geometry": geometry}


def _drawn(task: Task, geometry: Geometry) -> dict[str, Any]:
    """What was drawn before there were pixels; tasks may add to it what they saw in them."""
    drawn = task.draw(rng_for(0, 0, "", task.name))
    return {name: _rounded(geometry[name]).tolist() for name in sorted([*drawn, *COMMON]) if name in geometry}


def _rounded(values: Any) -> Any:
    return np.round(values.astype(np.float64), 6) if values.dtype.kind == "f" else values


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        golden = compute(Path(folder) / "shards")
    PATH.write_text(json.dumps(golden, indent=None).replace('}, "', '},\n"').replace(']], "', ']],\n"') + "\n")
    print(f"wrote {PATH}: a change of these numbers changes every run; say so in the CHANGELOG")


if __name__ == "__main__":
    main()
