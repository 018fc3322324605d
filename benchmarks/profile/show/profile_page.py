"""A profile as one HTML file that needs no network: verdict, stage chart, roofline, tables, advice.

Here the values are computed; `profile.html.j2` lays them out.
"""

import shlex
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.run_profile import Profile
from benchmarks.profile.show import terminal as show
from benchmarks.results.charts.shown import ShownChart, shown
from benchmarks.results.charts.speed import roofline, stacked_bars
from benchmarks.results.html_page import environment_facts, render
from benchmarks.results.record import environment

__all__ = ["page_of"]

TEMPLATE = Path(__file__).resolve().parent / "profile.html.j2"
CORES_SHOWN = (1, 2, 4, 8, 16, 32, 64)
NUM_STEPS = 20


def page_of(profile: Profile) -> str:
    """Return the whole document."""
    loaders = (show.LOADER_COLUMNS, list(show.loader_cells(profile))) if profile.loaders is not None else None
    return render(
        TEMPLATE,
        source=profile.source,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        verdict=profile.verdict,
        numbers=show.facts_of(profile),
        step_chart=_step_chart(profile),
        clocks_chart=_clocks_chart(profile),
        roofline_chart=_roofline(profile),
        stages=(show.STAGE_COLUMNS, list(show.stage_cells(profile))),
        clocks=(show.BLOCKED_COLUMNS, list(show.blocked_cells(profile))),
        advice=(show.ADVICE_COLUMNS, list(show.advice_cells(profile))),
        workers=profile.workers,
        loaders=loaders,
        limits=_limits(profile),
        command=shlex.join(["fourfold", "profile", profile.source]),
        place=[*environment_facts(environment()), ("seconds", f"{profile.seconds:.0f}")],
    )


def _step_chart(profile: Profile) -> ShownChart:
    model = profile.measured.model
    cpu = {name: seconds * 1e3 for name, seconds in model.cpu_by_stage().items() if seconds > 0}
    # Waits beside work, not in it: no core is busy in them, and more threads would hide them.
    waits = {f"read {feed.kind}": feed.share * feed.wait_s * 1e3 for feed in model.feeds if feed.wait_s * 1e3 > 0.01}
    return shown(stacked_bars("step", "what a step costs", {"core": cpu, "waiting for bytes": waits}, "ms"))


def _clocks_chart(profile: Profile) -> ShownChart:
    parts = {
        "busy": {one.name: one.busy_ratio * 100 for one in profile.clocks},
        "waits for input": {one.name: one.blocked_on_input_ratio * 100 for one in profile.clocks},
        "waits for room": {one.name: one.blocked_on_output_ratio * 100 for one in profile.clocks},
    }
    return shown(stacked_bars("clocks", "the running pipeline's clocks", parts, "% of time"))


def _roofline(profile: Profile) -> ShownChart:
    measured = profile.measured
    alone = measured.model.without_consumer()
    roofs = {"pipeline, by the model": [simulate(alone.on_cores(n), NUM_STEPS).samples_per_s for n in CORES_SHOWN]}
    if profile.decode_limit_samples_per_s is not None:
        # Decoding alone shares nothing between cores, so that its limit grows with them.
        per_core = profile.decode_limit_samples_per_s / measured.model.num_cores
        roofs["only decoding"] = [per_core * count for count in CORES_SHOWN]
    if profile.ceilings.read is not None:
        limit = profile.ceilings.read.random_warm_bytes_per_s / measured.sample_bytes
        roofs["reading from memory, one thread"] = [limit] * len(CORES_SHOWN)
    if need := measured.consumer_samples_per_s:
        roofs[f"what the {measured.consumer_name} needs"] = [need] * len(CORES_SHOWN)
    points = {
        "pipeline alone": ([measured.model.num_threads], [measured.free_samples_per_s]),
        "with its consumer": ([measured.model.num_threads], [measured.samples_per_s]),
    }
    lines = {name: (CORES_SHOWN, values) for name, values in roofs.items()}
    return shown(roofline("roofline", "samples/s by cores: limits, model, measured", lines, points))


def _limits(profile: Profile) -> list[str]:
    found = profile.ceilings
    items = []
    if found.read is None:
        items.append("Reading: the shards are not on this machine yet.")
    elif found.read.sequential_cold_bytes_per_s is None:
        items.append(found.read.note)
    if found.to_device_bytes_per_s is None:
        items.append("Copies to a GPU: not measured, the device is the CPU.")
    items.append("Later epochs with cached motion targets: here every target is computed, as in a first epoch.")
    items.append("Python's lock: the model gives every thread a core; on many cores the lock may take its share.")
    return items
