import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from benchmarks.evaluations.probes.softmax import Softmax, choose_l2, cross_entropy, fit_softmax, in_row_space


def made(num_samples: int = 300, num_features: int = 20, num_classes: int = 4, *, noise: float = 2.0, seed: int = 0):  # type: ignore[no-untyped-def]
    """Features (N, D) and labels (N,) of a noisy linear rule."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_samples, num_features))
    rule = rng.normal(size=(num_features, num_classes))
    return features, (features @ rule + noise * rng.gumbel(size=(num_samples, num_classes))).argmax(axis=1)


@pytest.mark.parametrize("l2", [1e-3, 1e-2, 1e-1, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fit_equals_sklearn(l2: float, dtype: type) -> None:
    features, labels = made()
    fitted = fit_softmax(features.astype(dtype)[None], labels, 4, l2=l2)
    # sklearn minimises the sum, C times, so C = 1 / (N l2).
    theirs = LogisticRegression(C=1 / (len(labels) * l2), tol=1e-8, max_iter=10_000).fit(features, labels)
    logits = fitted.logits(features.astype(dtype)[None])
    mine = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mine, theirs.predict_proba(features), atol=2e-3)
    assert (mine.argmax(axis=1) == theirs.predict(features)).mean() >= 0.99


def test_cross_entropy_equals_sklearn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = 9 * rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert cross_entropy(logits, labels) == pytest.approx(log_loss(labels, shares, labels=range(4)))


def test_bias_is_not_penalised() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    fitted = fit_softmax(np.zeros((1, 100, 3)), labels, 2, l2=1e3)
    shares = np.exp(fitted.bias_K) / np.exp(fitted.bias_K).sum()
    np.testing.assert_allclose(shares, [0.9, 0.1], atol=1e-3)


def test_same_numbers_every_time_and_with_any_number_of_threads() -> None:
    features, labels = made(2000, 100)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        found.append(fit_softmax(features.astype(np.float32)[None], labels, 4, l2=0.01).weight_DK)
    torch.set_num_threads(before)
    assert (found[0] == found[1]).all()
    assert (found[1] == found[2]).all()


def test_chosen_l2_is_the_best_of_a_full_search() -> None:
    features, labels = made(200, 60, noise=4.0)
    folds, grid = np.arange(200) % 5, [1e-3, 1e-2, 1e-1, 1.0, 10.0]
    losses = {}
    for l2 in grid:
        model = LogisticRegression(C=1 / (160 * l2), tol=1e-7, max_iter=10_000).fit(
            features[folds != 0], labels[folds != 0]
        )
        losses[l2] = log_loss(labels[folds == 0], model.predict_proba(features[folds == 0]), labels=range(4))
    chosen = choose_l2(features[None], labels, 4, folds, held_out=[0], grid=grid)
    assert chosen.l2 == min(losses, key=losses.__getitem__)
    assert chosen.held_out_loss == pytest.approx(losses[chosen.l2], abs=1e-3)
    whole = fit_softmax(features[None], labels, 4, l2=chosen.l2)
    np.testing.assert_allclose(chosen.layer.logits(features[None]), whole.logits(features[None]), atol=0.03)


def test_few_rows_in_their_own_space_give_the_same_answers() -> None:
    train, labels = made(40, 300)
    test = np.random.default_rng(1).normal(size=(25, 300))
    small_train, small_test = in_row_space(train, test)
    assert small_train.shape == (40, 40)
    whole = fit_softmax(train[None], labels, 4, l2=0.1).logits(test[None])
    small = fit_softmax(small_train[None], labels, 4, l2=0.1).logits(small_test[None])
    np.testing.assert_allclose(whole, small, atol=5e-3)


def test_many_rows_stay_as_they_are() -> None:
    train, _ = made(40, 20)
    assert in_row_space(train, train)[0] is train


def test_lasso_gradient_is_right() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(3, 30, 4)), rng.integers(0, 3, 30)
    seen: list[float] = []

    def check(fun, x0, **_):  # type: ignore[no-untyped-def]
        x0 = rng.normal(size=x0.shape)
        seen.append(optimize.check_grad(lambda x: fun(x)[0], lambda x: fun(x)[1], x0))
        return optimize.OptimizeResult(x=x0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimize, "minimize", check)
        fit_softmax(features, labels, 3, l2=0.1, l1=0.2)
    assert seen[0] < 1e-5


def test_lasso_finds_the_unit_that_knows_the_answer() -> None:
    rng = np.random.default_rng(1)
    good, labels = made(300, 20, noise=0.1)
    units = np.stack([rng.normal(size=good.shape), good, rng.normal(size=good.shape)])
    fitted = fit_softmax(units, labels, 4, l2=0.01, l1=0.1)
    assert np.abs(fitted.mix_M).argmax() == 1
    assert abs(fitted.mix_M[1]) > 0.99
    assert np.linalg.norm(fitted.mix_M) == pytest.approx(1)


def test_mix_of_one_unit_is_the_unit() -> None:
    features, labels = made()
    layer: Softmax = fit_softmax(features[None], labels, 4, l2=0.1, l1=5.0)
    assert layer.mix_M.tolist() == [1.0]
