"""A trained model in place of probes: what it still answers when its inputs are cut down, beside whole inputs.

Samples are not augmented, as in training/diagnostics/held_out.py. Batch norm uses the statistics of whole inputs of the
task, taken from samples of the training split: a batch's own would change with what is cut away.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.shortcuts.finding import Counts, Finding, finding
from benchmarks.shortcuts.samples import parts_of
from benchmarks.shortcuts.tasks import SHORTCUTS, by_kind
from benchmarks.shortcuts.untrained import Rows, counts_by_source
from pipelines.base.config import load_config
from pipelines.base.errors import UsageError
from pipelines.base.progress import progress_bar
from pipelines.build import build_pipeline
from pipelines.shards.format.table import Kind
from pipelines.tasks.base import TaskBatch
from training.config import PretrainConfig
from training.model import Model
from training.parallel import Ranks, choose_device
from training.run_folder import CONFIG_NAME
from training.session import Session
from training.weights.checkpoint import CHECKPOINT_NAME, MODEL_NAME, load_model_weights

__all__ = ["WHOLE", "findings_of_run"]

WHOLE = "everything (the real thing)"


def findings_of_run(
    run: Path,
    *,
    num_samples: int,
    tasks: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> list[Finding]:
    """Return the findings of a run of `fourfold pretrain`; of every task the one with whole inputs first.

    overrides: as of `--set`, for shards that have moved. Raises UsageError if the folder holds no such run.
    """
    # 1. The model as it was trained: trunk and heads.
    weights = load_model_weights(run) if (run / CONFIG_NAME).is_file() else None
    if weights is None:
        raise UsageError(
            f"{run}: no run with {CONFIG_NAME}, and {CHECKPOINT_NAME} or {MODEL_NAME}. Give the folder of a run of "
            "fourfold pretrain or of a suite's pretraining, or a configuration."
        )
    config = load_config(PretrainConfig, run / CONFIG_NAME, overrides).model_copy(update={"held_out": None})
    torch_device = choose_device(device)
    with build_pipeline(config.pipeline.in_threads(), seed=config.seed) as pipeline:
        session = Session(config, pipeline, Ranks(), torch_device)
        session.model.load_state_dict(weights)
    norms = _Norms(session.model)
    # 2. Training samples for the statistics of batch norm; then held-out batches as they are, and cut down in each way.
    found: dict[str, list[Finding]] = {name: [] for name in config.pipeline.tasks}
    for kind, part_config in by_kind(config.pipeline, tasks).items():
        rows = {name: Rows() for name in part_config.tasks}
        counted: dict[str, dict[str, list[Counts]]] = {name: {} for name in part_config.tasks}
        with progress_bar(f"{kind}s", total=None, unit="batches") as bar:
            for part in parts_of(part_config, kind, num_samples, seed=seed, augment=False):
                name = part.batch.task
                with norms.of(name, is_learning=not part.is_held_out):
                    if not part.is_held_out:
                        session.model.predict(part.batch.to(torch_device))
                    else:
                        rows[name].add(part.batch, SHORTCUTS[name].look(part.batch))
                        for sees, counts in _counts(session.model, part.batch, torch_device).items():
                            counted[name].setdefault(sees, []).append(counts)
                bar.advance()
        for name in part_config.tasks:
            looks, keys = rows[name].joined()
            chance = SHORTCUTS[name].chance(looks)
            whole, *restricted = (
                finding(name, sees, SHORTCUTS[name].metric, _joined(keys, counts, kind), chance=chance, seed=seed)
                for sees, counts in counted[name].items()
            )
            found[name] = [whole.as_whole(), *(one.beside(whole) for one in restricted)]
    return [one for name in found for one in found[name]]


def _counts(model: Model, batch: TaskBatch, device: torch.device) -> dict[str, Counts]:
    """What is seen -> numerator and denominator of every row."""
    shortcuts = SHORTCUTS[batch.task]
    found = {}
    for sees, restrict in {WHOLE: lambda whole: whole, **shortcuts.restrictions}.items():
        cut = restrict(batch).to(device)
        num, den = shortcuts.count(model.predict(cut), cut)
        found[sees] = Counts(num=num.double().cpu().numpy(), den=den.double().cpu().numpy())
    return found


class _Norms:
    """Running statistics of every batch norm, kept for each task apart: tasks may share a trunk's, and then mix."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        self._of: dict[str, list[dict[str, torch.Tensor]]] = {}
        for norm in self._norms:
            norm.momentum = None  # the plain mean over all batches

    @contextmanager
    def of(self, task: str, *, is_learning: bool) -> Iterator[None]:
        """Use a task's statistics inside the block, without gradients; `is_learning`: take them from its batches."""
        self._model.trunk.use_statistics(task)
        for index, norm in enumerate(self._norms):
            if task in self._of:
                norm.load_state_dict(self._of[task][index])
            else:
                norm.reset_running_stats()
        self._model.train(is_learning)
        with torch.no_grad():
            yield
        if is_learning:
            self._of[task] = [
                {name: value.clone() for name, value in norm.state_dict().items()} for norm in self._norms
            ]


def _joined(keys_R: npt.NDArray[np.str_], parts: Sequence[Counts], kind: Kind) -> Counts:
    num, den = (np.concatenate([getattr(one, name) for one in parts]) for name in ("num", "den"))
    return counts_by_source(keys_R, num, den, kind)
