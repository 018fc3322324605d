"""Modules that a stage runs: its tasks, their heads, trunk and trainer; its evaluation. In: a stage, out: digests.

An evaluation counts the code of its pretraining, too: other weights give other results.
"""

from collections.abc import Iterable

from benchmarks.evaluations import EVALUATIONS
from benchmarks.source_code import SourceTree, code_digest
from benchmarks.suite.stages import Stage
from pipelines.tasks import TASKS
from training.heads import HEADS

__all__ = ["StageCode", "entry_modules"]

RANDOM_TRUNK = ("training.model", "training.trunk")
TRAINING = "training.loop"


def entry_modules(stage: Stage) -> frozenset[str]:
    """Return the modules from which everything that a stage runs is imported."""
    if stage.kind == "pretrain":
        tasks = stage.config["pipeline"]["tasks"]
        if not tasks:
            return frozenset(RANDOM_TRUNK)
        return frozenset((TRAINING, *_modules(TASKS[name] for name in tasks), *_modules(HEADS[name] for name in tasks)))
    own = EVALUATIONS[stage.kind].run.__module__
    return frozenset((own,)).union(*(entry_modules(need) for need in stage.needs))


def _modules(members: Iterable[type]) -> list[str]:
    return [one.__module__ for one in members]


class StageCode:
    """Digests of stages. Stages of the same tasks and the same evaluation share them."""

    def __init__(self, sources: SourceTree) -> None:
        self._sources = sources
        self.by_digest: dict[str, dict[str, str]] = {}
        """Digests of the modules, by the digest of all."""
        self._known: dict[frozenset[str], str] = {}

    def of(self, stage: Stage) -> str:
        """Return the digest of everything that a stage runs."""
        modules = entry_modules(stage)
        if modules not in self._known:
            digests = self._sources.digests(modules)
            self._known[modules] = code_digest(digests)
            self.by_digest[self._known[modules]] = digests
        return self._known[modules]
