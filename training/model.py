"""The model: trunk, heads and lassos as one module. A task's batch goes in, its loss comes out.

All V patches of all rows go through the trunk as one batch; the head puts them together again (paper section 3.4).
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from pipelines.base.rng import rng_for
from pipelines.tasks.base import TaskBatch
from training.heads import Head, HeadInput, HeadsConfig, build_head
from training.lasso import Lasso, LassoConfig
from training.norms import use_group_norm
from training.trunk import Trunk, TrunkConfig
from training.updates.losses import Loss
from training.weights.foreign import start_from

__all__ = ["Model", "Precision", "build_model", "build_trunk"]

Precision = Literal["bf16", "fp32"]


class Model(nn.Module):
    """Trunk, heads by task, and lassos by task; no lassos where every head listens to the last unit alone."""

    def __init__(
        self,
        trunk: Trunk,
        heads: Mapping[str, Head],
        lassos: Mapping[str, Lasso],
        *,
        lasso_penalty: float = 0.0,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)
        self.lassos = nn.ModuleDict(lassos)
        self.lasso_penalty = lasso_penalty
        self.precision: Precision = precision

    def forward(self, batch: TaskBatch) -> Loss:
        """Return the loss of one task's batch, on the batch's device."""
        return self.loss_of(self.predict(batch), batch)

    def loss_of(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        """Return the loss of what `predict` answered for a batch."""
        # Outside of autocast: a mean over many cells loses digits in bf16.
        loss = self.head(batch.task).loss(prediction, batch)
        if batch.task not in self.lassos:
            return loss
        return replace(loss, total=loss.total + self.lasso_penalty * self.lasso(batch.task).l1())

    def predict(self, batch: TaskBatch) -> torch.Tensor:
        """Return what the task's head answers, as its `predict` describes it."""
        with self.autocast(batch.inputs.device):
            prediction: torch.Tensor = self.head(batch.task).predict(self._features(batch), batch)
        return prediction

    def head(self, task: str) -> Head:
        head: Head = self.heads[task]  # type: ignore[assignment]
        return head

    def lasso(self, task: str) -> Lasso:
        lasso: Lasso = self.lassos[task]  # type: ignore[assignment]
        return lasso

    def lasso_weights(self) -> dict[str, list[float]]:
        """Return the weight of every unit, per task; {} without lasso."""
        return {task: self.lasso(task).weights().tolist() for task in self.lassos}

    def parameters_of(self, task: str) -> list[nn.Parameter]:
        """Return what a task trains: the trunk, its own head and its own lasso."""
        own: list[nn.Module] = [self.trunk, self.heads[task]]
        own += [self.lassos[task]] if task in self.lassos else []
        return [parameter for module in own for parameter in module.parameters()]

    def _features(self, batch: TaskBatch) -> torch.Tensor:
        inputs = batch.inputs
        self.trunk.use_statistics(batch.task)
        # (R, V, 3, H, W): all patches as one batch, so that batch norm sees them together and the GPU is full.
        output = self.trunk(inputs.flatten(0, 1) if inputs.ndim == 5 else inputs)
        if batch.task not in self.lassos:
            return output.last  # type: ignore[no-any-return]
        return self.lasso(batch.task).mix(output.units)

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Return a context manager in which forward passes have the model's precision."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def _seeded(seed: int, name: str) -> Iterator[None]:
    """Seed torch by (seed, name) inside the block, so that a trunk starts alike whatever tasks are trained with it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng_for(seed, 0, "initial weights", name).integers(2**63)))
        yield


def build_trunk(config: TrunkConfig, tasks: tuple[str, ...], seed: int) -> Trunk:
    """Return a trunk with random weights that depend on its shape and the seed alone, or with those of a file."""
    with _seeded(seed, "trunk"):
        if config.weights is not None:
            return start_from(config, tasks)
        return Trunk(config, tasks)


def build_model(
    trunk: Trunk,
    heads: HeadsConfig,
    shapes: Mapping[str, HeadInput],
    *,
    seed: int,
    lasso: LassoConfig | None = None,
    precision: Precision = "fp32",
) -> Model:
    """Return a model with heads (and lassos) whose random weights depend on the seed and the task's name."""
    built: dict[str, Head] = {}
    for task, shape in shapes.items():
        with _seeded(seed, task):
            built[task] = build_head(task, heads, shape)
            if trunk.config.norm == "group":
                use_group_norm(built[task])
    lassos = {task: Lasso(trunk.num_units) for task in shapes} if lasso else {}
    penalty = lasso.penalty if lasso else 0.0
    return Model(trunk, built, lassos, lasso_penalty=penalty, precision=precision)
