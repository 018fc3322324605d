"""Draw a contact sheet of the inputs and targets of each task, for readers new to the paper: shards in, one PNG out.

The tasks themselves make the pictures, from the geometry they draw in training, so that the sheet shows their mistakes.
A task without samples of its kind gets no section.
Letters: B samples, S canvas side, P patch side, h w the map at stride 8, K neighbours of a soft target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipelines.base.batch_rng import BatchRng
from pipelines.base.errors import DataError, UsageError
from pipelines.base.rng import rng_for
from pipelines.decode.opencv import OpenCVBackend
from pipelines.preview.contact_sheet import Example, Panel, Section, draw_sheet, fit_height
from pipelines.preview.target_pictures import (
    BLUE,
    DARK,
    ORANGE,
    PALE,
    PINK,
    ab_picture,
    ab_plane,
    compass,
    flow_picture,
    mosaic,
    outlined,
    overlaid,
    picture_of,
    tagged,
)
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import Kind, Manifest, SampleTable, load_manifest
from pipelines.targets.color.color_prior import load_prior
from pipelines.targets.color.lab import ab_bins
from pipelines.targets.motion.dense_flow import DisFlow
from pipelines.targets.motion.motion_mask import VERDICTS, Verdict
from pipelines.tasks import PRETEXT_TASKS, CanvasSpec, Task, TaskBatch

__all__ = ["write_sheet"]

PAIR_STEP = 7
PLACES = ("top left", "top", "top right", "left", "right", "bottom left", "bottom", "bottom right")
COLOR_TEXT = {
    "drop": "Of each patch one color channel is kept and the others are noise, so that the color fringes of a lens "
    "cannot give its place away.",
    "project": "The green-magenta part of the color is removed, so that the color fringes of a lens cannot give a "
    "patch's place away.",
    "gray": "Patches are gray, so that the color fringes of a lens cannot give their place away.",
    "keep": "Colors are kept.",
}


LEFT_OUT: dict[Verdict, str] = {"no_texture": "too flat", "cut": "a cut or a flash", "usable": "nothing is clear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Samples:
    """Decoded samples of one kind, rows of a table: pixels uint8 RGB (B, S, S, 3) or (B, T, H, W, 3)."""

    table: SampleTable
    rows: npt.NDArray[np.int64]
    pixels: torch.Tensor
    canvas: CanvasSpec

    @property
    def folder(self) -> Path:
        return self.table.folder

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.table.keys[row] for row in self.rows)


def write_sheet(
    folder: Path,
    out: Path,
    *,
    clips: Path | None = None,
    num_samples: int = 4,
    seed: int = 0,
    canvas_px: int = 256,
) -> Path:
    """Draw the sheet into `out` (PNG) and return its path.

    `clips`: folder of clip shards, if `folder` has none. Raises UsageError (nothing to show, no PNG) or DataError.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: need a name that ends in .png.")
    # If both folders have both kinds, images come from the first and clips from the second.
    images_first = [load_manifest(one) for one in dict.fromkeys([folder, clips or folder])]
    found = {
        "image": _load(images_first, "image", num_samples, seed, canvas_px),
        "clip": _load(images_first[::-1], "clip", num_samples, seed, canvas_px),
    }
    # A task that was added without a drawer is left out: a preview is no part of adding a task.
    sections = []
    for task_class in PRETEXT_TASKS.values():
        samples, draw = found[task_class.source], DRAWERS.get(task_class.name)
        if samples is not None and draw is not None:
            task = _build(task_class, samples)
            if task.source == "image" and task.canvas_px != samples.canvas.canvas_px:
                samples = _decode(samples.table, samples.rows, task.canvas_px)
            sections.append(draw(task, samples, seed))
    if not sections:
        raise UsageError(f"{folder}: holds no samples, so there is nothing to show. Build shards of images or videos.")
    picture = draw_sheet("Inputs and targets of each task", _subtitle(found, seed), sections)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first, so that a sheet that exists is whole.
    temporary = out.with_name(f".{out.name}.tmp")
    Image.fromarray(picture).save(temporary, format="PNG")
    return temporary.replace(out)


def _subtitle(found: dict[str, "_Samples | None"], seed: int) -> str:
    folders = dict.fromkeys(str(samples.folder) for samples in found.values() if samples is not None)
    return f"Random samples of {' and '.join(folders)}, seed {seed}. No human label is used anywhere on this page."


