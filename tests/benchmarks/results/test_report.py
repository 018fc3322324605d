import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.results.report import export_report, write_report
from benchmarks.results.report.collect import floor_of, metrics_of, values_of
from benchmarks.results.report.comparisons import compare, headline
from benchmarks.results.report.paper_tables import PAPER_TABLES
from benchmarks.results.report.report_page import page_of as document_of
from benchmarks.suite.graph import expand
from benchmarks.suite.run_suite import run_suite
from benchmarks.suite.status import SuiteStatus
from benchmarks.suite.suite_config import Suite
from tests.made.made_status import made_status
from tests.made.made_suites import fake_runner, made_suite


def run(suite: Suite, out: Path, fail: str = "nothing") -> SuiteStatus:
    runner = fake_runner(out, fail=lambda stage: fail in f"{stage.kind} {stage.label}")
    return run_suite(suite, out, runner=runner, say=lambda line: None)


@pytest.fixture(autouse=True, scope="module")
def _quick_preview() -> Iterator[None]:
    def write_sheet(folder: Path, out: Path, **options: object) -> Path:
        Image.new("RGB", (2400, 30), "red").save(out)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.preview.task_sheet.write_sheet", write_sheet)
        yield


class Page(HTMLParser):
    """Text outside scripts and styles, addresses it would load, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(suite: Suite, out: Path) -> Page:
    return Page(write_report(suite, out).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the report of a finished suite, made once: it costs half a second of drawing."""
    folder = tmp_path_factory.mktemp("finished")
    suite = made_suite(folder)
    run(suite, folder / "out")
    return write_report(suite, folder / "out")


def test_values_metrics_and_floor_are_those_of_the_records(tmp_path: Path) -> None:
    status = run(made_suite(tmp_path), tmp_path / "out")
    metrics = metrics_of(status)
    assert [(one.evaluation, one.name) for one in metrics] == [
        ("linear_probe", "top1_pct"),
        ("linear_probe", "top1_2_labels_pct"),
    ]
    titles = ["linear probe: top-1, all labels", "linear probe: top-1, 2 labels a class"]
    assert [one.title for one in metrics] == titles
    assert values_of(status, metrics[0])["Col + Ex"] == {
        (depth, seed): 70 + seed + depth / 10 for depth in (10, 18) for seed in (0, 1, 2)
    }
    assert (floor_of(status, metrics[0]), floor_of(status, metrics[1])) == (40.0, None)


def test_comparisons_are_paired_and_name_the_best_single(tmp_path: Path) -> None:
    status = run(made_suite(tmp_path), tmp_path / "out")
    found = {(one.second, one.depth): one for one in compare(status, metrics_of(status)[0])}
    assert found["colorization", None].role == "best single"
    assert found["exemplar", 18].role == "single"
    difference = found["colorization", 10].difference
    assert difference is not None
    # The made-up seeds move both alike, so paired differences have no spread at all.
    assert (difference.mean, difference.num_seeds) == (10.0, 3)
    assert difference.sd == pytest.approx(0, abs=1e-9)
    over_all = found["random init", None].difference
    assert over_all is not None
    assert (over_all.num_seeds, over_all.num_depths) == (3, 2)


def test_headline_answers_the_question_first(tmp_path: Path) -> None:
    status = run(made_suite(tmp_path), tmp_path / "out")
    lines = headline(status, metrics_of(status)[0])
    assert lines[0].startswith(
        "Col + Ex beats colorization (the best single task) by 10.0 points (95 % interval +10.0 to"
    )
    assert lines[1].startswith("Col + Ex beats random init by 20.0")


def test_single_tasks_alone_are_compared_with_baselines(tmp_path: Path) -> None:
    status = run(made_suite(tmp_path, task_sets=["exemplar"]), tmp_path / "out")
    found = [one for one in compare(status, metrics_of(status)[0]) if one.role != "deeper"]
    assert {(one.first, one.second) for one in found} == {("exemplar", "random init")}


def test_page_is_whole_and_loads_nothing(finished: Path) -> None:
    page = Page(finished.read_text(encoding="utf-8"))
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    headings = [
        "What was compared", "Verdict", "Which pretraining gives most", "What did not work", "Beside the paper",
        "Compute and cost", "Every cell", "What is not measured", "Environment and reproduction",
    ]  # fmt: skip
    assert [heading for heading in headings if heading not in page.text] == []


