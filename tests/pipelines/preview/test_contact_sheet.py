"""Contact sheets: everything is on the sheet, inside its margins, and whole."""

import numpy as np
import pytest

from pipelines.preview.contact_sheet import (
    MARGIN_PX,
    PANEL_PX,
    Example,
    Panel,
    Section,
    draw_sheet,
    fit_height,
    font,
    wrapped,
)

RED = (250, 0, 0)


def picture(height: int, width: int, color: tuple[int, int, int] = RED) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (height, width, 3)).copy()


def section(num_examples: int, num_panels: int = 2, width: int = 100) -> Section:
    panels = tuple(Panel(picture=picture(100, width), caption="a caption " * 4) for _ in range(num_panels))
    examples = tuple(Example(title=f"sample {index}", panels=panels) for index in range(num_examples))
    return Section(title="a task", question="what?", text="why " * 200, examples=examples)


@pytest.mark.parametrize("num_examples", [1, 2, 3, 4])
def test_all_panels_are_drawn_whole_and_inside_the_margins(num_examples: int) -> None:
    sheet = draw_sheet("title", "subtitle", [section(num_examples), section(num_examples, num_panels=3)])
    is_red = (sheet == RED).all(-1)
    assert is_red.sum() == num_examples * 5 * PANEL_PX**2
    columns = np.flatnonzero(is_red.any(0))
    assert columns[0] == MARGIN_PX
    assert columns[-1] < sheet.shape[1] - MARGIN_PX
    border = np.concatenate([sheet[:MARGIN_PX].ravel(), sheet[-20:].ravel(), sheet[:, : MARGIN_PX - 1].ravel()])
    assert (border == 255).all()
    assert (sheet[:, -MARGIN_PX + 1 :] == 255).all()


def test_a_taller_task_makes_a_taller_sheet() -> None:
    assert draw_sheet("t", "s", [section(4)]).shape[0] > draw_sheet("t", "s", [section(2)]).shape[0] + PANEL_PX


def test_fit_height_keeps_the_ratio_and_single_pixels() -> None:
    assert fit_height(picture(240, 320)).shape == (PANEL_PX, round(PANEL_PX * 4 / 3), 3)
    checks = np.indices((4, 4)).sum(0) % 2 * 255
    enlarged = fit_height(np.repeat(checks[..., None], 3, -1).astype(np.uint8))
    assert set(np.unique(enlarged)) == {0, 255}


def test_wrapping_loses_no_word_and_fits() -> None:
    text = " ".join(f"word{index}" for index in range(50))
    lines = wrapped(text, 14, 200)
    assert " ".join(lines) == text
    assert all(font(14).getlength(line) <= 200 for line in lines)


def test_a_word_longer_than_the_line_stands_alone() -> None:
    assert wrapped("a " + "x" * 100 + " b", 14, 60) == ["a", "x" * 100, "b"]
