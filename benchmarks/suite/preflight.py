"""Checks of the data of a suite's evaluations before its first pretraining: no night must end at a missing folder."""

import torch

from benchmarks.evaluations import EVALUATIONS
from benchmarks.suite.graph import context_of
from benchmarks.suite.suite_config import Suite
from pipelines.base.errors import DataError, UsageError

__all__ = ["check_data"]


def check_data(suite: Suite) -> None:
    """Check the data of every evaluation and the weights of other libraries. Writes nothing.

    Raises UsageError or DataError: what is missing or unfit, one line for each problem.
    """
    problems = [*_evaluation_problems(suite), *_trunk_problems(suite)]
    if problems:
        # Of the first one's type: missing data is wrong usage, damaged data is not.
        raise type(problems[0])("\n".join(dict.fromkeys(str(problem) for problem in problems)))


def _evaluation_problems(suite: Suite) -> list[UsageError | DataError]:
    checked, problems = [], list[UsageError | DataError]()
    for point in suite.points:
        for name, kind in point.kinds.items():
            # Points mostly differ in the pretraining; the same options on the same data are checked once.
            this = (kind, point.evaluations[name], context_of(point))
            if this in checked:
                continue
            checked.append(this)
            try:
                EVALUATIONS[kind].check(this[2], this[1])
            except (UsageError, DataError) as error:
                place = point.source.at("evaluations", name)
                problems.append(type(error)(f"{place}: evaluations.{name}: {error}"))
    return problems


def _trunk_problems(suite: Suite) -> list[UsageError | DataError]:
    problems: list[UsageError | DataError] = []
    for name, given in suite.config.trunks.items():
        try:
            given.source.load(torch.device("cpu"))
        except (UsageError, DataError) as error:
            problems.append(type(error)(f"{suite.source}: trunks.{name}: {error}"))
    return problems
