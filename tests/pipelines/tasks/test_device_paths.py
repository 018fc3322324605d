"""What tasks do on a GPU, without one: traced with tensors that have a device and no numbers, and run on the CPU.

A trace fails at the first `.cpu()`, `.numpy()` or `.item()` of a tensor that lies on the device, so a batch that comes
out of it never went through the host. It is made in a process of its own, because tables kept for a device would
otherwise stay without numbers.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.base.rng import rng_for
from pipelines.targets.color import lab as color
from pipelines.targets.color import soft_encoding
from pipelines.targets.views import guards, patch_colors, resampling
from pipelines.tasks import TASKS, exemplar
from pipelines.tasks.base import CanvasSpec, stack_geometry
from tests.made.pictures import smooth_picture

ROOT = Path(__file__).resolve().parents[3]
CANVAS = CanvasSpec(canvas_px=64, clip_height_px=48, clip_width_px=64, num_frames=6)
IMAGE_TASKS = ("relative_position", "colorization", "exemplar", "supervised")

TRACE = """
import json
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from pipelines.targets.color.lab import ab_bins
from pipelines.base.rng import rng_for
from pipelines.tasks import TASKS
from pipelines.tasks.base import CanvasSpec, stack_geometry

ab_bins()  # a table made on the CPU, once
canvas = CanvasSpec(canvas_px=64, clip_height_px=48, clip_width_px=64, num_frames=6)
found = {}
for name, options, is_gray in json.loads(INPUT):
    task = TASKS[name](TASKS[name].config_class(**options), canvas, lightness=is_gray)
    geometry = stack_geometry([task.draw(rng_for(0, 0, key, name)) for key in "abcd"])
    geometry["label"] = np.zeros(4, np.int64)
    promised = task.spec(4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        pixels = torch.empty((4, task.canvas_px, task.canvas_px, 3), dtype=torch.uint8, device="cuda")
        batch = task.make(pixels, geometry, tuple("abcd"))
        tensors = {"inputs": batch.inputs, "weight": batch.weight, **batch.target}
        found[f"{name} {options} {is_gray}"] = all(
            (tensor.device.type, tuple(tensor.shape), tensor.dtype)
            == ("cuda", promised[key].shape, promised[key].dtype)
            for key, tensor in tensors.items()
        )
print(json.dumps(found))
"""


def cases():
    guards_on = {"standardize": True, "jpeg_quality": [30, 80]}
    colors = [("relative_position", {"color": color}, False) for color in ("drop", "project", "gray", "keep")]
    guarded = [(name, options | guards_on, is_gray) for name, options, _ in colors for is_gray in (False, True)]
    guarded += [("exemplar", guards_on, is_gray) for is_gray in (False, True)]
    colors += [("relative_position", {"form": "pairs", "color": "drop"}, False)]
    colors += [("relative_position", {"rows": 4, "grids_per_image": 2, "canvas_px": 64, "patch_px": 9}, False)]
    return [*colors, *guarded, *((name, {}, is_gray) for name in IMAGE_TASKS for is_gray in (False, True))]


def test_image_tasks_never_go_through_the_host():
    program = TRACE.replace("INPUT", repr(json.dumps(cases())))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(cases())
    assert [case for case, is_kept in found.items() if not is_kept] == []


@pytest.fixture
def device_paths(monkeypatch):
    """The functions for a device in the places of those for a CPU, so that the former run on the CPU."""

    def use():
        monkeypatch.setattr(color, "_lightness_cpu", lambda pixels, _: color.lightness_torch(pixels))
        monkeypatch.setattr(color, "_blocks_cpu", color._blocks_torch)
        monkeypatch.setattr(color, "_ab_cpu", ab_torch)
        monkeypatch.setattr(soft_encoding, "_sorted", lambda key: key.sort(dim=-1).values)
        monkeypatch.setattr(soft_encoding, "_nearest_by_table", soft_encoding._nearest_by_sorting)
        monkeypatch.setattr(patch_colors, "_crop_cpu", patch_colors._crop_device)
        monkeypatch.setattr(patch_colors, "_drop_cpu", drop_on_device)
        monkeypatch.setattr(patch_colors, "_gray_cpu", gray_on_device)
        monkeypatch.setattr(resampling, "resampled_cpu", resampling.resampled_device)
        monkeypatch.setattr(exemplar.Exemplar, "_make_cpu", exemplar.Exemplar._make_device)
        monkeypatch.setattr(guards, "through_libjpeg", guards.through_jpeg)

    return use


def drop_on_device(pixels, cuts, patch_px, memory):
    return patch_colors._drop_device(patch_colors._crop_device(pixels, cuts.corner_xy, patch_px), cuts)


def gray_on_device(pixels, cuts, patch_px, memory, *, standardize):
    patches = patch_colors._crop_device(pixels, cuts.corner_xy, patch_px)
    return patch_colors._gray_device(patches, cuts, standardize=standardize)


def ab_torch(blocks):
    return color.linear_to_lab(color.linear_table(blocks.device)[blocks.int()])[..., 1:]


@pytest.mark.parametrize(("name", "options", "is_gray"), cases(), ids=lambda value: str(value).replace("'", ""))
def test_both_paths_give_the_same_targets_exactly_and_inputs_within_rounding(name, options, is_gray, device_paths):
    task = TASKS[name](TASKS[name].config_class(**options), CANVAS, lightness=is_gray)
    keys = [str(row) for row in range(8)]
    geometry = stack_geometry([task.draw(rng_for(0, 0, key, name)) for key in keys]) | {"label": np.arange(8)}
    side = task.canvas_px
    pixels = torch.from_numpy(np.stack([smooth_picture(seed, side, side) for seed in range(8)]))
    cpu = task.make(pixels, geometry, keys)
    device_paths()
    device = task.make(pixels, geometry, keys)
    for target in cpu.target:
        if cpu.target[target].dtype == torch.int64:
            assert torch.equal(cpu.target[target], device.target[target])
        else:
            torch.testing.assert_close(cpu.target[target], device.target[target], rtol=0, atol=1e-3)
    torch.testing.assert_close(cpu.weight, device.weight, rtol=0, atol=1e-6)
    apart = (cpu.inputs - device.inputs).abs() * 255
    # Re-encoding rounds a frequency to one step or the next, and standardizing magnifies that with the contrast.
    assert apart.mean() <= (2 if "jpeg_quality" in options else 0.1)
    assert np.percentile(apart, 99) <= (20 if "jpeg_quality" in options else 2)
