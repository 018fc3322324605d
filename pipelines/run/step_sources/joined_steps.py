"""Join steps whose images and clips are made in different places, such as threads and worker processes.

Every part makes the same steps at the same positions, with the batches of its kinds alone.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from pipelines.run.stage_stats import Listener, StageStats, sum_stats
from pipelines.run.step_maker import POSITION_KEYS, MadeStep
from pipelines.run.stream import StepSource

__all__ = ["JoinedSteps"]


class JoinedSteps:
    """Steps of several sources, joined. See `stream.StepSource`."""

    def __init__(self, parts: Sequence[StepSource], task_names: Sequence[str]) -> None:
        """`task_names`: the order of batches in a step, which the training loop follows."""
        self._parts, self._task_names = parts, task_names
        self._taken: list[MadeStep] = []

    def start(self, position: Mapping[str, int]) -> None:
        for part in self._parts:
            part.start(position)

    def get(self) -> MadeStep:
        # What a part has given is kept while another raises or is interrupted: the parts would be a step apart.
        while len(self._taken) < len(self._parts):
            self._taken.append(self._parts[len(self._taken)].get())
        made, self._taken = self._taken, []
        return _joined(made, self._task_names)

    def is_ready(self) -> bool:
        return all(part.is_ready() for part in self._parts[len(self._taken) :])

    def stop(self) -> None:
        self._taken = []
        for part in self._parts:
            part.stop()

    def stats(self) -> tuple[StageStats, ...]:
        return sum_stats([part.stats() for part in self._parts])

    def observe(self, listener: Listener | None) -> None:
        for part in self._parts:
            part.observe(listener)

    def close(self) -> None:
        # All of them, even if one fails.
        with ExitStack() as stack:
            for part in self._parts:
                stack.callback(part.close)


def _joined(made: Sequence[MadeStep], task_names: Sequence[str]) -> MadeStep:
    """Return one step with the batches of all parts, and the position after it."""
    batches = {name: batch for one in made for name, batch in one.step.batches.items()}
    # Each part moves on for its own kinds, and leaves the others where they were.
    after = {key: max(one.after[key] for one in made) for key in POSITION_KEYS}
    step = replace(
        made[0].step,
        batches={name: batches[name] for name in task_names if name in batches},
        faults=tuple(fault for one in made for fault in one.step.faults),
    )
    return MadeStep(step=step, num_samples=sum(one.num_samples for one in made), after=after)
