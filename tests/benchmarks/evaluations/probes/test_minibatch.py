from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.preprocessing import StandardScaler

from benchmarks.evaluations.features.store import Features
from benchmarks.evaluations.probes import linear_probe
from benchmarks.evaluations.probes.linear_probe import LinearProbeConfig, probe
from benchmarks.evaluations.probes.minibatch import Scaling


def made(num_train: int = 800, num_test: int = 1000) -> tuple[Features, Features]:
    rng = np.random.default_rng(0)
    labels = np.arange(num_train + num_test) % 4
    values = rng.normal(size=(4, 30))[labels] + 1.8 * rng.normal(size=(len(labels), 30))
    values = np.concatenate([values * np.logspace(-2, 2, 30) + 5, np.full((len(labels), 1), 7.0)], axis=1)
    values = values.astype(np.float32)
    train, test = slice(num_train), slice(num_train, None)
    return (
        Features(values_MVND=[[values[train]] * 2], labels_N=labels[train]),
        Features(values_MVND=[[values[test]]], labels_N=labels[test]),
    )


def config(**changes: Any) -> LinearProbeConfig:
    return LinearProbeConfig(**{"labels_per_class": [], "l2_grid": [0.01, 0.1], "sgd_epochs": 15} | changes)


def test_scaling_equals_sklearn_and_zeroes_a_constant() -> None:
    train, test = made()
    scaling = Scaling.of(train.values_MVND[0])
    scaler = StandardScaler().fit(train.last_ND())
    ours, theirs = scaling.apply(test.last_ND()), scaler.transform(test.last_ND())
    np.testing.assert_allclose(ours[:, :-1], theirs[:, :-1], atol=1e-3)
    assert (ours[:, -1] == 0).all()


def test_minibatches_end_near_the_exact_fit_twice_alike() -> None:
    variants = {"as trained": made()}
    exact = probe(variants, config(solver="lbfgs"))
    first, second = (probe(variants, config(solver="sgd")) for _ in range(2))
    assert first == second
    assert first["solver"] == "sgd"
    assert first["top1_pct"] == pytest.approx(exact["top1_pct"], abs=1.0)
    assert first["held_out_loss"] == pytest.approx(exact["held_out_loss"], abs=0.03)
    assert exact["top1_pct"] > 70


def test_few_labels_are_those_of_the_exact_fit() -> None:
    variants = {"as trained": made()}
    few = {"labels_per_class": [5], "num_draws": 2, "l2_grid": [0.1]}
    found = [probe(variants, config(solver=solver, **few)) for solver in ("lbfgs", "sgd")]
    draws = [one["top1_5_labels_draws_pct"] for one in found]
    assert draws[0] == pytest.approx(draws[1], abs=0.3)


def test_auto_takes_minibatches_for_large_sets_only(monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = made(40, 10)
    assert linear_probe._solver(train, config()) == "lbfgs"
    monkeypatch.setattr(linear_probe, "MOST_LBFGS_ROWS", 79)
    assert linear_probe._solver(train, config()) == "sgd"


def test_a_mix_of_units_by_minibatches_is_refused() -> None:
    with pytest.raises(ValidationError, match="lasso: true needs solver"):
        config(lasso=True, solver="sgd")
