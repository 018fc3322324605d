"""Source of an evaluated trunk. Loaded anew at every call: no evaluation sees what another one changed in it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.evaluations.content import file_content, text_content
from pipelines.base.errors import UsageError
from training.trunk import TRUNK_NAME, Trunk, load_trunk
from training.weights.foreign import foreign_trunk

__all__ = ["TrunkSource", "best_device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSource:
    """The trunk of a finished pretraining run, in the folder `run`; or weights of timm or torchvision in a file."""

    run: Path | None = None
    architecture: str = ""
    """Name of the network in the other case, "timm:resnet50" or "torchvision:resnet18"."""
    weights: Path | None = None
    """File of its weights."""

    @property
    def content(self) -> str:
        """Return a sha256 of its weights: kept features belong to it. Raises UsageError where there are none."""
        if self.run is not None:
            if not (self.run / TRUNK_NAME).is_file():
                raise UsageError(f"{self.run}: has no {TRUNK_NAME}; need the folder of a finished `fourfold pretrain`.")
            return file_content(self.run / TRUNK_NAME)
        return text_content(f"{self.architecture} {file_content(self._weights())}")

    def load(self, device: torch.device | None = None) -> Trunk:
        """Return the trunk in eval mode on `device` (a GPU if there is one). Raises UsageError or DataError."""
        if self.run is not None:
            return load_trunk(self.run).to(device or best_device())
        return foreign_trunk(self.architecture, self._weights()).to(device or best_device())

    def _weights(self) -> Path:
        if self.weights is None:
            raise UsageError(f"trunk {self.architecture}: no file of weights given. Give --weights FILE.")
        return self.weights


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
