"""Check that a loader makes the right canvases, every sample once. All samples of a pass are looked at."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from benchmarks.loaders.setting import Batch, Setting
from pipelines.base.errors import DataError

__all__ = ["TOLERANCE", "Agreement", "Difference", "check_pass"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Absolute differences in levels of 255: mean of all samples, mean of the worst sample, worst single value."""

    mean: float
    sample: float
    value: float


TOLERANCE = Difference(mean=0.75, sample=2.5, value=96)
"""Largest allowed. Decoders differ in how they enlarge chroma, which is seen at colored edges, and resizes in how they
round."""


@dataclass(slots=True)
class Agreement:
    """Differences from the reference. means and values: one number for every sample of `rows`."""

    means: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def add(self, batch: Batch, expected: torch.Tensor) -> None:
        """Add a batch's differences from `expected`. Raises DataError for another shape, dtype or device."""
        found = batch.canvases
        if (found.shape, found.dtype, found.device) != (expected.shape, expected.dtype, expected.device):
            raise DataError(
                f"makes {tuple(found.shape)} {found.dtype} on {found.device}; "
                f"need {tuple(expected.shape)} {expected.dtype} on {expected.device}"
            )
        apart = found.to(torch.float32).sub(expected.to(torch.float32)).abs().flatten(1)
        self.rows += batch.rows
        self.means += apart.mean(1).tolist()
        self.values += apart.amax(1).tolist()

    def check(self, num_samples: int) -> dict[str, float]:
        """Return the differences. Raises DataError beyond the tolerance, or unless every sample came once."""
        counts = np.bincount(self.rows, minlength=num_samples)
        if len(counts) != num_samples or (counts != 1).any():
            raise DataError(
                f"a pass gave {len(self.rows)} samples, {int((counts[:num_samples] == 1).sum())} of "
                f"{num_samples} exactly once; need each once"
            )
        found = asdict(Difference(mean=float(np.mean(self.means)), sample=max(self.means), value=max(self.values)))
        for what, limit in asdict(TOLERANCE).items():
            if found[what] > limit:
                raise DataError(f"{what} difference {found[what]:.3g}; at most {limit} is allowed")
        return found


def check_pass(batches: Iterable[Batch], setting: Setting) -> dict[str, float]:
    """Compare a whole pass with the reference. Raises DataError."""
    reference_NSS3 = setting.reference()
    agreement = Agreement()
    for batch in batches:
        # A negative row would pass as one counted from the end.
        if not all(0 <= row < len(reference_NSS3) for row in batch.rows):
            raise DataError(f"gave samples {batch.rows}; there are {len(reference_NSS3)}")
        agreement.add(batch, torch.from_numpy(reference_NSS3[batch.rows]))
        # By the number of samples: a loader that repeats one of them lacks another, which `check` then finds.
        if len(agreement.rows) >= len(reference_NSS3):
            break
    return agreement.check(len(reference_NSS3))
