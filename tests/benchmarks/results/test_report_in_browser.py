"""The report in headless Chromium: errors, requests, numbers of its charts, accessibility, size and speed."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.results.report.collect import metrics_of, values_of
from benchmarks.results.report.page_charts import depth_chart, set_chart
from benchmarks.results.report.report_page import page_of
from benchmarks.results.report.view import full_view
from benchmarks.suite.suite_config import Suite
from tests.made.made_status import made_status
from tests.made.made_suites import made_suite

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

NAME = "Col <script>document.title = 'run'</script>"
PATIENCE_MS = 300_000
"""A busy machine may load the page slowly; how much work it is, is measured apart."""
POINTS = """() => [...document.querySelectorAll('#best [data-y]')].map(one => {
    const box = one.getBoundingClientRect();
    return {text: one.querySelector('title').textContent, x: one.dataset.x, y: Number(one.dataset.y),
        chart: one.closest('svg').getAttribute('aria-label'),
        left: box.x + box.width / 2, top: box.y + box.height / 2};
})"""


def with_map(folder: Path) -> Suite:
    """A suite that also compares its trunks with each other."""
    return made_suite(
        folder, evaluations={"linear_probe": {"labels_per_class": [2]}, "unlabelled": {"against_suite": True}}
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for all tests of this file: its start is most of their cost."""
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a task set whose name looks like markup; no preview, which would cost seconds."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.preview.task_sheet.write_sheet", lambda *given, **options: None)
        suite = with_map(folder)
        sets = tuple(replace(one, name=NAME) if one.role == "combined" else one for one in suite.task_sets)
        suite = replace(suite, task_sets=sets, source=f"{NAME}.yaml")
        path = folder / "report.html"
        path.write_text(page_of(suite, made_status(suite, folder / "out", num_log_lines=8)), encoding="utf-8")
    return path


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """Return the page, and what went wrong with it: messages of the console, errors, requests of the network."""
    page = browser.new_page(**options)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else wrong.append(one.url))
    page.goto(path.as_uri(), timeout=PATIENCE_MS)
    return page, wrong


def test_page_loads_from_a_file_without_errors_and_requests(browser: Any, report: Path) -> None:
    page, wrong = opened(browser, report)
    assert wrong == []
    # The name that is a script is text everywhere, and has not run.
    assert page.title() == "fourfold: made-up"
    assert page.locator("script").count() == 0
    assert page.get_by_text(f"{NAME} beats colorization").count() >= 1
    page.close()


def test_numbers_and_places_of_the_charts_are_those_of_the_records(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report, viewport={"width": 1440, "height": 900})
    points = page.evaluate(POINTS)
    page.close()
    suite = with_map(report.parent)
    sets = tuple(replace(one, name=NAME) if one.role == "combined" else one for one in suite.task_sets)
    status = full_view(made_status(replace(suite, task_sets=sets), report.parent / "out"))
    metric = metrics_of(status)[0]
    chart = depth_chart(status, metric)
    assert chart is not None
    shown = [one for one in points if one["chart"] == chart.title]
    seeds = {one["text"].rpartition(": ")[0]: one["y"] for one in shown if ", seed " in one["text"]}
    assert seeds == {
        f"{name}, depth {depth}, seed {seed}": value
        for name, row in values_of(status, metric).items()
        for (depth, seed), value in row.items()
    }
    # Higher numbers stand higher, in proportion: a straight line goes through numbers and places on the screen.
    y, top = np.array([one["y"] for one in shown]), np.array([one["top"] for one in shown])
    slope, start = np.polyfit(y, top, 1)
    assert slope < 0
    np.testing.assert_allclose(slope * y + start, top, atol=0.7)
    assert set_chart(status, metric) is not None


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_accessible_in_light_and_dark_and_on_a_telephone(browser: Any, report: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page, _ = opened(browser, report, viewport={"width": width, "height": 900}, color_scheme=scheme)
    # Closed details are not looked at: their tables and charts count, too.
    page.evaluate("() => document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(page)
    serious = [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    # Only boxes scroll sideways, and not the page.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_print_from_a_dark_page_is_dark_on_white(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report, color_scheme="dark")
    colors = "() => ['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
    on_screen = page.evaluate(colors)
    page.emulate_media(media="print")
    assert page.evaluate(colors) == ["rgb(28, 30, 33)", "rgb(255, 255, 255)"] != on_screen
    page.close()


def test_a_hundred_cells_stay_small_and_quick(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.preview.task_sheet.write_sheet", lambda *given, **options: None)
    suite = made_suite(tmp_path, seeds=list(range(9)), depths=[10, 18, 34], baselines=["random_init"])
    status = made_status(suite, tmp_path / "out", num_log_lines=40)
    assert len(status.cells) == 108
    path = tmp_path / "report.html"
    path.write_text(page_of(suite, status), encoding="utf-8")
    assert path.stat().st_size < 3_000_000
    page = browser.new_page()
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable")
    page.set_default_timeout(PATIENCE_MS)
    page.goto(path.as_uri())
    page.locator("details.cell > summary").last.click()
    assert page.locator("details.cell[open] pre").is_visible() is False
    # The renderer's own seconds, and not those of the clock: the machine may be busy with other things.
    spent = {one["name"]: one["value"] for one in client.send("Performance.getMetrics")["metrics"]}
    assert spent["ProcessTime"] < 2.0
    page.close()
