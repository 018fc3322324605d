"""The README's figures: the numbers of the record are those that are drawn, and the files are there and small."""

import json
import re
from pathlib import Path

import numpy as np

from benchmarks.studies.depth_figure import depth_chart

ROOT = Path(__file__).resolve().parents[3]
RECORD = ROOT / "benchmarks" / "records" / "natural7-2026-11-26.json"


def test_lines_go_through_the_means_of_the_record() -> None:
    results = json.loads(RECORD.read_text())["results"]
    chart = depth_chart(results, "top1_pct", "a title")
    drawn: dict[str, list[float]] = {}
    for mark in (mark for marks in chart.marks.values() for mark in marks if "seed " not in mark.text):
        drawn.setdefault(mark.text.partition(", depth")[0], []).append(mark.y)
    cells = [cell for cell in results["cells"] if cell["depth"] is not None]
    assert set(drawn) == {cell["task_set"] for cell in cells}
    for name, means in drawn.items():
        expected = [
            np.mean(
                [
                    cell["results"]["linear_probe"]["top1_pct"]
                    for cell in cells
                    if cell["task_set"] == name and cell["depth"] == depth
                ]
            )
            for depth in (10, 18)
        ]
        np.testing.assert_allclose(means, expected)


def test_figures_of_the_readme_are_there_and_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert [Path(path).name for path in shown] == ["tasks.jpg", "depth.png"]
    assert sum((ROOT / path).stat().st_size for path in shown) <= 400_000
    made = (ROOT / "docs" / "images" / "README.md").read_text()
    assert all(f"--out {path}" in made for path in shown)
