"""A line changed in the project's own sources changes the code of exactly the stages that run it."""

from pathlib import Path

import pytest

from benchmarks.source_code import SourceTree
from benchmarks.suite.code.stage_code import StageCode
from benchmarks.suite.graph import expand
from benchmarks.suite.stages import Stage
from tests.made.made_sources import copy_sources, planted
from tests.made.made_suites import made_suite

PLANTED = "\nPLANTED = 1\n"
COMMENT = "\n# a comment\n"


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, ...]:
    """Stages of random weights, colorization, exemplar, both and the pixel floor, with two evaluations."""
    evaluations = {"linear_probe": {"labels_per_class": [2]}, "knn": {}}
    changes = {"depths": [10], "seeds": [0], "evaluations": evaluations}
    return expand(made_suite(tmp_path_factory.mktemp("suite"), **changes)).stages


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("sources"))


def changed_stages(stages: tuple[Stage, ...], root: Path, name: str, text: str) -> set[str]:
    """Stages whose code differs from today's once a line is appended to a file of the copy."""
    with planted(root / name, text):
        code = StageCode(SourceTree(root))
        return {f"{stage.kind}: {stage.label}" for stage in stages if code.of(stage) != stage.code}


def all_of(stages: tuple[Stage, ...], *words: str) -> set[str]:
    names = {f"{stage.kind}: {stage.label}" for stage in stages}
    return {name for name in names if any(word in name for word in words)}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("pipelines/tasks/exemplar.py", COMMENT, ()),
        ("pipelines/tasks/exemplar.py", PLANTED, ("exemplar", "Ex,")),
        ("training/heads/colorization.py", PLANTED, ("colorization", "Col")),
        ("benchmarks/evaluations/probes/linear_probe.py", PLANTED, ("linear_probe",)),
        ("training/loop.py", PLANTED, ("exemplar", "colorization", "Col")),
        ("training/trunk.py", PLANTED, ("pretrain", "linear_probe", "knn")),
        ("benchmarks/cli/doctor.py", PLANTED, ()),
    ],
)
def test_a_changed_line_is_noticed_by_the_stages_that_run_it(
    stages: tuple[Stage, ...], copied: Path, name: str, text: str, words: tuple[str, ...]
) -> None:
    changed = changed_stages(stages, copied, name, text)
    # The pixel floor asks for canvases and no trunk, but the base of evaluations imports the trunk's loader.
    assert changed - {"pixel_floor: pixel floor"} == all_of(stages, *words) - {"pixel_floor: pixel floor"}
