import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.evaluations.base import draw_labelled
from benchmarks.evaluations.features.store import Features
from benchmarks.evaluations.features.variants import Variant
from benchmarks.evaluations.probes.few_shot import FewShotConfig, _results, ridge_path


def variant(train: Features, test: Features, name: str = "re-estimated") -> Variant:
    return Variant(norm_statistics=name, train=train, test=test)


def made(noise: float = 1.0, seed: int = 0) -> tuple[Features, Features]:
    """Train (150 rows) and test (150) of 3 classes around centres in 30 dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.arange(300) % 3
    values = np.random.default_rng(1).normal(size=(3, 30))[labels] + noise * rng.normal(size=(300, 30))
    values = (values * np.logspace(-1, 1, 30) + 3).astype(np.float32)
    return tuple(
        Features(values_MVND=[[values[part]]], labels_N=labels[part]) for part in (slice(150), slice(150, 300))
    )  # type: ignore[return-value]


@pytest.mark.parametrize("l2", [0.01, 1.0, 10.0])
def test_fit_and_leave_one_out_errors_equal_sklearn(l2: float) -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(2, 1, size=(24, 40)), np.arange(24) % 3
    centred = rows - rows.mean(axis=0)
    alpha = l2 * np.trace(centred.T @ centred) / 24
    weight, bias = ridge_path(rows, labels, 3, [l2])[0][0]
    theirs = Ridge(alpha=alpha).fit(rows, np.eye(3)[labels])
    np.testing.assert_allclose(rows @ weight + bias, theirs.predict(rows), atol=1e-8)
    # Really left out, one by one.
    error = 0.0
    for out in range(24):
        kept = np.arange(24) != out
        model = Ridge(alpha=alpha).fit(rows[kept], np.eye(3)[labels[kept]])
        error += np.square(model.predict(rows[[out]]) - np.eye(3)[labels[out]]).sum()
    assert ridge_path(rows, labels, 3, [l2])[1][0] == pytest.approx(error, rel=1e-6)


def test_more_labels_help_and_the_interval_is_that_of_the_draws() -> None:
    train, test = made(noise=1.5)
    found = _results([variant(train, test)], FewShotConfig(num_draws=10))
    assert 40 < found["top1_1_labels_pct"] < found["top1_5_labels_pct"] < found["top1_20_labels_pct"]
    draws = found["top1_5_labels_draws_pct"]
    assert found["top1_5_labels_pct"] == pytest.approx(np.mean(draws))
    low, high = found["top1_5_labels_ci95"]
    # 2.262 is Student's t of 9 degrees of freedom at 97.5 %.
    assert (high - low) / 2 == pytest.approx(2.262 * np.std(draws, ddof=1) / 10**0.5, rel=1e-3)


def test_draws_are_those_of_all_probes_and_statistics_are_chosen_by_what_is_left_out() -> None:
    train, test = made()
    noise = [
        Features(
            values_MVND=[[np.random.default_rng(2).normal(size=one.last_ND().shape).astype(np.float32)]],
            labels_N=one.labels_N,
        )
        for one in (train, test)
    ]
    found = _results([variant(*noise, "as trained"), variant(train, test)], FewShotConfig(num_draws=3))
    assert found["norm_statistics"] == "re-estimated"
    alone = _results([variant(train, test)], FewShotConfig(num_draws=3))
    assert alone == found
    # By hand: the second draw of 5 labels.
    mean, deviation = train.last_ND().mean(axis=0), train.last_ND().std(axis=0)
    rows = draw_labelled(train.labels_N, 5, 1)
    weight, bias = ridge_path((train.last_ND()[rows] - mean) / deviation, train.labels_N[rows], 3, [found["l2"]])[0][0]
    answers = ((test.last_ND() - mean) / deviation) @ weight + bias
    expected = 100 * (answers.argmax(axis=1) == test.labels_N).mean()
    assert found["top1_5_labels_draws_pct"][1] == pytest.approx(expected, abs=0.7)
