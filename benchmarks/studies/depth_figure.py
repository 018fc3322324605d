"""Draw a committed suite's accuracy over depth as a PNG, the figure of its report.

python -m benchmarks.studies.depth_figure benchmarks/records/natural7-2026-11-26.json --out docs/images/depth.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.results.charts.accuracy import accuracy_by_depth
from benchmarks.results.charts.figure import Chart

__all__ = ["depth_chart", "main"]


def depth_chart(results: dict[str, Any], metric: str, title: str) -> Chart:
    """Return the chart: mean over seeds, its 95 % interval, a circle per seed.

    results: the `results` of a committed suite. metric: a percentage of its linear probe, such as "top1_pct".
    """
    points: dict[str, dict[tuple[int, int], float]] = {}
    roles, floors = {}, {}
    for cell in results["cells"]:
        if cell["depth"] is None:
            floors = {"pixel floor": cell["results"]["pixel_floor"][metric]}
            continue
        name = cell["task_set"]
        points.setdefault(name, {})[cell["depth"], cell["seed"]] = cell["results"]["linear_probe"][metric]
        is_pretext = cell["tasks"] not in ([], ["supervised"])
        roles[name] = "baseline" if not is_pretext else "combined" if len(cell["tasks"]) > 1 else "single"
    return accuracy_by_depth("depth", title, points, roles, floors)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.depth_figure", description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metric", default="top1_pct")
    parser.add_argument("--title", default="Linear probe, top-1, all labels: mean, 95 % interval and every seed")
    chosen = parser.parse_args()
    chart = depth_chart(json.loads(chosen.record.read_text(encoding="utf-8"))["results"], chosen.metric, chosen.title)
    chart.write(chosen.out)
    print(chosen.out)


if __name__ == "__main__":
    main()
