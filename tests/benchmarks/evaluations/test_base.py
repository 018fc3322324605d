from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from benchmarks.evaluations.base import check_labels, draw_labelled, folds_of, mean_over_draws, score
from pipelines.base.errors import DataError, UsageError
from tests.made.tiny_shards import write_shards

BLACK = np.zeros((8, 8, 3), np.uint8)


def test_folds_hold_a_fifth_of_every_class_in_turn() -> None:
    labels = np.array([0, 1, 0, 1, 0, 0, 0, 0, 1])
    assert folds_of(labels).tolist() == [0, 0, 1, 1, 2, 3, 4, 0, 2]


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_balanced_on_any_order(seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(4), 25))
    counts = np.zeros((5, 4), int)
    np.add.at(counts, (folds_of(labels), labels), 1)
    assert (counts == 5).all()


def test_draw_takes_so_many_of_every_class_without_doubles() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 200)
    rows = draw_labelled(labels, 7, 0)
    assert np.bincount(labels[rows]).tolist() == [7, 7, 7]
    assert len(set(rows.tolist())) == 21
    assert rows.tolist() == sorted(rows.tolist())


def test_draws_differ_and_are_golden() -> None:
    # A change here makes all few-label results incomparable with earlier ones: it must be deliberate.
    labels = np.repeat([0, 1], 50)
    assert draw_labelled(labels, 3, 0).tolist() == [5, 13, 40, 80, 90, 96]
    assert draw_labelled(labels, 3, 1).tolist() == [11, 26, 27, 56, 58, 89]


def test_draw_larger_than_a_class_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has 2 samples"):
        draw_labelled(np.array([0, 0, 0, 1, 1]), 3, 0)


def test_score_equals_sklearn_where_answers_differ() -> None:
    rng = np.random.default_rng(0)
    answers, labels = rng.normal(size=(300, 9)), rng.integers(0, 9, 300)
    found = score(answers, labels)
    for k in (1, 5):
        assert found[f"top{k}_pct"] == pytest.approx(100 * top_k_accuracy_score(labels, answers, k=k))


def test_equal_answers_count_as_wrong() -> None:
    assert score(np.zeros((4, 3)), np.array([0, 1, 2, 0])) == {"top1_pct": 0.0}


def test_top5_of_five_classes_is_left_out() -> None:
    assert set(score(np.eye(5), np.arange(5))) == {"top1_pct"}


def test_mean_over_draws_names_the_number_of_labels() -> None:
    assert mean_over_draws([{"top1_pct": 10.0}, {"top1_pct": 20.0}], 20) == {
        "top1_20_labels_pct": 15.0,
        "top1_20_labels_draws_pct": [10.0, 20.0],
    }


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [([0, 1, -1], [0], "unlabelled"), ([1, 1], [1], "1 class"), ([0, 1], [0, 2], r"classes \[2\]")],
)
def test_unfit_labels_are_refused(tmp_path: Path, train: list[int], val: list[int], words: str) -> None:
    splits = {"train": [(label, BLACK) for label in train], "val": [(label, BLACK) for label in val]}
    with pytest.raises(DataError, match=words):
        check_labels(write_shards(tmp_path, splits, num_labels=3), "train", "val")


def test_missing_split_names_what_there_is(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [(0, BLACK), (1, BLACK)]})
    with pytest.raises(UsageError, match="no images in split val; it holds images in split train"):
        check_labels(tmp_path, "train", "val")
