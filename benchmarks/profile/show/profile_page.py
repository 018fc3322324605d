"""A profile as one HTML file that needs no network: verdict, stage chart, roofline, tables, advice, scaling plan."""

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from importlib import resources
from typing import Any

from benchmarks.profile.model.scaling import assumptions
from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.run_profile import Profile
from benchmarks.profile.show import terminal as show
from benchmarks.results.record import environment
from benchmarks.results.report import charts

__all__ = ["page_of"]

CORES_SHOWN = (1, 2, 4, 8, 16, 32, 64)
NUM_STEPS = 20


def page_of(profile: Profile) -> str:
    """The whole document."""
    style = resources.files("benchmarks.results.report").joinpath("style.css").read_text(encoding="utf-8")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = (
        ("Verdict", _verdict(profile)),
        ("Where the time goes", _time_charts(profile)),
        ("Roofs and what was measured", _roofline(profile)),
        ("Stages", _stages(profile)),
        ("Advice", _advice(profile)),
        ("For other GPUs", _scaling(profile)),
        *([("Loaders compared", _loaders(profile))] if profile.loaders is not None else []),
        ("What is not measured", _limits(profile)),
        ("Environment and reproduction", _environment(profile)),
    )
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections)
    title = escape(profile.source)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>fourfold profile: {title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style>'
        f"{charts.plotly_script()}</head><body><main><header><h1>Profile of {title}</h1><p>{when}</p></header>"
        f"{body}</main></body></html>\n"
    )


def _verdict(profile: Profile) -> str:
    others = "".join(
        f"<p>Also {escape(one.stage)}: {escape(one.evidence)}; cured, {one.gain:.2f} times the samples/s.</p>"
        for one in profile.verdict.others
    )
    facts = _table(("", ""), show.facts_of(profile).items())
    return f'<p class="verdict">{escape(profile.verdict.sentence)}</p>{others}{facts}'


def _time_charts(profile: Profile) -> str:
    model = profile.measured.model
    cpu = {name: seconds * 1e3 for name, seconds in model.cpu_by_stage().items() if seconds > 0}
    waits = {f"read {feed.kind}": feed.share * feed.wait_s * 1e3 for feed in model.feeds if feed.wait_s * 1e3 > 0.01}
    work = charts.stacked_bars({"core": cpu, "waiting for bytes": waits}, "what a step costs", "ms")
    parts = {
        "busy": {one.name: one.busy_ratio * 100 for one in profile.clocks},
        "waits for input": {one.name: one.blocked_on_input_ratio * 100 for one in profile.clocks},
        "waits for room": {one.name: one.blocked_on_output_ratio * 100 for one in profile.clocks},
    }
    return work + charts.stacked_bars(parts, "the running pipeline's clocks", "% of time")


def _roofline(profile: Profile) -> str:
    measured = profile.measured
    alone = measured.model.without_consumer()
    roofs = {"pipeline, by the model": [simulate(alone.on_cores(n), NUM_STEPS).samples_per_s for n in CORES_SHOWN]}
    if profile.decode_limit_samples_per_s is not None:
        per_core = profile.decode_limit_samples_per_s / measured.model.num_cores
        roofs["only decoding"] = [per_core * count for count in CORES_SHOWN]
    if profile.ceilings.read is not None:
        limit = profile.ceilings.read.random_warm_bytes_per_s / measured.sample_bytes
        roofs["reading from memory, one thread"] = [limit] * len(CORES_SHOWN)
    if need := measured.consumer_samples_per_s:
        roofs[f"what the {measured.consumer_name} needs"] = [need] * len(CORES_SHOWN)
    whole = [one for one in profile.truncated if one.last_stage == list(measured.config.pipeline.tasks)[-1]]
    points = {
        "pipeline alone": ([one.num_threads for one in whole], [one.samples_per_s for one in whole]),
        "with its consumer": ([measured.model.num_threads], [measured.samples_per_s]),
    }
    lines = {name: (CORES_SHOWN, values) for name, values in roofs.items()}
    return charts.roofline(lines, points, "samples/s by cores: limits, model, measured")


def _stages(profile: Profile) -> str:
    return (
        _table(show.STAGE_COLUMNS, show.stage_cells(profile))
        + "<h3>Clocks of the running pipeline</h3>"
        + _table(show.BLOCKED_COLUMNS, show.blocked_cells(profile))
        + "<h3>Samples/s of the pipeline cut off behind a stage</h3>"
        + _table(show.truncated_columns(profile), show.truncated_cells(profile))
    )


def _advice(profile: Profile) -> str:
    rows = list(show.advice_cells(profile))
    table = _table(show.ADVICE_COLUMNS, rows) if rows else "<p>Nothing that the model says would help by 3 %.</p>"
    tested = f"<p>{escape(show.tested_sentence(profile.tested))}</p>" if profile.tested else ""
    return table + _table(("also asked", "answer"), profile.standing_questions) + tested


def _scaling(profile: Profile) -> str:
    rests = assumptions(profile.measured.model, profile.measured.sample_bytes)
    rows = _table(show.SCALING_COLUMNS, map(show.scaling_cells, profile.scaling))
    return f"{rows}<h3>Assumed</h3>{_table(('', ''), rests)}"


def _loaders(profile: Profile) -> str:
    what = "The same tensors of the same samples on the same cores, proved equal before they were timed, in turns."
    return f"<p>{what}</p>{_table(show.LOADER_COLUMNS, show.loader_cells(profile))}"


def _limits(profile: Profile) -> str:
    found = profile.ceilings
    items = []
    if found.read is None:
        items.append("Reading: the shards are not on this machine yet.")
    elif found.read.sequential_cold_bytes_per_s is None:
        items.append(found.read.note)
    if found.to_device_bytes_per_s is None:
        items.append("Copies to a GPU, its kernels and how busy it is: not measured, the device is the CPU.")
    elif profile.live.gpu.note:
        items.append(f"How busy the GPU is: {profile.live.gpu.note}")
    items.append("Later epochs of remembered motion targets: every target is made anew here, as in a first epoch.")
    items.append("Python's lock: the model gives every thread a core; on many cores the lock may take its share.")
    kernels = [(one.name, f"{one.device_ms:.2f}", str(one.num_calls)) for one in profile.live.kernels]
    table = f"<h3>Kernels</h3>{_table(('kernel', 'ms', 'calls'), kernels)}" if kernels else ""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>{table}"


def _environment(profile: Profile) -> str:
    place = environment()
    rows = (
        ("commit", f"{place.commit}{' with uncommitted changes' if place.is_dirty else ''}"),
        ("machine", f"{place.machine}; {place.cpu_name}, {place.num_cores} cores; GPU: {place.gpu_name}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in place.versions.items())),
        ("seconds", f"{profile.seconds:.0f}"),
    )
    return f"<pre>{escape(shlex.join(['fourfold', 'profile', profile.source]))}</pre>{_table(('', ''), rows)}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table class='plain'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
