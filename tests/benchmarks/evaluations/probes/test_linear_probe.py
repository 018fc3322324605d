from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.features import store
from benchmarks.evaluations.features.store import Features
from benchmarks.evaluations.probes import linear_probe
from benchmarks.evaluations.probes.linear_probe import LinearProbeConfig, check, probe, run
from benchmarks.evaluations.trunk_source import TrunkSource
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import load_manifest
from tests.made.tiny_shards import coloured, write_shards
from training.trunk import Trunk, TrunkConfig, save_trunk


def config(**changes: Any) -> LinearProbeConfig:
    return LinearProbeConfig(**{"canvas_px": 32, "labels_per_class": []} | changes)


def made_features(num_units: int = 1, num_views: int = 1, *, seed: int = 0) -> tuple[Features, Features]:
    """Train (240 rows) and test (160) of 4 classes around centres, scales 1e-3 to 1e3, and a constant column."""
    rng = np.random.default_rng(seed)
    labels = np.arange(400) % 4
    centres = rng.normal(size=(4, 12))
    values = centres[labels] + 1.3 * rng.normal(size=(num_units, num_views, 400, 12))
    values = np.concatenate([values * np.logspace(-3, 3, 12) + 5, np.full((*values.shape[:3], 1), 7.0)], axis=3)
    values = values.astype(np.float32)
    train = Features(values_MVND=values[:, :, :240], labels_N=labels[:240])
    return train, Features(values_MVND=values[:, :1, 240:], labels_N=labels[240:])


def test_probe_equals_sklearn_with_the_chosen_penalty() -> None:
    train, test = made_features()
    results = probe({"as trained": (train, test)}, config(augment="none"))
    scaler = StandardScaler().fit(train.values_MVND[0, 0])
    model = LogisticRegression(C=1 / (240 * results["l2"]), tol=1e-7, max_iter=10_000)
    model.fit(scaler.transform(train.values_MVND[0, 0]), train.labels_N)
    theirs = 100 * model.score(scaler.transform(test.values_MVND[0, 0]), test.labels_N)
    # One answer of 160 may tip over between two solvers.
    assert results["top1_pct"] == pytest.approx(theirs, abs=0.7)
    assert results["top1_pct"] > 60
    assert (results["num_train"], results["num_test"], results["num_features"]) == (240, 160, 13)


def test_probe_is_within_a_third_of_a_point_of_sklearn_on_many_answers() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % 6
    values = (rng.normal(size=(6, 40))[labels] + 2 * rng.normal(size=(3000, 40))).astype(np.float32)
    train = Features(values_MVND=[[values[:1000]]], labels_N=labels[:1000])
    test = Features(values_MVND=[[values[1000:]]], labels_N=labels[1000:])
    results = probe({"as trained": (train, test)}, config(augment="none"))
    scaler = StandardScaler().fit(values[:1000])
    model = LogisticRegression(C=1 / (1000 * results["l2"]), tol=1e-6, max_iter=10_000)
    model.fit(scaler.transform(values[:1000]), labels[:1000])
    theirs = 100 * model.score(scaler.transform(values[1000:]), labels[1000:])
    assert results["top1_pct"] == pytest.approx(theirs, abs=0.3)


def test_few_labels_are_the_mean_of_the_draws_and_worse() -> None:
    results = probe({"as trained": made_features()}, config(labels_per_class=[5], num_draws=4))
    draws = results["top1_5_labels_draws_pct"]
    assert len(draws) == 4
    assert results["top1_5_labels_pct"] == pytest.approx(np.mean(draws))
    assert 30 < results["top1_5_labels_pct"] < results["top1_pct"]


def test_second_view_of_train_images_is_used() -> None:
    one, test = made_features()
    two, _ = made_features(num_views=2, seed=0)
    assert probe({"as trained": (two, test)}, config())["num_train"] == 240
    doubled = Features(values_MVND=np.concatenate([one.values_MVND] * 2, axis=1), labels_N=one.labels_N)
    scores = [probe({"as trained": (train, test)}, config())["top1_pct"] for train in (doubled, one)]
    assert scores[0] == pytest.approx(scores[1], abs=0.7)


def test_lasso_reports_a_mix_of_unit_norm() -> None:
    results = probe({"as trained": made_features(num_units=3)}, config(lasso=True))
    assert np.linalg.norm(results["lasso_mix"]) == pytest.approx(1, abs=1e-3)
    assert len(results["lasso_mix"]) == 3