def _load(manifests: list[Manifest], kind: Kind, num_samples: int, seed: int, canvas_px: int) -> _Samples | None:
    """Decode random samples of the first folder with this kind, if possible of its train split; None without any."""
    for manifest in manifests:
        splits = sorted({shard.split for shard in manifest.shards if shard.kind == kind}, key=lambda s: s != "train")
        if splits:
            table = manifest.select(kind, splits[0])
            rows = rng_for(seed, 0, "samples", "preview").permutation(len(table))[:num_samples]
            return _decode(table, rows, canvas_px)
    return None


def _decode(table: SampleTable, rows: npt.NDArray[np.int64], canvas_px: int) -> _Samples:
    reader = SampleReader(table)
    encoded = [reader.read(int(row)) for row in rows]
    # The shortest of the chosen clips decides: a batch has one number of frames.
    canvas = CanvasSpec(canvas_px=canvas_px, num_frames=int(table.num_frames[rows].min()))
    no_flips = np.zeros(len(rows), dtype=np.bool_)
    # Always OpenCV: it needs no GPU, and a preview must look the same on every machine.
    backend = OpenCVBackend(num_threads=1)
    try:
        if table.kind == "image":
            boxes = np.array([_middle_square(int(table.width[row]), int(table.height[row])) for row in rows], np.int32)
            decoded = backend.canvases(encoded, boxes, no_flips, canvas_px)
        else:
            height, width = canvas.clip_height_px, canvas.clip_width_px
            decoded = backend.clips(encoded, no_flips, canvas.num_frames, height, width)
    finally:
        backend.close()
    if decoded.failures:
        row, reason = decoded.failures[0]
        key = table.keys[rows[row]]
        raise DataError(f"{table.folder}: sample {key}: {reason}. Look for more: fourfold shards verify.")
    return _Samples(table=table, rows=rows, pixels=decoded.pixels, canvas=canvas)


