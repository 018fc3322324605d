from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.probes import knn
from benchmarks.evaluations.probes.knn import KnnConfig, knn_answers, run
from benchmarks.evaluations.trunk_source import TrunkSource
from tests.made.tiny_shards import coloured, write_shards
from training.trunk import Trunk, TrunkConfig, save_trunk


def made(num_train: int, num_query: int, num_classes: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num_train)
    train = rng.normal(size=(num_classes, 24))[labels] + rng.normal(size=(num_train, 24))
    return train.astype(np.float32), labels, rng.normal(size=(num_query, 24)).astype(np.float32)


@pytest.mark.parametrize(("neighbours", "temperature"), [(20, 0.07), (1, 0.07), (5, 1.0)])
@pytest.mark.parametrize("blocks", [(1024, 16384), (7, 50)], ids=["whole", "in blocks"])
def test_votes_equal_sklearn(
    monkeypatch: pytest.MonkeyPatch, neighbours: int, temperature: float, blocks: tuple[int, int]
) -> None:
    monkeypatch.setattr(knn, "QUERY_BLOCK", blocks[0])
    monkeypatch.setattr(knn, "TRAIN_BLOCK", blocks[1])
    train, labels, queries = made(333, 40)

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / temperature)

    theirs = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute", weights=weights).fit(train, labels)
    ours = knn_answers(train, labels, queries, 7, num_neighbours=neighbours, temperature=temperature)
    np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), theirs.predict_proba(queries), atol=1e-4)
    assert (ours.argmax(axis=1) == theirs.predict(queries)).all()


def test_more_neighbours_than_images_are_all_images() -> None:
    train, labels, queries = made(6, 3)
    votes = [knn_answers(train, labels, queries, 7, num_neighbours=count, temperature=0.07) for count in (6, 20)]
    assert (votes[0] == votes[1]).all()


def test_whole_evaluation_chooses_statistics_and_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = {"train": 60, "val": 30}
    write_shards(
        tmp_path, {split: [(i % 3, coloured(i % 3, rng)) for i in range(count)] for split, count in counts.items()}
    )
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    save_trunk(Trunk(TrunkConfig(depth=10, width=0.125)), tmp_path / "run")
    context = Context(trunk=TrunkSource(run=tmp_path / "run"), images=tmp_path, store=tmp_path / "kept")
    options: dict[str, Any] = {"canvas_px": 32}
    found = run(context, KnnConfig(**options))
    assert found["top1_pct"] > 80
    single = {name: run(context, KnnConfig(**options, recalibrate_norm=name)) for name in (False, True)}
    assert found["top1_pct"] == single[found["norm_statistics"] == "re-estimated"]["top1_pct"]
