"""The average of a trunk against its formula."""

import numpy as np
import torch

from training.trunk import Trunk, TrunkConfig
from training.updates.trunk_average import EmaConfig, TrunkAverage


def weights_of(trunk: Trunk) -> np.ndarray:
    return torch.cat([parameter.detach().flatten() for parameter in trunk.parameters()]).double().numpy()


def test_the_average_is_its_formula_and_leaves_the_trunk_alone() -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125, statistics="per_task"), ("a", "b"))
    average = TrunkAverage(EmaConfig(decay=0.75), trunk)
    expected = None
    for step, task in enumerate(("a", "b", "a")):
        # Norms now share other tensors with the statistics than in the copy.
        trunk.use_statistics(task)
        with torch.no_grad():
            for parameter in trunk.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        average.update()
        now = weights_of(trunk)
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    np.testing.assert_allclose(weights_of(average.trunk()), expected, atol=1e-6)
    assert np.array_equal(weights_of(trunk), now)


def test_before_the_first_step_it_is_the_trunk() -> None:
    trunk = Trunk(TrunkConfig(depth=10, width=0.125))
    assert np.array_equal(weights_of(TrunkAverage(EmaConfig(), trunk).trunk()), weights_of(trunk))
