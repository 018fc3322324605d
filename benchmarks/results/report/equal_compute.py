"""Rows of the table that counts what each cell's training was made of, beside its accuracy."""

from collections.abc import Mapping
from typing import Any

from benchmarks.results.charts.accuracy import tflop_text
from benchmarks.results.report.collect import Metric, value_of
from benchmarks.suite.status import SuiteStatus, duration

__all__ = ["COMPUTE_COLUMNS", "compute_rows"]

COMPUTE_COLUMNS = [
    "cell",
    "accuracy",
    "TFLOP",
    "trunk updates",
    "updates of each head",
    "samples read (passes)",
    "samples of each task (passes)",
    "decay of the trunk",
    "CPU or GPU time",
]


def compute_rows(status: SuiteStatus, metric: Metric) -> list[tuple[str, ...]]:
    """Return one row per cell whose pretraining counted its updates; empty text where a number is not known.

    Records of versions that did not count are left out.
    """
    rows: list[tuple[str, ...]] = []
    for cell in status.cells:
        record = cell.records.get("pretrain")
        results: Mapping[str, Any] = record.results if record else {}
        if not results.get("trunk_updates"):
            continue
        accuracy = value_of(cell, metric)
        is_gpu = results["gpu_seconds"] > 0
        passes = results["passes"]
        rows.append(
            (
                cell.cell.label,
                "" if accuracy is None else f"{accuracy:.1f} %",
                tflop_text(results["compute_tflop"]),
                f"{results['trunk_updates']:,}",
                _listed({task: f"{count:,}" for task, count in results["head_updates"].items()}),
                _listed(
                    {
                        source: f"{count:,} ({results['source_passes'][source]:.1f})"
                        for source, count in results["source_samples"].items()
                    }
                ),
                _listed({task: f"{count:,} ({passes[task]:.1f})" for task, count in results["samples_seen"].items()}),
                f"{results['decay'].get('trunk', 0.0):.3g}",
                f"{'GPU' if is_gpu else 'CPU'} {duration(results['gpu_seconds' if is_gpu else 'cpu_seconds'])}",
            )
        )
    return rows


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
