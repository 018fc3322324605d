"""Base of all evaluations, and their shared protocol: context, data checks, held-out folds, few-label draws, scores.

Letters: N samples, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.trunk_source import TrunkSource
from pipelines.base.config import Config
from pipelines.base.errors import DataError, UsageError
from pipelines.base.rng import rng_for
from pipelines.shards.format.manifest import load_manifest

__all__ = [
    "Context",
    "Evaluation",
    "check_labelled",
    "check_labels",
    "draw_labelled",
    "folds_of",
    "mean_over_draws",
    "score",
]

Int64s = npt.NDArray[np.int64]
Results = dict[str, Any]
NUM_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an evaluation works on. `trunk` is None for one without a trunk, and while data is checked."""

    trunk: TrunkSource | None
    images: Path | None
    """Folder of labelled image shards; None where no evaluation reads them."""
    train_split: str = "train"
    test_split: str = "val"
    store: Path
    """Folder for features that evaluations share."""
    others: Mapping[str, TrunkSource] = field(default_factory=dict)
    """Trunks to compare with, by name; given to evaluations whose `compares` says so."""
    wanted: tuple[FeatureRequest, ...] = ()
    """Features that other evaluations of this trunk will ask for: the first pass makes them, too."""

    def the_trunk(self) -> TrunkSource:
        """Return the trunk. Raises UsageError where none is given."""
        if self.trunk is None:
            raise UsageError("no trunk given. Give the folder of a pretraining run.")
        return self.trunk

    def the_images(self) -> Path:
        """Return the folder of labelled images. Raises UsageError where none is given."""
        if self.images is None:
            raise UsageError("no labelled images given. Give --images DIR, or images: DIR in a suite.")
        return self.images


def _check_nothing(context: Context, config: Any) -> None:
    pass


def _request_nothing(context: Context, config: Any) -> list[FeatureRequest]:
    return []


def _compares_nothing(config: Any) -> bool:
    return False


def _no_content(config: Any) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One way to score a trunk, or (`needs_trunk` false) to score without one.

    A new evaluation defines `config_class`, `check` and `run`; the rest has defaults.
    """

    config_class: type[Config]
    run: Callable[[Context, Any], Results]
    """run(context, config) -> results as JSON can hold them; the same arguments give the same results."""
    check: Callable[[Context, Any], None] = _check_nothing
    """check(context, config): UsageError or DataError for data that is missing or unfit. Called before the first pass,
    with no trunk; `run` may rely on it."""
    requests: Callable[[Context, Any], list[FeatureRequest]] = _request_nothing
    """requests(context, config) -> the frozen features that `run` will ask for."""
    content: Callable[[Any], dict[str, str]] = _no_content
    """content(config) -> sha256 of data that the evaluation reads beside the labelled images, by name."""
    compares: Callable[[Any], bool] = _compares_nothing
    """compares(config) -> whether a suite gives it the trunks of the cells before it, as `context.others`."""
    data_fields: tuple[str, ...] = ()
    """Fields of the config that name such data: their content is in the key, and their place is not."""
    reads_images: bool = True
    """Whether it reads the labelled images of the suite."""
    needs_trunk: bool = True
    metric: str = "top1_pct"
    """The result that tables and verdicts use; a percentage, higher is better."""


def folds_of(labels_N: Int64s) -> Int64s:
    """Return the fold, 0 to 4, of every sample: the first of a class goes to fold 0, the second to fold 1, and so on.

    By order within the class, so every fold holds a fifth of every class and no random number is needed.
    """
    folds = np.empty(len(labels_N), dtype=np.int64)
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        folds[rows] = np.arange(len(rows)) % NUM_FOLDS
    return folds


def draw_labelled(labels_N: Int64s, per_class: int, draw: int) -> Int64s:
    """Return the sorted rows of `per_class` samples of every class, the same for every trunk: differences are paired.

    Raises DataError where a class has fewer.
    """
    chosen = []
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        _check_count(int(label), len(rows), per_class)
        # A generator for each class, so that another class in the data leaves these draws as they are.
        rng = rng_for(draw, 0, f"class {label}", "labels_per_class")
        chosen.append(rng.choice(rows, per_class, replace=False))
    return np.sort(np.concatenate(chosen))


def _check_count(label: int, count: int, per_class: int) -> None:
    if count < per_class:
        raise DataError(
            f"labels_per_class = {per_class}: class {label} has {count} samples in the train split; "
            "give a smaller number or more shards."
        )


def check_labels(images: Path, train_split: str, test_split: str, labels_per_class: Sequence[int] = ()) -> None:
    """Check that a probe can run: raise UsageError without such splits, DataError without labels or with one class.

    DataError also where a class has fewer train samples than the largest of `labels_per_class`.
    """
    manifest = load_manifest(images)
    train_N, test_N = (manifest.select("image", split).label for split in (train_split, test_split))
    if (train_N < 0).any() or (test_N < 0).any():
        raise DataError(f"{images}: it has unlabelled images; probes need labels. Build the shards from class folders.")
    classes, counts = np.unique(train_N, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"{images}: {len(classes)} class in split {train_split}; a probe needs at least 2.")
    if unknown := sorted(set(test_N.tolist()) - set(classes.tolist())):
        raise DataError(
            f"{images}: classes {unknown} are in split {test_split} only. Build the shards with another val rule."
        )
    for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
        _check_count(label, count, max(labels_per_class, default=0))


def check_labelled(context: Context, config: Any) -> None:
    """Check the labelled images of a context, and `labels_per_class` of the config if it has that. Raises as above."""
    per_class = getattr(config, "labels_per_class", ())
    check_labels(context.the_images(), context.train_split, context.test_split, per_class)


def score(answers_NK: npt.NDArray[Any], labels_N: Int64s) -> dict[str, float]:
    """Return top1_pct, and top5_pct where there are more than 5 classes. Ties count as wrong."""
    # Ties count as wrong: a trunk that gives all images the same features must not score above chance.
    of_label_N1 = np.take_along_axis(answers_NK, labels_N[:, None], axis=1)
    num_at_least_N = (answers_NK >= of_label_N1).sum(axis=1)
    shares = {"top1_pct": 100.0 * float((num_at_least_N <= 1).mean())}
    if answers_NK.shape[1] > 5:
        shares["top5_pct"] = 100.0 * float((num_at_least_N <= 5).mean())
    return shares


def mean_over_draws(draws: Sequence[Mapping[str, float]], per_class: int) -> Results:
    """Return mean scores of several draws of `per_class` labels (top1_20_labels_pct, ...), and top-1 of every draw."""
    named = {
        name.replace("_pct", f"_{per_class}_labels_pct"): sum(draw[name] for draw in draws) / len(draws)
        for name in draws[0]
    }
    return {**named, f"top1_{per_class}_labels_draws_pct": [draw["top1_pct"] for draw in draws]}
