"""Source of an evaluated trunk. Loaded anew at every call: no evaluation sees what another one changed in it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.evaluations.content import file_content
from training.trunk import TRUNK_NAME, Trunk, load_trunk

__all__ = ["TrunkSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSource:
    """The trunk of a finished pretraining run, in the folder `run`."""

    run: Path

    @property
    def content(self) -> str:
        """Return the sha256 of its weights: kept features belong to it."""
        return file_content(self.run / TRUNK_NAME)

    def load(self, device: torch.device | None = None) -> Trunk:
        """Return the trunk in eval mode on `device` (a GPU if there is one). Raises UsageError or DataError."""
        return load_trunk(self.run).to(device or best_device())


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