def _middle_square(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    x0, y0 = (width - side) // 2, (height - side) // 2
    return x0, y0, x0 + side, y0 + side


def _build(task_class: type[Task], samples: _Samples) -> Task:
    # Counted colors change the weights, and the sheet says how much.
    options: dict[str, Any] = {}
    if task_class.name == "colorization" and load_prior(samples.folder) is not None:
        options["prior"] = samples.folder
    return task_class(task_class.config_class(**options), samples.canvas)


def _make(task: Task, samples: _Samples, seed: int) -> TaskBatch:
    geometry = task.draw(BatchRng(seed, [0] * len(samples.keys), samples.keys, task.name))
    return task.make(samples.pixels, geometry, samples.keys)


def _relative_position(task: Any, samples: _Samples, seed: int) -> Section:
    batch = _make(task, samples, seed)
    pairs, side = task.pairs, task.patch_px
    num_pairs = len(pairs.position)
    examples = []
    for index, key in enumerate(samples.keys):
        # Of all pairs of the grid one is shown, another one for every image.
        shown = (index * PAIR_STEP + seed) % num_pairs
        first, second, place = (int(one[shown]) for one in (pairs.first, pairs.second, pairs.position))
        marks = {first: ("A", BLUE), second: ("B", ORANGE)}
        patches = batch.inputs[index * task.examples_per_sample]
        corners = batch.geometry["corner_xy"][index, 0].tolist()
        boxes = [((x, y, x + side, y + side), *marks.get(patch, ("", PALE))) for patch, (x, y) in enumerate(corners)]
        panels = (
            Panel(picture=outlined(picture_of(samples.pixels[index]), boxes), caption="an image, a grid of patches"),
            Panel(
                picture=mosaic([picture_of(one) for one in patches], task.grid.cols, marks),
                caption=f"sees: each of the {len(patches)} patches alone",
            ),
            Panel(picture=compass(place), caption=f"target: {PLACES[place]} (class {place})"),
        )
        examples.append(Example(title=key, panels=panels))
    return Section(
        title="Relative position",
        question=f"Two patches of one image: in which of 8 directions from A is B? {num_pairs} pairs an image.",
        text="Every two neighbours make a pair, in both directions; one pair is marked. To solve it, a network must "
        f"know what things look like and how their parts are arranged. {COLOR_TEXT[task.color]} Gaps and random shifts "
        "between patches keep lines from continuing across the border.",
        examples=tuple(examples),
    )


def _colorization(task: Any, samples: _Samples, seed: int) -> Section:
    batch = _make(task, samples, seed)
    examples = []
    for index, key in enumerate(samples.keys):
        bins_Khw, weights_Khw = batch.target["bins"][index].numpy(), batch.target["bin_weights"][index].numpy()
        ab_hw2 = ab_bins()[bins_Khw[0]]
        # The most colorful block explains the target best.
        row, column = np.unravel_index(int(np.square(ab_hw2).sum(-1).argmax()), ab_hw2.shape[:2])
        answer = fit_height(ab_picture(ab_hw2))
        cell = answer.shape[0] / ab_hw2.shape[0]
        marked = outlined(answer, [((column * cell, row * cell, (column + 1) * cell, (row + 1) * cell), "", DARK)])
        shares = weights_Khw[:, row, column]
        panels = (
            Panel(picture=picture_of(samples.pixels[index]), caption="an image"),
            Panel(picture=picture_of(batch.inputs[index]), caption="sees: its lightness"),
            Panel(picture=marked, caption=f"target: the color of each block{_note(batch.weight[index])}"),
            Panel(
                picture=ab_plane(bins_Khw[:, row, column], shares),
                caption="marked block: weights of the nearest colors",
            ),
        )
        examples.append(Example(title=key, panels=panels))
    return Section(
        title="Colorization",
        question="A gray image: which of 313 colors does each block of 8 x 8 pixels have?",
        text="To solve it, a network must recognise grass, sky or skin. Targets are drawn at one lightness. The "
        f"last picture shows all 313 colors, and the weights of one block's {task.num_neighbors} nearest.",
        examples=tuple(examples),
    )


def _note(weight_hw: torch.Tensor) -> str:
    if not bool(weight_hw.any()):
        return " (an image without color: left out of the loss)"
    low, high = float(weight_hw.min()), float(weight_hw.max())
    return f"; rare colors count up to {high / low:.0f} times as much" if high > 1.05 * low > 0 else ""


def _exemplar(task: Any, samples: _Samples, seed: int) -> Section:
    batch = _make(task, samples, seed)
    examples = []
    for index, key in enumerate(samples.keys):
        # As the loss takes it: the anchor of the row that the target names.
        negative = int(batch.target["negative"][index])
        anchor, positive = picture_of(batch.inputs[index, 0]), picture_of(batch.inputs[index, 1])
        other = tagged(picture_of(batch.inputs[negative, 0]), "C", PINK)
        panels = (
            Panel(picture=picture_of(samples.pixels[index]), caption="an image"),
            Panel(picture=tagged(anchor, "A", BLUE), caption="sees: a patch of it (anchor)"),
            Panel(picture=tagged(positive, "B", ORANGE), caption="sees: the same patch, changed (positive)"),
            Panel(picture=other, caption="sees: a patch of another image (negative)"),
        )
        examples.append(Example(title=key, panels=panels))
    return Section(
        title="Exemplar",
        question="Three patches: embed A and B close together, and C far away.",
        text="A and B are the same patch, each moved, turned, scaled and recolored at random; C is from another image. "
        "To solve it, a network must ignore these changes and recognise what is shown.",
        examples=tuple(examples),
    )


def _motion_segmentation(task: Any, samples: _Samples, seed: int) -> Section:
    batch = _make(task, samples, seed)
    engine = DisFlow("medium")
    examples = []
    for index, key in enumerate(samples.keys):
        frames = samples.pixels[index].numpy()
        # Flow of our own, for the picture only: the mask's is at half the size and not kept.
        flow_HW2 = engine.pair_flow(*(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[:2]))
        moving_hw, weight_hw = batch.target["moving"][index].numpy(), batch.weight[index].numpy()
        # Of the cells that count, since the others have no answer to be right about.
        share = float((moving_hw * (weight_hw > 0)).sum() / max((weight_hw > 0).sum(), 1))
        is_used = bool((weight_hw > 0).any())
        reason = LEFT_OUT[VERDICTS[int(batch.geometry["verdict"][index])]]
        answer = f"target: what moves ({share:.0%})" if is_used else f"left out of the loss: {reason}"
        speed = f"{np.percentile(np.linalg.norm(flow_HW2, axis=-1), 98):.1f} px"
        panels = (
            Panel(picture=frames[0], caption="sees: this frame only"),
            Panel(picture=flow_picture(flow_HW2), caption=f"motion to the next frame, up to {speed}"),
            Panel(picture=overlaid(frames[0], moving_hw, weight_hw), caption=answer),
        )
        examples.append(Example(title=key, panels=panels))
    return Section(
        title="Motion segmentation",
        question="One frame: which parts of it move by themselves, and not because the camera moves?",
        text="The target (orange) is computed from the first three frames, without a human: the camera's motion is "
        "subtracted from the flow, and colors tell where the moving part ends. Hatched blocks are left out of the "
        "loss. In the motion picture, color is direction (see the small wheel) and strength is speed.",
        examples=tuple(examples),
    )


DRAWERS: dict[str, Callable[[Any, _Samples, int], Section]] = {
    "relative_position": _relative_position,
    "colorization": _colorization,
    "exemplar": _exemplar,
    "motion_segmentation": _motion_segmentation,
}
