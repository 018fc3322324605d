"""How much of relative position a trained network solves from one patch of a pair: accuracy with the other one blanked.

Relative position's batches and a trained model in, accuracies out. A network that keeps most of its accuracy without
the second patch answers from where the first lies, not from how the two fit together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from pipelines.tasks.base import TaskBatch
from training.model import Model

__all__ = ["BlankedAccuracy", "blanked_accuracy", "with_second_blanked"]

NUM_POSITIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankedAccuracy:
    """Accuracies in [0, 1] over the same pairs: of both patches, and with the second of every pair blanked.

    chance: of the best constant answer: 6 of 40 in grids of 3 x 3, where steps along an axis are more frequent than
    diagonal ones; 1 of 8 of single pairs, whose directions are drawn.
    """

    both: float
    second_blanked: float
    num_pairs: int
    chance: float

    @property
    def kept_ratio(self) -> float:
        """Share of the accuracy above chance that is left without the second patch; nan if there was none."""
        gained = self.both - self.chance
        return (self.second_blanked - self.chance) / gained if gained > 0 else float("nan")


def with_second_blanked(batch: TaskBatch) -> TaskBatch:
    """Return the batch with the second patch of every pair replaced by one of even gray, at the batch's mean."""
    blank = batch.inputs.mean().expand(len(batch.inputs), 1, *batch.inputs.shape[2:])
    if "pair_first" not in batch.target:
        return replace(batch, inputs=torch.cat([batch.inputs[:, :1], blank], dim=1))
    # A patch of a grid is second in some pairs and first in others, so the blank one is added and not put in its place.
    second = torch.full_like(batch.target["pair_second"], batch.inputs.shape[1])
    return replace(batch, inputs=torch.cat([batch.inputs, blank], dim=1), target=batch.target | {"pair_second": second})


def blanked_accuracy(model: Model, batches: Iterable[TaskBatch]) -> BlankedAccuracy:
    """Measure a model on batches of relative position, on the model's device; batches it was not trained on.

    Norms use their running statistics, since blank patches would change those of a batch. The model is left as it was.
    Raises ValueError if there is no batch, or no pair with a weight.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    num_right, num_pairs, asked = [0.0, 0.0], 0.0, torch.zeros(NUM_POSITIONS, dtype=torch.float64)
    is_drawn = True
    with torch.no_grad():
        for batch in batches:
            here = batch.to(device)
            weight = float(here.weight.sum())
            for index, shown in enumerate((here, with_second_blanked(here))):
                num_right[index] += float(model(shown).metrics["accuracy"]) * weight
            num_pairs += weight
            asked += torch.bincount(batch.target["position"].flatten(), batch.weight.flatten().double(), NUM_POSITIONS)
            is_drawn = is_drawn and "pair_first" not in batch.target
    model.train(was_training)
    if not num_pairs:
        raise ValueError("no pair of patches to measure; need at least one batch with a weight above 0")
    both, blanked = (right / num_pairs for right in num_right)
    chance = 1 / NUM_POSITIONS if is_drawn else float(asked.max()) / num_pairs
    return BlankedAccuracy(both=both, second_blanked=blanked, num_pairs=round(num_pairs), chance=chance)