def test_page_runs_no_script_and_is_small(finished: Path) -> None:
    text = finished.read_text(encoding="utf-8")
    assert "<script" not in text
    assert len(text) < 500_000


def test_table_shows_mean_spread_and_the_papers_numbers_apart(finished: Path) -> None:
    page = Page(finished.read_text(encoding="utf-8"))
    # Depth 10: 61, 62, 63; depth 18: 61.8, 62.8, 63.8; t of 2 degrees of freedom 4.303; the paper's Table 1.
    assert "colorization 62.0 ± 2.5 (3) 62.8 ± 2.5 (3)" in page.text
    # The test set's standard error, of 400 images and the accuracy nearest to 50 %: 100 * sqrt(0.62 * 0.38 / 400).
    assert "test SE" in page.text
    assert "colorization 62.0 ± 2.5 (3) 62.8 ± 2.5 (3) 2.4" in page.text
    # Table 1 of the paper: top-1 beside ours, and no top-5 of ours.
    assert "colorization 39.6 62.0 ± 2.5 (3) 62.8 ± 2.5 (3) 62.5 – – 65.5 – – 76.8 – –" in page.text
    # Of random weights, colorization and exemplar, the paper has top-1 of two: colorization is the better one in both.
    assert "pairs of rows in the same order 1 of 1 – – –" in page.text
    assert "compare the order of rows, never the numbers" in page.text


def test_compute_is_counted_beside_accuracy(finished: Path) -> None:
    row = "61.0 % 0.5 3 colorization 2, exemplar 1 image 96 (16.0) colorization 64 (60.4) 0.0125 CPU"
    assert row in Page(finished.read_text(encoding="utf-8")).text


def test_diagnostics_of_the_logs_are_means_of_the_last_five(tmp_path: Path) -> None:
    suite, out = made_suite(tmp_path), tmp_path / "out"
    run(suite, out)
    assert "What tasks do to each other" not in page_of(suite, out).text
    stage = next(stage for stage in expand(suite).stages if stage.kind == "pretrain" and "colorization" in stage.label)
    lines = []
    for step in range(7):
        blocks = dict.fromkeys(("trunk", "stem", "stage1", "stage2", "stage3"), -0.25)
        found = {
            "batch_cosine": {"colorization": 0.125 * step},
            "gradient_norm": {"colorization": 1.0},
            "task_cosine": {"colorization + exemplar": blocks | {"stem": 0.5}},
            "effective_rank": {"colorization": 12.0},
            "neighbour_accuracy": 0.875,
        }
        lines.append(json.dumps({"step": step, "losses": {"colorization": 1.0}, "diagnostics": found}))
    (stage.folder(out) / "log.jsonl").write_text("\n".join(lines))
    text = page_of(suite, out).text
    assert "colorization 0.500 12.000 0.875" in text
    assert "colorization + exemplar -0.250 0.500 -0.250 -0.250 -0.250" in text


def test_page_of_a_suite_that_has_not_started(tmp_path: Path) -> None:
    suite = made_suite(tmp_path)
    page = page_of(suite, tmp_path / "out")
    assert "0 of 49 stages finished" in page.text
    assert "No evaluation has finished yet" in page.text


def test_failed_and_missing_cells_do_not_hide_the_rest(tmp_path: Path) -> None:
    suite = made_suite(tmp_path)
    run(suite, tmp_path / "out", fail="pretrain exemplar, depth 18")
    page = page_of(suite, tmp_path / "out")
    assert "6 failed" in page.text
    cells = "; ".join(f"exemplar, depth 18, seed {seed}" for seed in (0, 1, 2))
    assert f"RuntimeError: made to fail {cells}" in page.text
    assert "exemplar 57.0 ± 2.5 (3) –" in page.text
    assert "Colorization + exemplar beats colorization" in page.text


def test_one_seed_gives_no_verdict(tmp_path: Path) -> None:
    suite = made_suite(tmp_path, seeds=[0], depths=[10])
    run(suite, tmp_path / "out")
    page = page_of(suite, tmp_path / "out")
    assert "1 seed: no verdict from fewer than 3" in page.text
    assert "61.0 (1)" in page.text


