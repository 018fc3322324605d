"""Failure budget: stops a run once too large a share of recent samples has failed.

Only the last WINDOW_SAMPLES count. Over a whole run, a day of good samples would hide a folder that broke an hour ago.
"""

from collections import deque
from collections.abc import Sequence

from pipelines.base.errors import DataError
from pipelines.run.sample_source import Fault

__all__ = ["FailureBudget"]

MIN_SAMPLES_TO_JUDGE = 100
"""Samples before the first judgement; of fewer, a single failure would be a large share."""
WINDOW_SAMPLES = 10_000


class FailureBudget:
    """Counter of failures: `count` every batch. `max_failure_ratio`: allowed share of failed samples, 0 to 1."""

    def __init__(self, max_failure_ratio: float) -> None:
        self._max_ratio = max_failure_ratio
        self._batches: deque[tuple[int, int]] = deque()
        self._num_samples = self._num_faults = 0
        self._last: Fault | None = None

    def count(self, num_samples: int, faults: Sequence[Fault]) -> None:
        """Count a batch. Raises DataError if more than `max_failure_ratio` of the samples in the window failed."""
        self._batches.append((num_samples, len(faults)))
        self._num_samples += num_samples
        self._num_faults += len(faults)
        self._last = faults[-1] if faults else self._last
        # Whole batches leave the window, as long as it stays full without them.
        while self._num_samples - self._batches[0][0] >= WINDOW_SAMPLES:
            old_samples, old_faults = self._batches.popleft()
            self._num_samples -= old_samples
            self._num_faults -= old_faults
        ratio = self._num_faults / max(self._num_samples, 1)
        # Not before MIN_SAMPLES_TO_JUDGE: one bad sample in the first batch of 32 is 3 %, and no reason to stop.
        if self._num_samples >= MIN_SAMPLES_TO_JUDGE and ratio > self._max_ratio:
            raise DataError(
                f"{self._num_faults} of {self._num_samples} samples failed ({ratio:.1%}), max_failure_ratio allows "
                f"{self._max_ratio:.1%}. The last: {self._last}. "
                "Check the shards (fourfold shards verify) or raise max_failure_ratio."
            )
