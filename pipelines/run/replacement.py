"""A sample that cannot be used gives its place in the batch to the next of the plan, and is reported.

The next one is the sample in the same place of the following batch, and if that fails too, of the batch after it, and
so on: with G samples in a global batch, position p goes to p + G, p + 2 G, ... So a replacement depends on the plan
and on which files are broken, not on ranks, threads or how often a run was resumed; two places never get the same
sample; and all other samples stay where they were. The replacement also comes in its own turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipelines.read.sample_plan import SamplePlan
from pipelines.run.sample_source import Fault, Prepared, SampleSource

__all__ = ["MAX_TRIES", "ReplacingSource"]

MAX_TRIES = 8
"""Samples tried for one place. Where one in a hundred is broken, that all of them are is a matter of 1e-16."""


class ReplacingSource:
    """A sample source whose batches hold good samples, as far as there are any."""

    def __init__(self, open_source: Callable[[SamplePlan], SampleSource], plan: SamplePlan) -> None:
        """`open_source` gives the samples of a plan; it is called again for the first sample that fails."""
        self.plan = plan
        self._open = open_source
        self.source = open_source(plan)
        self._single: SampleSource | None = None

    def load(self, batch_index: int, names: Sequence[str]) -> tuple[dict[str, Prepared], list[Fault]]:
        """What each of the named tasks needs for one batch, and the samples that failed, in the order of their rows.

        `Prepared.failed` are rows for which no good sample was found in MAX_TRIES.
        """
        prepared, faults = self.source.load(batch_index, names)
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

    def _next_good(self, batch_index: int, row: int, names: Sequence[str]) -> dict[str, Prepared]:
        """One sample for every task, in batches of one; {} if none was good. Those that fail are reported in their
        own batch."""
        self._single = self._single or self._open(self.plan.one_by_one())
        for later in range(batch_index + 1, batch_index + 1 + MAX_TRIES):
            spare, faults = self._single.load(self.plan.first_position(later) + row, names)
            if not faults:
                return spare
        return {}


def _with_row(prepared: Prepared, row: int, spare: Prepared) -> Prepared:
    """The batch with the only sample of `spare` in a row. Pixels are written in place: tasks may share them."""
    prepared.pixels[row] = spare.pixels[0]
    geometry = {name: values.copy() for name, values in prepared.geometry.items()}
    for name, values in geometry.items():
        values[row] = spare.geometry[name][0]
    keys = (*prepared.keys[:row], spare.keys[0], *prepared.keys[row + 1 :])
    failed = tuple(one for one in prepared.failed if one != row)
    known = prepared.known and spare.known and prepared.known.with_row(row, spare.known)
    return replace(prepared, geometry=geometry, keys=keys, failed=failed, known=known)
