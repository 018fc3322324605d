import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from benchmarks.evaluations.dense.iou import IGNORED, ConfusionMatrix


def test_iou_equals_scikit_learn_over_all_images() -> None:
    rng = np.random.default_rng(0)
    matrix, predictions, truths = ConfusionMatrix(4), [], []
    for shape in ((9, 7), (5, 12)):
        truth = rng.integers(0, 3, shape).astype(np.uint8)  # class 3 is neither true nor predicted
        predicted = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, 3, shape)).astype(np.uint8)
        truth[rng.random(shape) < 0.2] = IGNORED
        matrix.add(predicted, truth)
        predictions.append(predicted[truth != IGNORED])
        truths.append(truth[truth != IGNORED])
    guess, true = np.concatenate(predictions), np.concatenate(truths)
    wanted = 100 * jaccard_score(true, guess, average=None)
    results = matrix.results(["a", "b", "c", "d"])
    assert list(results["iou_by_class_pct"].values()) == pytest.approx(wanted)
    assert results["mean_iou_pct"] == pytest.approx(wanted.mean())
    assert results["pixel_accuracy_pct"] == pytest.approx(100 * (guess == true).mean())
    assert "d" not in results["iou_by_class_pct"]
