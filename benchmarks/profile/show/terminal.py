"""A profile for the terminal: the verdict first, then tables."""

from collections.abc import Iterator
from typing import Any

from benchmarks.loaders import loader_rows
from benchmarks.profile.run_profile import Profile
from benchmarks.results.output import print_facts, print_table, size_text
from pipelines.build import memory_of

__all__ = ["NOT_MEASURED", "advice_cells", "blocked_cells", "facts_of", "loader_cells", "show", "stage_cells"]

NOT_MEASURED = "not measured"
STAGE_COLUMNS = ("stage", "achieved", "ceiling", "ratio", "unit", "ceiling is", "core ms a sample", "share of CPU")
BLOCKED_COLUMNS = ("stage", "busy", "waits for input", "waits for room")
ADVICE_COLUMNS = ("change", "predicted samples/s", "gain")
LOADER_COLUMNS = ("loader", "cache", "samples/s", "95 % interval", "of the limit", "note")


def show(profile: Profile) -> None:
    """Print the whole profile."""
    print(profile.verdict.sentence)
    for other in profile.verdict.others:
        print(f"Also {other.stage}: {other.evidence}; cured, {other.gain:.2f} times the samples/s.")
    print()
    print_facts("what it gives", facts_of(profile))
    _table("stages", STAGE_COLUMNS, stage_cells(profile))
    _table("where the time of the running pipeline went", BLOCKED_COLUMNS, blocked_cells(profile))
    if profile.advice:
        _table("advice, by the model", ADVICE_COLUMNS, advice_cells(profile))
    else:
        print("\nadvice: nothing that the model says would help by 3 % or more")
    print(f"  worker processes: {profile.workers}")
    if profile.loaders is not None:
        _table("loaders compared: the same tensors on the same cores", LOADER_COLUMNS, loader_cells(profile))


def _table(title: str, columns: Any, rows: Any) -> None:
    print()
    print_table(title, columns, rows)


def facts_of(profile: Profile) -> dict[str, Any]:
    """Return the numbers beside the verdict."""
    measured = profile.measured
    need = measured.consumer_samples_per_s
    values = [window.samples_per_s for window in measured.base]
    limit, memory = profile.decode_limit_samples_per_s, memory_of(measured.config.pipeline)
    return {
        "samples/s": f"{measured.samples_per_s:.0f} (median of {len(values)}, {min(values):.0f} to {max(values):.0f})",
        "the pipeline alone": f"{measured.free_samples_per_s:.0f} samples/s",
        f"the {measured.consumer_name} needs" if need else "a trainer needs": (
            f"{need:.0f} samples/s with data in memory" if need else NOT_MEASURED
        ),
        "waiting for data": f"{measured.wait_ratio:.0%} of the time" if need else f"{NOT_MEASURED}, nobody trains",
        "only decoding, all cores": f"{limit:.0f} samples/s" if limit else NOT_MEASURED,
        "cores to be had": f"{measured.cores_to_be_had:.1f} of {measured.model.num_cores:.0f}",
        "memory for batches": f"{size_text(memory.peak_bytes)} at most, {size_text(memory.step_bytes)} a step",
    }


def stage_cells(profile: Profile) -> Iterator[tuple[Any, ...]]:
    for row in profile.rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        rates = rate_text(row.achieved_per_s), rate_text(row.ceiling_per_s), ratio, row.unit
        yield row.stage, *rates, row.ceiling, f"{row.cpu_ms_per_sample:.3f}", f"{row.cpu_ratio:.0%}"


def blocked_cells(profile: Profile) -> Iterator[tuple[str, ...]]:
    for one in profile.clocks:
        ratios = (one.busy_ratio, one.blocked_on_input_ratio, one.blocked_on_output_ratio)
        yield one.name, *(f"{ratio:.0%}" for ratio in ratios)


def advice_cells(profile: Profile) -> Iterator[tuple[Any, ...]]:
    for one in profile.advice:
        note = " (batches change)" if one.option.changes_batches else ""
        yield f"{one.option.text}{note}", f"{one.after_samples_per_s:.0f}", f"x {one.gain:.2f}"


def loader_cells(profile: Profile) -> Iterator[tuple[str, ...]]:
    for row in loader_rows(profile.loaders or {}):
        rate, low, ratio = row["samples_per_s"], row["ci95_low"], row["ratio_to_limit"]
        yield (
            row["loader"],
            row["cache"],
            "-" if rate is None else f"{rate:.0f}",
            "-" if low is None else f"{low:.0f} to {row['ci95_high']:.0f}",
            "-" if ratio is None else f"{ratio:.2f}",
            row["note"],
        )


def rate_text(per_s: float | None) -> str:
    """Shorten a rate: 2450000 -> "2.45 M"."""
    if per_s is None:
        return NOT_MEASURED
    # From 10,000 on: below that four digits are as short and tell more.
    for least, factor, letter in ((1e12, 1e12, " T"), (1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if per_s >= least:
            return f"{per_s / factor:.3g}{letter}"
    return f"{per_s:.4g}"
