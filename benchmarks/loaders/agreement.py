"""Check that a loader makes the right tensors, every sample once. All samples of a pass are looked at."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from benchmarks.loaders.setting import Batch, Finish, Setting, finish_of
from pipelines.base.errors import DataError
from pipelines.targets.color.lab import ab_bins

__all__ = ["TOLERANCES", "Agreement", "Difference", "check_pass", "difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Absolute differences of a tensor: mean of all samples, mean of the worst sample, worst single value."""

    mean: float
    sample: float
    value: float


TOLERANCES = {
    "canvas": Difference(mean=0.75, sample=2.5, value=96),
    "inputs": Difference(mean=0.75, sample=2.5, value=32),
    "bins": Difference(mean=0.5, sample=2.5, value=32),
    "bin_weights": Difference(mean=0.02, sample=0.1, value=0.6),
    "weight": Difference(mean=0.002, sample=1, value=1),
}
"""Largest allowed, by tensor. Levels of 255 for pixels; for bins the distance of the nearest bin's color in
units of ab. Decoders differ in how they enlarge chroma, which is seen at colored edges, and resizes in how they round;
`weight` is 0 or 1 for a whole image, and an image at the threshold of what counts as gray may fall to either side."""


@dataclass(slots=True)
class Agreement:
    """Differences from the reference. means and values: by tensor, one number for every sample."""

    means: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)

    def add(self, batch: Batch, expected: dict[str, torch.Tensor]) -> None:
        """Add a batch's differences from `expected`. Raises DataError for other tensors, shapes, dtypes or devices."""
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
            apart = difference(name, found, want).flatten(1)
            self.means.setdefault(name, []).extend(apart.mean(1).tolist())
            self.values.setdefault(name, []).extend(apart.amax(1).tolist())

    def check(self, num_samples: int) -> dict[str, dict[str, float]]:
        """Return differences by tensor. Raises DataError beyond a tolerance, or unless every sample came once."""
        counts = np.bincount(self.rows, minlength=num_samples)
        if len(counts) != num_samples or (counts != 1).any():
            raise DataError(
                f"a pass gave {len(self.rows)} samples, {int((counts[:num_samples] == 1).sum())} of "
                f"{num_samples} exactly once; need each once"
            )
        found = {name: self._of(name) for name in self.means}
        for name, differences in found.items():
            for what, limit in asdict(TOLERANCES[name]).items():
                if not differences[what] <= limit:  # also refuses NaN
                    raise DataError(f"{name}: {what} difference {differences[what]:.3g}; at most {limit} is allowed")
        return found

    def _of(self, name: str) -> dict[str, float]:
        means = self.means[name]
        return asdict(Difference(mean=float(np.mean(means)), sample=max(means), value=max(self.values[name])))


def check_pass(batches: Iterable[Batch], setting: Setting) -> dict[str, dict[str, float]]:
    """Compare a whole pass with the reference. Raises DataError."""
    reference_NHW3 = setting.reference()
    finish: Finish = finish_of(setting.make, setting.canvas_px)
    agreement = Agreement()
    for batch in batches:
        # A negative row would pass as one counted from the end.
        if not all(0 <= row < len(reference_NHW3) for row in batch.rows):
            raise DataError(f"gave samples {batch.rows}; there are {len(reference_NHW3)}")
        agreement.add(batch, finish(torch.from_numpy(reference_NHW3[batch.rows])))
        # By the number of samples: a loader that repeats one of them lacks another, which `check` then finds.
        if len(agreement.rows) >= len(reference_NHW3):
            break
    return agreement.check(len(reference_NHW3))


def difference(kind: str, found: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """Return absolute differences, float32: "inputs" in levels of 255, "bins" (B, K, h, w) by the first one's color."""
    if kind == "bins":
        # Neighbouring bins are nearly one color: the difference of their numbers would say nothing.
        colors = torch.tensor(ab_bins())
        found, want = colors[found[:, 0]], colors[want[:, 0]]
    return found.to(torch.float32).sub(want.to(torch.float32)).abs().mul(255 if kind == "inputs" else 1)