def test_losses_and_lasso_weights_are_drawn_from_the_runs(tmp_path: Path) -> None:
    suite, out = made_suite(tmp_path), tmp_path / "out"
    run(suite, out)
    stage = next(stage for stage in expand(suite).stages if stage.label.startswith("Col + Ex"))
    lines: list[dict[str, Any]] = [
        {"step": step, "losses": {"colorization": 5.0 / step}, "lasso": {"colorization": [0.6, -0.8]}}
        for step in (1, 2)
    ]
    (stage.folder(out) / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report(suite, out).read_text(encoding="utf-8")
    page = Page(text)
    assert "What the pretext tasks learned" in page.text
    assert "colorization: loss 5.000 → 2.500, 2 steps" in page.text
    assert 'style="--weight: 0.60">0.60</td>' in text
    assert 'style="--weight: 0.80">-0.80</td>' in text


def test_held_out_metrics_stand_beside_predictions_that_see_no_pixel(tmp_path: Path) -> None:
    suite, out = made_suite(tmp_path), tmp_path / "out"
    run(suite, out)
    stage = next(stage for stage in expand(suite).stages if stage.label.startswith("Col + Ex"))
    line = {"step": 2, "losses": {"colorization": 2.5}, "held_out": {"colorization": {"model": {"loss": 6.25}}}}
    (stage.folder(out) / "log.jsonl").write_text(json.dumps(line) + "\n")
    text = write_report(suite, out).read_text(encoding="utf-8")
    words = " ".join(Page(text).text.split())
    assert "colorization loss 60.4 2.500 6.250 5.500 5.000" in words
    assert "colorization bin accuracy 60.4 0.750 0.125 0.375 0.438" in words
    assert "colorization: learned by <heart>." in words
    assert "<heart>" not in text
    assert re.findall(r'data-x="2" data-y="(6.25)"><title>[^<]*: held-out loss 6.250', text) == ["6.25"]


def test_preview_is_made_and_embedded(finished: Path) -> None:
    addresses = Page(finished.read_text(encoding="utf-8")).addresses
    assert any(address.startswith("data:image/jpeg;base64,") for address in addresses)


def test_preview_that_fails_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_sheet(folder: Path, out: Path, **options: object) -> Path:
        raise ValueError("no pictures today")

    monkeypatch.setattr("pipelines.preview.task_sheet.write_sheet", write_sheet)
    assert "No preview: ValueError: no pictures today" in page_of(made_suite(tmp_path), tmp_path / "out").text


def test_command_to_reproduce_is_quoted_for_the_shell(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    page = page_of(made_suite(tmp_path / "a folder"), tmp_path / "out")
    assert f"fourfold bench run '{tmp_path}/a folder/made-up.yaml' --out {tmp_path}/out" in page.text


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    suite, out = made_suite(tmp_path), tmp_path / "out"
    run(suite, out, fail="pretrain exemplar, depth 10, seed 0")
    stage = next(stage for stage in expand(suite).stages if stage.label == "exemplar, depth 10, seed 0")
    (stage.folder(out) / "error.json").write_text(json.dumps({"error": "<script>alert(1)</script>"}))
    assert "<script>alert(1)" not in write_report(suite, out).read_text(encoding="utf-8")


def test_a_name_that_looks_like_markup_stays_text(tmp_path: Path) -> None:
    """In headings, tables, charts and the command to reproduce."""
    name = "Col <script>alert(1)</script>"
    suite = made_suite(tmp_path)
    sets = tuple(replace(one, name=name) if one.role == "combined" else one for one in suite.task_sets)
    suite, out = replace(suite, task_sets=sets, source=f"{name}.yaml"), tmp_path / "out"
    run(suite, out)
    page = page_of(suite, out)
    assert f"{name} 72.0 ± 2.5 (3)" in page.text
    assert f"{name} beats colorization" in page.text
    assert f"'{name}.yaml'" in page.text
    assert "<script>alert" not in (out / "report.html").read_text(encoding="utf-8")


def test_numbers_are_also_left_as_json(finished: Path) -> None:
    content = json.loads((finished.parent / "results.json").read_text())
    assert (content["num_finished"], len(content["cells"])) == (49, 25)
    assert content["verdicts"]["linear_probe.top1_pct"][0].startswith("Col + Ex beats colorization")


def test_suites_that_share_a_folder_keep_a_report_each(tmp_path: Path) -> None:
    out = tmp_path / "out"
    one, other = (made_suite(tmp_path, name=name, depths=[10], seeds=[0]) for name in ("one", "other"))
    run(one, out)
    assert write_report(one, out) == out / "report.html"
    # The second one moves in: from now on each has a place of its own, and what `one` left outside is gone.
    run(other, out)
    assert write_report(other, out) == out / "suites" / "other" / "report.html"
    assert json.loads((out / "results.json").read_text())["suite"] == "one"
    assert write_report(one, out) == out / "suites" / "one" / "report.html"
    assert not (out / "report.html").exists()
    assert not (out / "results.json").exists()
    for name in ("one", "other"):
        assert json.loads((out / "suites" / name / "results.json").read_text())["suite"] == name
        assert f"<h1>{name}" in (out / "suites" / name / "report.html").read_text(encoding="utf-8")
    paths = export_report(one, out, "csv")
    assert {path.parent for path in paths} == {out / "suites" / "one" / "export"}


def test_paper_numbers_are_those_of_its_tables() -> None:
    rows = {(table.number, row.name): row.values for table in PAPER_TABLES for row in table.rows}
    assert rows[2, "all four tasks"]["ImageNet top-5"] == 69.30
    assert rows[1, "colorization"]["ImageNet top-1"] == 39.62
    assert rows[1, "ImageNet labels"]["ImageNet top-5"] == 85.10
    assert rows[3, "relative position, harmonized"]["NYU within 1.25"] == 80.39
    assert rows[4, "lasso in evaluation"]["PASCAL mAP"] == 68.86
    assert [len(table.rows) for table in PAPER_TABLES] == [6, 7, 4, 4]


def test_axes_are_compared_at_each_value_and_between_values(tmp_path: Path) -> None:
    suite = made_suite(tmp_path, axes={"pretrain.trunk.width": [0.25, 0.5]}, depths=[10])
    status = run(suite, tmp_path / "out")
    found = compare(status, metrics_of(status)[0])
    assert {(one.first, one.second) for one in found if one.is_headline} == {
        (f"Col + Ex, width {width}", f"{other}, width {width}")
        for width in (0.25, 0.5)
        for other in ("colorization", "random init")
    }
    assert ("Col + Ex, width 0.5", "Col + Ex, width 0.25") in {
        (one.first, one.second) for one in found if one.role == "variant"
    }


def test_learning_curves_show_every_share_and_tables_the_last(tmp_path: Path) -> None:
    suite = made_suite(tmp_path, evaluate_at=[50, 100], depths=[10], task_sets=["colorization"])
    text = " ".join(Page(document_of(suite, made_status(suite, tmp_path / "out"))).text.split())
    assert "colorization, after 50 % of the budget, 0.2 TFLOP: 62.0 ± 2.5 (3 seeds)" in text
    assert "colorization, after 100 % of the budget, 0.5 TFLOP: 62.0 ± 2.5 (3 seeds)" in text
    assert "colorization 62.0 ± 2.5 (3)" in text
    assert "colorization, depth 10, seed 0, at 50 %" in text


def test_shortcuts_of_a_run_stand_in_their_table_and_with_the_cell(tmp_path: Path) -> None:
    suite, out = made_suite(tmp_path, depths=[10], task_sets=["colorization"]), tmp_path / "out"
    run(suite, out)
    assert "Shortcuts" not in page_of(suite, out).text
    stages = [stage for stage in expand(suite).stages if stage.label.startswith("colorization, depth 10")]
    finding = {"task": "colorization", "sees": "place of a cell", "metric": "bin_accuracy", "verdict": "no leak"}
    numbers = {"chance": 0.25, "value": 0.3125, "ci95_low": 0.1875, "ci95_high": 0.4375, "kept": 0.4}
    (stages[0].folder(out) / "shortcuts.json").write_text(json.dumps({"findings": [finding | numbers]}))
    # A damaged file costs its own rows only.
    (stages[2].folder(out) / "shortcuts.json").write_text("{")
    text = page_of(suite, out).text
    row = "colorization place of a cell bin accuracy 0.250 0.312 0.188 to 0.438 40 % no leak"
    assert f"verdict colorization, depth 10, seed 0 {row}" in text
    assert text.count(row) == 2
    assert f"Shortcuts of the trained model task sees metric chance value 95 % interval kept verdict {row}" in text
