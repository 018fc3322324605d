"""Options of a comparison of loaders."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from benchmarks.loaders.registry import CONTENDERS, LIMIT
from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores

__all__ = ["CompareOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """Samples, sizes and repeats of a comparison. Raises UsageError for impossible values."""

    shards: Path
    """Folder of image shards; samples of its split train, evenly spaced."""
    canvas_px: Annotated[int, "side of a canvas"] = 256
    batch_size: Annotated[int, "samples of a batch"] = 64
    num_cores: Annotated[int, "and threads or processes, of each loader"] = field(default_factory=num_cores)
    num_samples: Annotated[int, "of one pass, at most; with more, the start of a pass weighs less"] = 1024
    least_s: Annotated[float, "in each repeat, fast loaders make passes until these seconds are full"] = 1.0
    warm_repeats: Annotated[int, "repeats with a warm page cache; fewer than 6 give no interval", "--warm"] = 6
    cold_repeats: Annotated[int, "repeats with a cold page cache; 0: none", "--cold"] = 6
    names: Annotated[tuple[str, ...], "only this one and the limit; may be repeated", "--loader"] = tuple(CONTENDERS)
    folder: Annotated[Path | None, "for temporary data (6 times the samples), on the disk to measure"] = None
    timeout_s: Annotated[float, "for one step of one loader; one that takes longer is not measured"] = 180.0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("canvas_px", "batch_size", "num_cores", "num_samples", "warm_repeats"), 1)
        least |= dict.fromkeys(("cold_repeats", "least_s", "timeout_s"), 0)
        for name, limit in least.items():
            if not getattr(self, name) >= limit:  # also refuses NaN
                kind = "a number" if name.endswith("_s") else "an integer"
                raise UsageError(f"{name} = {getattr(self, name)}; need {kind} of at least {limit}.")
        # With more threads than cores, loaders would be compared by how their threads take turns.
        if self.num_cores > num_cores():
            raise UsageError(f"num_cores = {self.num_cores}; this process may use {num_cores()}.")
        if self.num_samples < self.batch_size:
            raise UsageError(f"num_samples = {self.num_samples}; need at least one batch of {self.batch_size}.")
        if unknown := set(self.names) - set(CONTENDERS):
            raise UsageError(f"loaders {sorted(unknown)} are unknown; allowed: {', '.join(CONTENDERS)}.")

    def whole_batches(self, num_samples: int) -> int:
        """Return how many of the samples fill batches, the same number for each core if there are enough."""
        for_each = self.batch_size * self.num_cores
        return num_samples // for_each * for_each or num_samples // self.batch_size * self.batch_size

    @property
    def all_names(self) -> tuple[str, ...]:
        """The loaders to measure in the order of CONTENDERS, the limit first."""
        return tuple(name for name in CONTENDERS if name in self.names or name == LIMIT)
