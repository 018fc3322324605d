"""Draw single inputs and targets as pictures for contact sheets. Pictures are uint8 RGB (H, W, 3).

Letters: K neighbours of a soft target, h w a map of blocks.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from pipelines.preview.contact_sheet import PANEL_PX, fit_height, font
from pipelines.targets.color.lab import ab_bins, lab_to_rgb

__all__ = [
    "BLUE",
    "DARK",
    "ORANGE",
    "PALE",
    "PINK",
    "ab_picture",
    "ab_plane",
    "compass",
    "flow_picture",
    "mosaic",
    "outlined",
    "overlaid",
    "picture_of",
    "tagged",
]

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

BLUE: Color = (30, 94, 235)
ORANGE: Color = (236, 104, 16)
PINK: Color = (200, 30, 110)
DARK: Color = (30, 34, 42)
PALE: Color = (196, 202, 210)
WHITE: Color = (255, 255, 255)
SHOWN_LIGHTNESS = 68.0
BIN_PX = 8
MOST_BARS = 5
WHEEL_PX = 44


def picture_of(tensor: torch.Tensor) -> Picture:
    """Convert a tensor, uint8 (H, W, 3) or float (3, H, W) in [0, 1], to a picture."""
    if tensor.dtype == torch.uint8:
        return np.ascontiguousarray(tensor.numpy())
    return tensor.permute(1, 2, 0).mul(255).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


def outlined(picture: Picture, boxes: Sequence[tuple[Box, str, Color]]) -> Picture:
    """Draw boxes (x0, y0, x1, y1 in pixels of the picture), each with a letter, and scale to the sheet."""
    # Scaled first: lines and letters drawn on a small picture would be enlarged to blocks.
    scale = PANEL_PX / picture.shape[0]
    image = Image.fromarray(fit_height(picture))
    pen = ImageDraw.Draw(image)
    for box, letter, color in boxes:
        x0, y0, x1, y1 = (round(scale * value) for value in box)
        pen.rectangle((x0 - 1, y0 - 1, x1, y1), outline=WHITE, width=1)
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=color, width=3)
        if letter:
            _tag(pen, x0, y0, letter, color)
    return np.asarray(image)


def tagged(picture: Picture, letter: str, color: Color) -> Picture:
    """Draw a letter into the top left corner, and a frame of its color."""
    height, width = picture.shape[:2]
    return outlined(picture, [((0, 0, width, height), letter, color)])


def _tag(pen: ImageDraw.ImageDraw, x: int, y: int, letter: str, color: Color) -> None:
    pen.rectangle((x, y, x + 21, y + 23), fill=color)
    pen.text((x + 11, y + 11), letter, font=font(17), fill=WHITE, anchor="mm")


def mosaic(pictures: Sequence[Picture], columns: int, marks: Mapping[int, tuple[str, Color]]) -> Picture:
    """Square pictures of one size in reading order with gaps between them; `marks`: letter and color of some."""
    side = len(pictures[0])
    pitch = side + max(side // 6, 2)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * pitch - (pitch - side), columns * pitch - (pitch - side), 3), 255, np.uint8)
    corners = [(index % columns * pitch, index // columns * pitch) for index in range(len(pictures))]
    for picture, (x, y) in zip(pictures, corners, strict=True):
        sheet[y : y + side, x : x + side] = picture
    boxes = [
        ((*corners[index], corners[index][0] + side, corners[index][1] + side), *mark) for index, mark in marks.items()
    ]
    return outlined(sheet, boxes)


def compass(place: int) -> Picture:
    """Draw 3 x 3 cells: A in the middle, B at `place` (0 to 7 in reading order), numbers in the others."""
    image = Image.new("RGB", (PANEL_PX, PANEL_PX), WHITE)
    pen = ImageDraw.Draw(image)
    side = (PANEL_PX - 4) / 3
    for cell in range(9):
        x, y = 2 + (cell % 3) * side, 2 + (cell // 3) * side
        # The middle has no number: places count 0 to 7 around it.
        number = cell - (cell > 4)
        is_centre, is_answer = cell == 4, cell != 4 and number == place
        fill = BLUE if is_centre else ORANGE if is_answer else WHITE
        pen.rectangle(
            (x + 3, y + 3, x + side - 3, y + side - 3), fill=fill, outline=None if is_centre or is_answer else PALE
        )
        text, color = ("A", WHITE) if is_centre else ("B", WHITE) if is_answer else (str(number), PALE)
        pen.text(
            (x + side / 2, y + side / 2), text, font=font(28 if is_centre or is_answer else 18), fill=color, anchor="mm"
        )
    return np.asarray(image)


def ab_picture(ab_hw2: Floats, lightness: float = SHOWN_LIGHTNESS) -> Picture:
    """Draw ab colors, (h, w, 2), all at one lightness (0 to 100)."""
    ab = torch.from_numpy(np.array(ab_hw2, dtype=np.float32))
    lab = torch.cat([torch.full((*ab.shape[:-1], 1), lightness), ab], dim=-1)
    rgb: Picture = lab_to_rgb(lab).mul(255).round().to(torch.uint8).numpy()
    return rgb


def ab_plane(bins_K: npt.NDArray[np.int64], weights_K: Floats) -> Picture:
    """Draw the 313 bins in the ab plane (a right, b up), with `bins_K` framed and their weights as bars."""
    # 1. All bins in pale colors, for the shape of the gamut.
    image = Image.new("RGB", (PANEL_PX, PANEL_PX), WHITE)
    pen = ImageDraw.Draw(image)
    colors = ab_picture(ab_bins()[None])[0]
    # Pale, so that the few bins of the target stand out.
    pale = np.rint(0.45 * colors + 0.55 * 255).astype(np.uint8)
    for (a, b), color in zip(ab_bins(), pale, strict=True):
        x, y = _plane_xy(a, b)
        pen.rectangle((x - 3, y - 3, x + 3, y + 3), fill=tuple(color.tolist()))
    # 2. The bins of this target on top, in full color.
    for index, (bin_index, weight) in enumerate(zip(bins_K[:MOST_BARS], weights_K[:MOST_BARS], strict=True)):
        fill = tuple(colors[bin_index].tolist())
        x, y = _plane_xy(*ab_bins()[bin_index])
        pen.rectangle((x - 4, y - 4, x + 4, y + 4), fill=fill, outline=DARK)
        left, bottom = 8 + 15 * index, PANEL_PX - 8
        pen.rectangle((left, bottom - round(70 * float(weight)), left + 11, bottom), fill=fill, outline=DARK)
    return np.asarray(image)


def _plane_xy(a: float, b: float) -> tuple[float, float]:
    return PANEL_PX / 2 + BIN_PX * (a - 5) / 10, PANEL_PX / 2 - BIN_PX * b / 10


def flow_picture(flow_HW2: Floats) -> Picture:
    """Draw flow: direction as hue, speed as saturation; a color wheel in the corner is the key."""
    # Full saturation is the 98th percentile, so that a few wrong vectors do not make all others pale; at least one
    # pixel, so that noise in a still clip stays pale.
    speed = np.linalg.norm(flow_HW2, axis=-1)
    picture = _flow_colors(flow_HW2 / max(float(np.percentile(speed, 98)), 1.0))
    # The key is drawn by the same function as the flow, so that it cannot disagree with it.
    wheel_y, wheel_x = np.mgrid[-1 : 1 : WHEEL_PX * 1j, -1 : 1 : WHEEL_PX * 1j]
    wheel = _flow_colors(np.stack([wheel_x, wheel_y], axis=-1))
    is_inside = np.hypot(wheel_x, wheel_y) <= 1
    is_ring = np.hypot(wheel_x, wheel_y) <= 1.12
    picture = fit_height(picture).copy()
    corner = picture[-WHEEL_PX - 6 : -6, -WHEEL_PX - 6 : -6]
    corner[is_ring] = DARK
    corner[is_inside] = wheel[is_inside]
    return picture


def _flow_colors(unit_HW2: Floats) -> Picture:
    """Color vectors, (H, W, 2); those longer than 1 are as saturated as 1."""
    angle = np.arctan2(unit_HW2[..., 1], unit_HW2[..., 0])
    hsv = np.empty((*unit_HW2.shape[:2], 3), np.float32)
    hsv[..., 0] = np.rad2deg(angle) % 360
    hsv[..., 1] = np.minimum(np.linalg.norm(unit_HW2, axis=-1), 1)
    hsv[..., 2] = 0.97
    return np.asarray(np.rint(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)), dtype=np.uint8)


def overlaid(frame: Picture, moving_hw: Floats, weight_hw: Floats) -> Picture:
    """Draw foreground blocks in orange over the gray frame, and hatch blocks of weight 0."""
    height, width = frame.shape[:2]
    gray = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    moving, ignored = (_as_pixels(map_hw > 0.5, height, width) for map_hw in (moving_hw, weight_hw <= 0))
    gray[moving & ~ignored] = 0.35 * gray[moving & ~ignored] + 0.65 * np.array(ORANGE)
    # Hatched and not another color: "ignored" is no third class.
    y, x = np.mgrid[:height, :width]
    hatch = ignored & ((x + y) % 8 < 2)
    gray[hatch] = 0.3 * gray[hatch] + 0.7 * 255
    return np.asarray(np.rint(gray), dtype=np.uint8)


def _as_pixels(blocks_hw: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Enlarge blocks to 8 x 8 pixels, and cut them at the frame's border."""
    return np.kron(blocks_hw, np.ones((8, 8), dtype=np.bool_))[:height, :width].astype(np.bool_)
