"""Which tasks see gray under each mode."""

import pytest

from pipelines.base.errors import UsageError
from pipelines.targets.color.harmonize import task_sees_lightness

TASKS = ("relative_position", "colorization", "exemplar", "motion_segmentation", "supervised")


@pytest.mark.parametrize(
    ("mode", "gray"), [("off", ()), ("paper", ("relative_position",)), ("all", TASKS)], ids=["off", "paper", "all"]
)
def test_modes(mode: str, gray: tuple[str, ...]) -> None:
    assert tuple(task for task in TASKS if task_sees_lightness(mode, task)) == gray


def test_an_unknown_mode_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UsageError, match="harmonize = 'half'; allowed are off, paper, all"):
        task_sees_lightness("half", "exemplar")
