"""Every pretext task has its shortcuts; unknown names are refused."""

import pytest

from benchmarks.shortcuts.tasks import SHORTCUTS, by_kind
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig
from pipelines.tasks import PRETEXT_TASKS


def test_every_pretext_task_has_shortcuts():
    assert list(SHORTCUTS) == list(PRETEXT_TASKS)


def test_tasks_are_grouped_by_what_they_read():
    config = PipelineConfig(tasks={"motion_segmentation": {}, "exemplar": {}, "supervised": {}, "colorization": {}})
    found = by_kind(config)
    assert {kind: list(one.tasks) for kind, one in found.items()} == {
        "clip": ["motion_segmentation"],
        "image": ["colorization", "exemplar"],
    }
    assert list(by_kind(config, ["exemplar"])) == ["image"]


@pytest.mark.parametrize(("tasks", "wanted", "words"), [({"exemplar": {}}, ["rotation"], "rotation"), ({}, [], "none")])
def test_a_task_that_is_not_there_is_refused(tasks, wanted, words):
    with pytest.raises(UsageError, match=words):
        by_kind(PipelineConfig(tasks=tasks), wanted)
