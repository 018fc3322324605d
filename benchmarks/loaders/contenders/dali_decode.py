"""The limit: DALI decodes the same bytes, held in memory, and does nothing else."""

from typing import Any

from benchmarks.loaders.contenders.with_dali import dali_loader
from benchmarks.loaders.setting import Batch, Batches, Setting

__all__ = ["open_loader"]

WARM_UP_BATCHES = 6
"""More than it holds ready."""


def open_loader(setting: Setting) -> "DecodeOnly":
    return DecodeOnly(setting)


class DecodeOnly:
    """One endless graph; a pass is as many batches as there are in one."""

    def __init__(self, setting: Setting) -> None:
        encoded = [path.read_bytes() for path in sorted(setting.folder.glob("*.jpg"))]
        self._batch_size, self._num_batches = setting.batch_size, len(encoded) // setting.batch_size
        self._batches: Any = dali_loader(encoded, setting.batch_size, setting.num_cores, None)

    def start(self, epoch: int) -> Batches:
        """Warm when it comes back: what was decoded while others ran is not counted."""
        for _ in range(WARM_UP_BATCHES):
            next(self._batches)
        return self._pass()

    def _pass(self) -> Batches:
        for _ in range(self._num_batches):
            next(self._batches)
            yield Batch(list(range(self._batch_size)), {})

    def let_go(self) -> None:
        """It holds bytes, no files."""

    def close(self) -> None:
        self._batches.close()