def test_lasso_stands_beside_the_plain_probe_of_the_last_unit() -> None:
    train, test = made_features(num_units=3)
    last = [Features(values_MVND=one.values_MVND[-1:], labels_N=one.labels_N) for one in (train, test)]
    both = probe({"as trained": (train, test)}, config(lasso=True, labels_per_class=[5], num_draws=2))
    plain = probe({"as trained": (last[0], last[1])}, config(labels_per_class=[5], num_draws=2))
    assert {name: both[name] for name in plain} == plain
    # Three noisy copies of the centres, mixed, are told apart better than one.
    assert both["top1_lasso_pct"] > both["top1_pct"] + 2
    assert len(both["top1_lasso_5_labels_draws_pct"]) == 2


@pytest.mark.parametrize("names", [("noise", "good"), ("good", "noise")])
def test_statistics_that_answer_better_on_held_out_samples_are_taken(names: tuple[str, str]) -> None:
    train, test = made_features()
    rng = np.random.default_rng(1)
    noise = tuple(
        Features(values_MVND=rng.normal(size=one.values_MVND.shape).astype(np.float32), labels_N=one.labels_N)
        for one in (train, test)
    )
    variants = {"good": (train, test), "noise": (noise[0], noise[1])}
    results = probe({name: variants[name] for name in names}, config(labels_per_class=[10], num_draws=2))
    assert results["norm_statistics"] == "good"
    assert results["norm_statistics_10_labels"] == ["good", "good"]
    assert results["top1_pct"] == probe({"good": variants["good"]}, config())["top1_pct"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 3 classes told by colour and stripes, and a random trunk in `run`."""
    path, rng = tmp_path_factory.mktemp("probe"), np.random.default_rng(0)
    counts = {"train": 60, "val": 30}
    write_shards(
        path, {split: [(i % 3, coloured(i % 3, rng)) for i in range(count)] for split, count in counts.items()}
    )
    torch.manual_seed(0)
    (path / "run").mkdir()
    save_trunk(Trunk(TrunkConfig(depth=10, width=0.125)), path / "run")
    return path


def context(folder: Path, kept: Path) -> Context:
    return Context(trunk=TrunkSource(run=folder / "run"), images=folder, store=kept)


@pytest.mark.parametrize(
    "changes",
    [{}, {"recalibrate_norm": True}, {"lasso": True}, {"augment": "none", "pool": 1, "recalibrate_norm": False}],
)
def test_whole_probe_learns_an_easy_problem_twice_alike(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    first, second = (run(context(folder, tmp_path / str(index)), config(**changes)) for index in range(2))
    assert first["top1_pct"] > 80
    timeless = [name for name in first if not name.endswith("_s")]
    assert {name: first[name] for name in timeless} == {name: second[name] for name in timeless}
    assert first["feature_s"] > 0


def test_recalibration_sees_every_train_image_once_and_only_if_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(store, "recalibrate", lambda trunk, batches: seen.extend(len(one) for one in batches))
    run(context(folder, tmp_path), config(max_iterations=1, recalibrate_norm=False))
    assert seen == []
    for wanted in (True, "auto"):
        run(context(folder, tmp_path / str(wanted)), config(max_iterations=1, recalibrate_norm=wanted, batch_size=25))
        assert seen == [25, 25, 10]
        seen.clear()


def test_a_mix_that_mini_batches_would_leave_out_is_refused_before_the_first_pass(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(trunk=None, images=folder, store=tmp_path)
    check(context, config(lasso=True))
    num_images = len(load_manifest(folder).select("image", "train"))
    monkeypatch.setattr(linear_probe, "MOST_LBFGS_ROWS", num_images)
    check(context, config(lasso=True, augment="none"))
    check(context, config(lasso=True, solver="lbfgs"))
    with pytest.raises(UsageError, match=f"lasso: true on {2 * num_images} rows .* Give solver: lbfgs"):
        check(context, config(lasso=True))


def test_missing_trunk_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trunk given"):
        run(Context(trunk=None, images=folder, store=tmp_path), config())
    with pytest.raises(UsageError, match="fourfold pretrain"):
        run(Context(trunk=TrunkSource(run=folder), images=folder, store=tmp_path), config())
