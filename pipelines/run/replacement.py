"""Replace samples that cannot be used by later samples of the plan, and report them.

The replacement is the sample at the same place of the next batch, or of the batch after that, and so on: with G samples
in a global batch, position p is filled from p + G, p + 2 G, ... So replacements depend on the plan and on the broken
files alone, not on ranks, threads or resumes. Two places never get the same sample, and all other samples stay in
place. The replacement is also read again in its own turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipelines.read.sample_plan import SamplePlan
from pipelines.run.sample_source import Fault, SampleSource, TaskSamples

__all__ = ["MAX_TRIES", "ReplacingSource"]

MAX_TRIES = 8
"""Samples tried for one place; each costs a decode. If one sample in 100 is broken, all 8 are with probability
1e-16."""


class ReplacingSource:
    """Sample source that fills the rows of failed samples with later samples of the plan."""

    def __init__(self, open_source: Callable[[SamplePlan], SampleSource], plan: SamplePlan) -> None:
        """`open_source` opens a source for a plan; it is called a second time when the first sample fails."""
        self.plan = plan
        self._open = open_source
        self.source = open_source(plan)
        self._single: SampleSource | None = None

    def load(self, batch_index: int, names: Sequence[str]) -> tuple[dict[str, TaskSamples], list[Fault]]:
        """Return the input of each of the named tasks for one batch, and the samples that failed, in the order of rows.

        `TaskSamples.failed` lists the rows for which MAX_TRIES samples failed.
        """
        prepared, faults = self.source.load(batch_index, names)
        # A row that failed for one task is replaced for all: tasks of a step must see the same samples.
        failed = sorted({row for one in prepared.values() for row in one.failed})
        reported = []
        for row, fault in zip(failed, faults, strict=True):
            spare = self._next_good(batch_index, row, names)
            if spare:
                prepared = {name: _with_row(one, row, spare[name]) for name, one in prepared.items()}
                key = next(iter(spare.values())).keys[0]
                fault = replace(fault, reason=f"{fault.reason}; {key} takes its place")
            reported.append(fault)
        return prepared, reported

    def _next_good(self, batch_index: int, row: int, names: Sequence[str]) -> dict[str, TaskSamples]:
        """Return a good sample as a batch of one for every task; {} if none was found in MAX_TRIES."""
        # Samples that fail here are not reported: each is reported with the batch in which it has its own place.
        # A source for single samples is opened at the first failure: most runs never need one.
        self._single = self._single or self._open(self.plan.one_by_one())
        for later in range(batch_index + 1, batch_index + 1 + MAX_TRIES):
            spare, faults = self._single.load(self.plan.first_position(later) + row, names)
            if not faults:
                return spare
        return {}


def _with_row(prepared: TaskSamples, row: int, spare: TaskSamples) -> TaskSamples:
    """Return the batch with the only sample of `spare` in one row."""
    # Pixels are overwritten in place, because the tasks of a step share them.
    prepared.pixels[row] = spare.pixels[0]
    geometry = {name: values.copy() for name, values in prepared.geometry.items()}
    for name, values in geometry.items():
        values[row] = spare.geometry[name][0]
    keys = (*prepared.keys[:row], spare.keys[0], *prepared.keys[row + 1 :])
    failed = tuple(one for one in prepared.failed if one != row)
    cached = prepared.cached and spare.cached and prepared.cached.with_row(row, spare.cached)
    return replace(prepared, geometry=geometry, keys=keys, failed=failed, cached=cached)
