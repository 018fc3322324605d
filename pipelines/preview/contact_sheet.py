"""Draw contact sheets: sections of examples, each a row of pictures with captions, become one RGB image.

Pictures are uint8 RGB (H, W, 3). Lengths are pixels of the sheet. Pillow draws with its built-in font, so a sheet looks
the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Example", "Panel", "Section", "draw_sheet", "fit_height", "font", "wrapped"]

Picture = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

PANEL_PX = 200
GAP_PX = 14
EXAMPLE_GAP_PX = 56
MARGIN_PX = 56
EXAMPLES_PER_ROW = 2
INK: Color = (24, 28, 36)
QUIET: Color = (104, 112, 124)
RULE: Color = (221, 225, 231)
PAPER: Color = (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture with a caption of a few words, which is wrapped to the picture's width."""

    picture: Picture
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sample as a row of panels; `title` names the sample."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One task: `question` is the task in a sentence, `text` explains the pictures."""

    title: str
    question: str
    text: str
    examples: tuple[Example, ...]


def draw_sheet(title: str, subtitle: str, sections: Sequence[Section]) -> Picture:
    """Draw the sheet, as wide as its widest section and as high as needed: uint8 RGB (H, W, 3)."""
    width = max((_section_width(section) for section in sections), default=0)
    width = max(width, 900) + 2 * MARGIN_PX
    # The height is known only after text is wrapped: draw on a sheet that is certainly high enough, then cut it.
    height = 400 + sum(300 + (PANEL_PX + 160) * _num_rows(section) for section in sections)
    image = Image.new("RGB", (width, height), PAPER)
    pen = _Pen(ImageDraw.Draw(image), image, width)
    y = pen.text(MARGIN_PX, MARGIN_PX, title, 40, INK)
    y = pen.text(MARGIN_PX, y + 8, subtitle, 18, QUIET)
    for section in sections:
        y = pen.section(y + 34, section)
    return np.asarray(image)[: y + MARGIN_PX]


def fit_height(picture: Picture, height: int = PANEL_PX) -> Picture:
    """Scale a picture to a height in pixels."""
    # Enlarged without smoothing, so that single pixels and blocks stay visible.
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    method = cv2.INTER_AREA if picture.shape[0] > height else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.uint8)


@lru_cache(maxsize=16)
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Pen of a sheet: every method draws from `y` down and returns the y below what it drew."""

    draw: ImageDraw.ImageDraw
    image: Image.Image
    width: int

    def section(self, y: int, section: Section) -> int:
        self.draw.line((MARGIN_PX, y, self.width - MARGIN_PX, y), fill=RULE, width=2)
        y = self.text(MARGIN_PX, y + 22, section.title, 28, INK)
        y = self.text(MARGIN_PX, y + 6, section.question, 20, INK)
        y = self.text(MARGIN_PX, y + 4, section.text, 16, QUIET) + 18
        # Columns are as wide as the widest example, so that examples of a section stand below each other.
        step = _example_width(section) + EXAMPLE_GAP_PX
        for first in range(0, len(section.examples), EXAMPLES_PER_ROW):
            row = section.examples[first : first + EXAMPLES_PER_ROW]
            y = max(self.example(MARGIN_PX + column * step, y, one) for column, one in enumerate(row)) + 20
        return y

    def example(self, x: int, y: int, example: Example) -> int:
        y = self.text(x, y, example.title, 14, QUIET) + 6
        bottom = y
        for panel in example.panels:
            picture = fit_height(panel.picture)
            width = picture.shape[1]
            self.image.paste(Image.fromarray(picture), (x, y))
            self.draw.rectangle((x - 1, y - 1, x + width, y + PANEL_PX), outline=RULE)
            bottom = max(bottom, self.text(x, y + PANEL_PX + 8, panel.caption, 14, INK, width))
            x += width + GAP_PX
        return bottom

    def text(self, x: int, y: int, text: str, size_px: int, color: Color, width: int | None = None) -> int:
        for line in wrapped(text, size_px, width or self.width - MARGIN_PX - x):
            self.draw.text((x, y), line, font=font(size_px), fill=color)
            y += round(1.35 * size_px)
        return y


def wrapped(text: str, size_px: int, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels; a longer word gets a line of its own."""
    # By measured width, because letters of the font differ in width.
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font(size_px).getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _num_rows(section: Section) -> int:
    return -(-len(section.examples) // EXAMPLES_PER_ROW)


def _example_width(section: Section) -> int:
    widths = [sum(fit_height(p.picture).shape[1] + GAP_PX for p in one.panels) for one in section.examples]
    return max(widths, default=GAP_PX) - GAP_PX


def _section_width(section: Section) -> int:
    columns = min(EXAMPLES_PER_ROW, len(section.examples))
    return columns * _example_width(section) + (columns - 1) * EXAMPLE_GAP_PX
