"""What a comparison of loaders is told."""

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.loaders.registry import CONTENDERS, LIMIT
from benchmarks.loaders.setting import Make
from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores

__all__ = ["CompareOptions"]

MAKES = ("canvas", "colorization")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """Which samples, which tensors, how often. Checked: raises UsageError."""

    shards: Path
    """Folder of image shards; samples of its split train, evenly spaced."""
    make: Make = "canvas"
    """canvas: crop and resize alone. colorization: also fourfold's inputs and targets, by the same code everywhere."""
    canvas_px: int = 256
    batch_size: int = 64
    num_cores: int = field(default_factory=num_cores)
    """Worker processes, or threads, of each loader, and cores that each may use; at most what this process may use."""
    num_samples: int = 1024
    """Of one pass, at most; rounded down to whole batches, the same number for each core where there are enough. More
    makes the start of a pass, which is timed, weigh less."""
    least_s: float = 1.0
    """In each repeat, fast loaders make passes until these seconds are full. More makes intervals smaller."""
    warm_repeats: int = 6
    """Fewer than 6 give no interval."""
    cold_repeats: int = 6
    """0 measures no cold page cache."""
    names: tuple[str, ...] = tuple(CONTENDERS)
    """Loaders to compare; the limit is always among them."""
    folder: Path | None = None
    """Where the data of all loaders goes, about six times the samples' bytes, and is removed again; None is the
    system's folder for temporary files. Cold reading is that of the disk it is on."""
    timeout_s: float = 180.0
    """Longest time for one step of one loader; one that takes longer is not measured."""

    def __post_init__(self) -> None:
        for name in ("canvas_px", "batch_size", "num_cores", "num_samples", "warm_repeats"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}; need an integer of at least 1.")
        if self.cold_repeats < 0:
            raise UsageError(f"cold_repeats = {self.cold_repeats}; need an integer of at least 0.")
        for name in ("least_s", "timeout_s"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} = {getattr(self, name)}; need a number of at least 0.")
        if self.num_cores > num_cores():
            raise UsageError(f"num_cores = {self.num_cores}; this process may use {num_cores()}.")
        if self.num_samples < self.batch_size:
            raise UsageError(f"num_samples = {self.num_samples}; need at least one batch of {self.batch_size}.")
        if self.make not in MAKES:
            raise UsageError(f"make = {self.make}; allowed: {', '.join(MAKES)}.")
        if unknown := set(self.names) - set(CONTENDERS):
            raise UsageError(f"loaders {sorted(unknown)} are unknown; allowed: {', '.join(CONTENDERS)}.")

    def whole_batches(self, num_samples: int) -> int:
        """As many samples as fill batches, the same number for each core if there are enough."""
        for_each = self.batch_size * self.num_cores
        return num_samples // for_each * for_each or num_samples // self.batch_size * self.batch_size

    @property
    def all_names(self) -> tuple[str, ...]:
        """In the order of CONTENDERS, the limit first."""
        return tuple(name for name in CONTENDERS if name in self.names or name == LIMIT)
