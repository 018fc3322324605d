"""Exported tables read back, each by an independent reader, and charts opened as pictures."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from benchmarks.results.charts.figure import Style, drawing
from benchmarks.results.report.exports import FORMATS, export, formats_of
from pipelines.base.errors import UsageError
from tests.made.made_status import made_status
from tests.made.made_suites import made_suite

NAME = "50 % of $x_1$ | <b> & more"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of all formats by name, of a suite with a task set of a hard name."""
    folder = tmp_path_factory.mktemp("exports")
    suite = made_suite(folder, depths=[10, 18], evaluations={"linear_probe": {"labels_per_class": []}})
    sets = tuple(replace(one, name=NAME) if one.role == "combined" else one for one in suite.task_sets)
    status = made_status(replace(suite, task_sets=sets), folder / "out")
    paths = export(status, folder / "export", formats_of("csv,latex,markdown,svg,png"))
    return {path.name: path for path in paths}


def test_csv_has_every_number_of_every_cell(written: dict[str, Path]) -> None:
    with written["results.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        (row["row"], row["depth"], row["seed"]): float(row["value"]) for row in rows if row["result"] == "top1_pct"
    }
    assert found[NAME, "18", "2"] == 70 + 2 + 1.8
    assert found["pixel floor", "", ""] == 40.0
    assert len(found) == 25


def test_latex_is_escaped_and_its_columns_agree(written: dict[str, Path]) -> None:
    text = written["tables.tex"].read_text()
    row = next(line for line in text.splitlines() if line.startswith("50"))
    assert row.startswith(r"50 \% of \$x\_1\$ | <b> \& more & \textbf{72.0 $\pm$ 2.5 (3)} & ")
    # Ampersands that are not escaped, and columns: the first is no number.
    assert len(re.findall(r"(?<!\\)&", row)) == 3
    assert r"\begin{tabular}{lrrr}" in text
    assert r"pixel floor & \multicolumn{2}{r}{40.0} & 2.4 \\" in text


def test_markdown_keeps_its_columns_whatever_a_set_is_named(written: dict[str, Path]) -> None:
    row = next(line for line in written["tables.md"].read_text().splitlines() if line.startswith("| 50"))
    assert re.split(r"(?<!\\)\|", row)[1:-1] == [
        r" 50 % of $x\_1$ \| \<b> & more ",
        " **72.0 ± 2.5 (3)** ",
        " **72.8 ± 2.5 (3)** ",
        # 100 * sqrt(0.72 * 0.28 / 400)
        " 2.2 ",
    ]


def test_charts_are_pictures_with_their_title_and_legend(written: dict[str, Path]) -> None:
    with Image.open(written["depth-linear-probe-top1.png"]) as picture:
        assert picture.width > 1000
    texts = [one.text for one in ElementTree.parse(written["depth-linear-probe-top1.svg"]).iter() if one.text]
    assert NAME in texts
    assert "depth of the trunk" in texts
    assert "var(--" not in written["depth-linear-probe-top1.svg"].read_text()


def test_logarithmic_axes_have_plain_numbers() -> None:
    """matplotlib's own are formulas such as `$10^2$`, which stay as they are: names of users may have a dollar."""
    with drawing("log", "log") as chart:
        chart.line([2, 900], [1, 1000], Style(color="#000000"))
        chart.make_logarithmic("x", "y")
    texts = [one.text for one in ElementTree.fromstring(chart.svg()).iter() if one.tag.endswith("text")]
    assert {"5", "10", "200"} <= set(texts)
    assert not any("$" in text for text in texts if text)


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"excel is no format.*csv, latex, markdown, svg, png, pdf"):
        formats_of("csv,excel")
    assert formats_of("csv, png") == ["csv", "png"]
    assert list(FORMATS) == ["csv", "latex", "markdown", "svg", "png", "pdf"]
