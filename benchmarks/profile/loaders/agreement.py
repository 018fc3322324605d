"""Does a loader make the tensors that it is to make, every sample once? All samples of a pass are looked at."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.profile.loaders.setting import Batch, Setting
from benchmarks.profile.loaders.targets import Finish, finish_of
from pipelines.color import ab_bins
from pipelines.errors import DataError

__all__ = ["TOLERANCES", "Agreement", "check_pass"]

TOLERANCES = {
    "canvas": (0.75, 2.5),
    "inputs": (0.75, 2.5),
    "bins": (0.5, 2.5),
    "bin_weights": (0.02, 0.1),
    "weight": (0.002, 1.0),
}
"""By tensor: largest mean difference over all samples, and of any one sample. Levels of 255 for pixels; for bins the
distance of the nearest bin's color in units of ab. Decoders differ in how they enlarge chroma and resizes in how they
round; `weight` is 0 or 1 for a whole image, and an image at the threshold of what counts as gray may fall to either
side."""


@dataclass(slots=True)
class Agreement:
    """Differences from the reference, by tensor: one mean for every sample."""

    differences: dict[str, list[float]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)

    def add(self, batch: Batch, expected: dict[str, torch.Tensor]) -> None:
        """Raises DataError where a tensor is not of the kind that it should be."""
        if set(batch.tensors) != set(expected):
            raise DataError(f"makes {sorted(batch.tensors)}; need {sorted(expected)}")
        self.rows += batch.rows
        for name, want in expected.items():
            found = batch.tensors[name]
            if (found.shape, found.dtype, found.device) != (want.shape, want.dtype, want.device):
                raise DataError(
                    f"{name}: {tuple(found.shape)} {found.dtype} on {found.device}; "
                    f"need {tuple(want.shape)} {want.dtype} on {want.device}"
                )
            self.differences.setdefault(name, []).extend(_differences(name, found, want))

    def check(self, num_samples: int) -> dict[str, dict[str, float]]:
        """Mean and largest difference by tensor. Raises DataError beyond a tolerance, or unless every sample came
        once."""
        counts = np.bincount(self.rows, minlength=num_samples)
        if len(counts) != num_samples or (counts != 1).any():
            raise DataError(
                f"a pass gave {len(self.rows)} samples, {int((counts[:num_samples] == 1).sum())} of "
                f"{num_samples} exactly once; need each once"
            )
        found = {name: {"mean": float(np.mean(v)), "largest": max(v)} for name, v in self.differences.items()}
        for name, difference in found.items():
            for limit, (what, value) in zip(TOLERANCES[name], difference.items(), strict=True):
                if not value <= limit:
                    raise DataError(f"{name}: {what} difference {value:.3g}, at most {limit} is allowed")
        return found


def check_pass(batches: Iterable[Batch], setting: Setting) -> dict[str, dict[str, float]]:
    """Compare a whole pass with the reference. Raises DataError."""
    reference_NHW3 = setting.reference()
    finish: Finish = finish_of(setting.make, setting.canvas_px)
    agreement = Agreement()
    for batch in batches:
        if not all(0 <= row < len(reference_NHW3) for row in batch.rows):
            raise DataError(f"gave samples {batch.rows}; there are {len(reference_NHW3)}")
        agreement.add(batch, finish(torch.from_numpy(reference_NHW3[batch.rows])))
        if len(agreement.rows) >= len(reference_NHW3):
            break
    return agreement.check(len(reference_NHW3))


def _differences(name: str, found: torch.Tensor, want: torch.Tensor) -> list[float]:
    """Mean absolute difference of each sample."""
    if name == "bins":
        colors = torch.from_numpy(ab_bins())
        found, want = colors[found[:, 0]], colors[want[:, 0]]
    difference = found.to(torch.float32).sub(want.to(torch.float32)).abs()
    means: list[float] = difference.flatten(1).mean(1).mul(255 if name == "inputs" else 1).tolist()
    return means
