"""From a configuration to findings: all tasks, in their order, the same every time."""

import numpy as np
import torch

from benchmarks.shortcuts.untrained import Rows, counts_by_source, findings_of_config
from pipelines.base.progress import quiet_progress
from pipelines.build import PipelineConfig
from pipelines.tasks.base import TaskBatch


def test_all_tasks_of_a_configuration_in_its_order_and_the_same_every_time(small_shards):
    folder = str(small_shards(images=8, clips=4, num_frames=4))
    config = PipelineConfig(
        images=folder,
        clips=folder,
        canvas_px=64,
        clip_height_px=48,
        clip_width_px=64,
        num_frames=4,
        batch_size=4,
        tasks={"motion_segmentation": {}, "exemplar": {}, "colorization": {}},
    )
    with quiet_progress():
        found, again = (findings_of_config(config, num_samples=4) for _ in range(2))
        only = findings_of_config(config, num_samples=4, tasks=["exemplar"])
    assert found == again
    assert list(dict.fromkeys(one.task for one in found)) == list(config.tasks)
    assert only == [one for one in found if one.task == "exemplar"]
    assert all(0 <= one.ci95_low <= one.value <= one.ci95_high <= 1 for one in found)


def test_clips_of_one_video_are_one_source() -> None:
    keys = np.array(["a_t00000000", "b_t00000000", "a_t00000010", "a_t00000000"])
    clips, images = (counts_by_source(keys, np.arange(4), np.ones(4), kind) for kind in ("clip", "image"))
    assert (clips.num.tolist(), clips.den.tolist()) == ([5, 1], [3, 1])
    assert images.den.tolist() == [2, 1, 1]


def test_rows_of_a_sample_are_summed_and_known_samples_left_out():
    rows = Rows()
    batch = TaskBatch(task="any", inputs=torch.zeros(4, 3, 8, 8), target={}, weight=torch.ones(4), keys=("b", "a"))
    rows.add(batch, {"value": np.arange(4)})
    looks, keys = rows.joined()
    assert (looks["value"].tolist(), keys.tolist()) == ([0, 1, 2, 3], ["b", "b", "a", "a"])
    counts = counts_by_source(keys, looks["value"], np.ones(4), "image")
    assert (counts.num.tolist(), counts.den.tolist()) == ([5, 1], [2, 2])
    assert rows.joined(without=np.array(["b"]))[0]["value"].tolist() == [2, 3]
