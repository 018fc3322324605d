"""A profile as one JSON document: every number with its unit in its name, and what is needed to do it again."""

import statistics
from dataclasses import asdict
from typing import Any

from benchmarks.profile.judge.advice import Advice
from benchmarks.profile.judge.measurements import Measurements
from benchmarks.profile.measure.costs import StageCost
from benchmarks.profile.model.queueing import bounds
from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.run_profile import Profile
from benchmarks.results.output import plain
from benchmarks.results.record import environment, now_utc
from pipelines.build import memory_of

__all__ = ["document_of"]

FORMAT_VERSION = 2
BLOCKED = ("blocked_on_input_ratio", "blocked_on_output_ratio")


def document_of(profile: Profile) -> dict[str, Any]:
    """Return the document, of values that `json` can write. None: not measured."""
    measured, memory = profile.measured, memory_of(profile.measured.config.pipeline)
    return {
        "format_version": FORMAT_VERSION,
        "date": now_utc(),
        "source": profile.source,
        "seconds": round(profile.seconds, 2),
        "environment": asdict(environment()),
        "config": measured.config.model_dump(mode="json", serialize_as_any=True),
        "verdict": asdict(profile.verdict),
        "throughput": _throughput(profile),
        "stages": [asdict(row) | {"ratio": row.ratio} for row in profile.rows],
        "blocked": [
            {"stage": one.name} | {name: getattr(one, name) for name in ("busy_ratio", *BLOCKED)}
            for one in profile.clocks
        ],
        "memory": {"step_bytes": memory.step_bytes, "peak_bytes": memory.peak_bytes},
        "advice": [_advice(one) for one in profile.advice],
        "worker_processes": profile.workers,
        "ceilings": asdict(profile.ceilings) | {"is_cached": profile.are_ceilings_cached},
        "model": _model(measured),
        "loaders": profile.loaders,
    }


def _throughput(profile: Profile) -> dict[str, Any]:
    measured = profile.measured
    return {
        "samples_per_s": measured.samples_per_s,
        "samples_per_s_values": [window.samples_per_s for window in measured.base],
        "pipeline_alone_samples_per_s": measured.free_samples_per_s,
        "pipeline_alone_samples_per_s_values": [window.samples_per_s for window in measured.free or measured.base],
        "consumer": measured.consumer_name,
        "consumer_needs_samples_per_s": measured.consumer_samples_per_s,
        "data_wait_ratio": measured.wait_ratio,
        "data_wait_ratio_values": [window.wait_ratio for window in measured.base],
        "decode_limit_samples_per_s": profile.decode_limit_samples_per_s,
        "cores_to_be_had": measured.cores_to_be_had,
    }


def _advice(one: Advice) -> dict[str, Any]:
    option = one.option
    return {
        "name": option.name,
        "stage": option.stage,
        "text": option.text,
        "settings": plain(option.settings),
        "changes_batches": option.changes_batches,
        "before_samples_per_s": one.before_samples_per_s,
        "predicted_samples_per_s": one.after_samples_per_s,
        "predicted_gain": one.gain,
    }


def _model(measured: Measurements) -> dict[str, Any]:
    # Simulated on the cores that were free, so that it can be held against the measured samples/s.
    model, here = measured.model, simulate(measured.model_here)
    return {
        "costs": {name: _cost(cost) for name, cost in measured.costs.items()},
        "consumer": asdict(model.consumer),
        "contention": model.contention,
        "num_threads": model.num_threads,
        "prefetch_batches": model.prefetch_batches,
        "samples_per_step": model.samples_per_step,
        "bounds_samples_per_s": bounds(model),
        "simulated_here_samples_per_s": here.samples_per_s,
        "simulated_here_wait_ratio": here.wait_ratio,
    }


def _cost(cost: StageCost) -> dict[str, Any]:
    """Return a cost without the single waits, of which there may be hundreds."""
    waits_s = cost.waits_s or (0.0,)
    found = asdict(cost) | {"median_wait_s": statistics.median(waits_s), "worst_wait_s": max(waits_s)}
    return {name: value for name, value in found.items() if name != "waits_s"}
