"""Probes in place of a network: what of each task's held-out samples can be answered from cut-down inputs.

Samples are augmented as in training. Every probe is fitted to samples of the training split and judged on others.

Letters: R rows of all batches of a task and part.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.shortcuts.base import Answered, Looks
from benchmarks.shortcuts.finding import Counts, Finding, finding, simulated_finding
from benchmarks.shortcuts.samples import parts_of
from benchmarks.shortcuts.tasks import SHORTCUTS, by_kind
from pipelines.base.progress import progress_bar
from pipelines.build import PipelineConfig
from pipelines.shards.format.clip_keys import source_of
from pipelines.shards.format.table import Kind
from pipelines.tasks import TASKS
from pipelines.tasks.base import TaskBatch

__all__ = ["Rows", "counts_by_source", "findings_of_config", "judged"]

Strings = npt.NDArray[np.str_]


class Rows:
    """Looks at the batches of one task and one part, joined along R, and the key of every row's sample."""

    def __init__(self) -> None:
        self._looks: list[Looks] = []
        self._keys: list[Strings] = []

    def add(self, batch: TaskBatch, looks: Looks) -> None:
        self._looks.append(looks)
        self._keys.append(np.repeat(np.array(batch.keys), len(batch.inputs) // len(batch.keys)))

    def joined(self, without: Strings | None = None) -> tuple[Looks, Strings]:
        """Return looks and keys, without rows of these keys."""
        keys = np.concatenate(self._keys)
        kept = np.ones(len(keys), bool) if without is None else ~np.isin(keys, without)
        return {name: np.concatenate([one[name] for one in self._looks])[kept] for name in self._looks[0]}, keys[kept]


def findings_of_config(
    config: PipelineConfig, *, num_samples: int, tasks: Sequence[str] = (), seed: int = 0
) -> list[Finding]:
    """Return the findings of all tasks, or of those named, in the order of the configuration.

    num_samples: of each kind, for fitting, and again for judging. The same arguments give the same findings. Raises
    UsageError where the configuration cannot work, DataError where samples cannot be read.
    """
    found: dict[str, list[Finding]] = {name: [] for name in config.tasks}
    for kind, pipeline in by_kind(config, tasks).items():
        fit, held = ({name: Rows() for name in pipeline.tasks} for _ in range(2))
        with progress_bar(f"{kind}s", total=None, unit="batches") as bar:
            for part in parts_of(pipeline, kind, num_samples, seed=seed, augment=True):
                name = part.batch.task
                (held if part.is_held_out else fit)[name].add(part.batch, SHORTCUTS[name].look(part.batch))
                bar.advance()
        for name in pipeline.tasks:
            task = TASKS[name](pipeline.tasks[name], pipeline.canvas)
            fit_looks, fit_keys = fit[name].joined()
            # A mix of sources may repeat a sample within a pass, and two splits may share one.
            held_looks, held_keys = held[name].joined(without=fit_keys)
            answers = SHORTCUTS[name].probes(task, fit_looks, held_looks)
            found[name] = list(judged(name, answers, held_keys, seed))
    return [one for name in config.tasks for one in found[name]]


def judged(name: str, answers: Iterator[Answered], keys_R: Strings, seed: int) -> Iterator[Finding]:
    """Yield the finding of every probe; `keys_R` says which rows are of one sample."""
    metric = SHORTCUTS[name].metric
    for one in answers:
        if one.num_draws:
            value = float(one.num[0] / one.den[0])
            yield simulated_finding(name, one.sees, metric, value, chance=one.chance, num_draws=one.num_draws)
        else:
            counts = counts_by_source(keys_R, one.num, one.den, TASKS[name].source)
            yield finding(name, one.sees, metric, counts, chance=one.chance, seed=seed)


def counts_by_source(keys_R: Strings, num_R: npt.NDArray[Any], den_R: npt.NDArray[Any], kind: Kind) -> Counts:
    """Return the sums over the rows of every source: an image, or the video that clips were cut from."""
    keys, row_of_R = np.unique(keys_R, return_inverse=True)
    sources, source_of_key = np.unique([source_of(key, kind) for key in keys.tolist()], return_inverse=True)
    source_R = source_of_key[row_of_R]
    num, den = (np.bincount(source_R, one.astype(np.float64), len(sources)) for one in (num_R, den_R))
    return Counts(num=num.astype(np.float64), den=den.astype(np.float64))
