"""Draw a committed suite's accuracy over depth as a PNG, the figure of its report.

    python -m benchmarks.studies.depth_figure benchmarks/records/natural7-2026-11-26.json --out docs/images/depth.png

Needs a Chromium that Playwright finds, or `--chromium PATH`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.results.report import charts
from benchmarks.results.statistics import summarize

__all__ = ["depth_page", "main"]

WIDTH_PX, HEIGHT_PX = 900, 460


def depth_page(results: dict[str, Any], metric: str, title: str) -> str:
    """Return an HTML page with one chart: mean over seeds, its 95 % interval, a circle per seed.

    results: the `results` of a committed suite. metric: a percentage of its linear probe, such as "top1_pct".
    """
    points: dict[str, dict[tuple[int, int], float]] = {}
    roles, floor = {}, None
    for cell in results["cells"]:
        if cell["depth"] is None:
            floor = cell["results"]["pixel_floor"][metric]
            continue
        name = cell["task_set"]
        points.setdefault(name, {})[cell["depth"], cell["seed"]] = cell["results"]["linear_probe"][metric]
        is_pretext = cell["tasks"] not in ([], ["supervised"])
        roles[name] = "baseline" if not is_pretext else "combined" if len(cell["tasks"]) > 1 else "single"
    summaries = {
        name: {
            depth: summarize([value for (at, _), value in row.items() if at == depth])
            for depth in sorted({depth for depth, _ in row})
        }
        for name, row in points.items()
    }
    chart = charts.accuracy_by_depth(points, summaries, roles, title, floor)
    return f"<!doctype html><meta charset=utf-8><title>{title}</title>{charts.plotly_script()}<body>{chart}</body>"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.depth_figure", description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metric", default="top1_pct")
    parser.add_argument("--title", default="Linear probe, top-1, all labels: mean, 95 % interval and every seed")
    parser.add_argument("--chromium", default=None, help="path of the browser's program")
    chosen = parser.parse_args()
    page = depth_page(json.loads(chosen.record.read_text(encoding="utf-8"))["results"], chosen.metric, chosen.title)
    _screenshot(page, chosen.out, chosen.chromium)
    print(chosen.out)


def _screenshot(page: str, out: Path, chromium: str | None) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
        view.set_content(page)
        # plotly draws its chart after the page has loaded.
        view.wait_for_selector(".main-svg")
        view.screenshot(path=str(out))
        browser.close()


if __name__ == "__main__":
    main()
