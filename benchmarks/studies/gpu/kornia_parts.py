"""Kornia's operations beside our own for a device: how far each is from a reference, and how much time each takes.

    python -m benchmarks.studies.gpu.kornia_parts --out kornia-parts.json

The rule: Kornia's is used unless it is farther from the reference than the tolerance of the task, with products in
TF32 or without, takes more than 1.5 times as long, or copies more than 10 constants a batch from the host, which waits
for each. References are scikit-image, OpenCV and SciPy, or the CPU path where that is what must be met. Timed in turns
on CPU tensors, in CPU seconds, so that other work on the machine counts less; TF32 and copies are those of a GPU, by
device_like.py. No GPU is used.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from benchmarks.harness.spread import ratio_spread
from benchmarks.harness.study import Study, say
from benchmarks.harness.turns import Job, time_in_turns
from benchmarks.studies.gpu.device_like import DeviceLike
from benchmarks.studies.gpu.kornia_operations import Part, parts

__all__ = ["STUDY", "MAX_HOST_COPIES", "MAX_TIME_RATIO", "is_kornia_taken"]

MAX_TIME_RATIO = 1.5
MAX_HOST_COPIES = 10


def is_kornia_taken(difference: float, allowed: float, time_ratio: float, num_host_copies: int = 0) -> bool:
    """Whether the rule takes Kornia's version; `time_ratio`: its time divided by ours, `num_host_copies`: a batch."""
    return difference <= allowed and time_ratio <= MAX_TIME_RATIO and num_host_copies <= MAX_HOST_COPIES


def _differences(part: Part, call: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """Return the difference from the reference, and that with products in TF32."""
    exact = part.difference(call)
    with DeviceLike():
        rounded = call()
    return exact, part.difference(lambda: rounded)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsOptions:
    """Sizes of the comparison."""

    num_pictures: Annotated[int, "of a batch"] = 8
    side_px: Annotated[int, "of a picture"] = 128
    num_repeats: Annotated[int, "turns of each version"] = 7


def measure(options: PartsOptions) -> dict[str, Any]:
    """Return a row for every operation."""
    rows = []
    for part in parts(options.num_pictures, options.side_px):
        jobs = {
            name: Job(unit="call", num_items=1, run=call) for name, call in (("ours", part.ours), ("k", part.kornia))
        }
        timed = time_in_turns(jobs, options.num_repeats, clock=time.process_time)
        ratio = ratio_spread(timed["k"].seconds, timed["ours"].seconds)
        with DeviceLike() as device:
            part.kornia()
        copies = device.num_host_copies * part.num_calls
        kornia, ours = (_differences(part, call) for call in (part.kornia, part.ours))
        taken = is_kornia_taken(max(kornia), part.allowed, ratio.median, copies)
        rows.append(
            {
                "name": part.name,
                "reference": part.reference_name,
                "unit": part.unit,
                "allowed": part.allowed,
                "kornia_difference": kornia[0],
                "kornia_difference_tf32": kornia[1],
                "our_difference": ours[0],
                "our_difference_tf32": ours[1],
                "kornia_host_copies_a_batch": copies,
                "time_ratio": dataclasses.asdict(ratio),
                "kept": "Kornia's" if taken else "ours",
            }
        )
        say(
            f"{part.name}: Kornia {kornia[0]:.2g} ({kornia[1]:.2g} in TF32), ours {ours[0]:.2g} ({ours[1]:.2g}) "
            f"{part.unit} from {part.reference_name}, {part.allowed:.2g} allowed; Kornia takes {ratio.median:.2f} "
            f"times as long and {copies} copies from the host: {rows[-1]['kept']}"
        )
    return {"rows": rows}


STUDY = Study(
    module="benchmarks.studies.gpu.kornia_parts",
    kind="kornia_parts",
    label="Kornia's operations beside our own",
    description=__doc__,
    options=PartsOptions,
    measure=measure,
    constants={"max_time_ratio": MAX_TIME_RATIO, "max_host_copies": MAX_HOST_COPIES},
    packages=("kornia", "scikit-image", "opencv-python-headless", "scipy"),
)

if __name__ == "__main__":
    STUDY.main()
