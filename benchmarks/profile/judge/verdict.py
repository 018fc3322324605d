"""The verdict, in one sentence: which stage limits the pipeline, and what shows it.

The rule goes by the model on all cores of this machine, whose costs are CPU seconds and waits: a clock on the wall
would blame the pipeline for what others do to the machine. In this order:

1. A setting, where changing it would help: too small a prefetch, copies that block, too few threads, reads that wait.
2. The step, if the pipeline could give more.
3. A method: images stored too large or decoded more than once, a task that has a faster engine.
4. The cores. Step and cores are natural limits, and no alarm.
"""

from dataclasses import dataclass

from benchmarks.profile.judge.advice import Option
from benchmarks.profile.judge.measurements import Measurements
from benchmarks.profile.model.queueing import PipelineModel, bounds
from benchmarks.profile.model.simulation import simulate

__all__ = ["Finding", "Verdict", "judge"]

# What a change must be predicted to give before its lack is called the bottleneck. In this order: a deeper queue costs
# nothing but memory, and a stage is to be blamed only if no setting is.
SETTINGS = {"prefetch": 1.12, "overlap_transfer": 1.15, "threads": 1.12, "memory": 1.15}
METHODS = {"flow_engine": 1.25, "small_images": 1.25, "share_decode": 1.25}
UNEVEN_RATIO = 2.0
"""Reads are called uneven if the worst takes so many times as long as the mean, and longer than a step."""
STEP_GAIN = 1.08
"""How much faster the pipeline alone must be for the step to be the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A stage, the factor by which samples/s would grow if it were cured, and the evidence."""

    stage: str
    gain: float
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Verdict. stage: "read", "decode", a task, "transfer", "step", "prefetch", "threads" or "cores". is_alarm:
    whether something is set or stored worse than it need be; the cores or the step being busy is none."""

    stage: str
    is_alarm: bool
    sentence: str
    others: tuple[Finding, ...] = ()


def judge(measured: Measurements, options: tuple[Option, ...]) -> Verdict:
    """Return the verdict, and what else would be an alarm."""
    found = {option.name: (option, option.gain(measured.model)) for option in options}
    settings, methods = (
        [
            Finding(stage=found[name][0].stage, gain=found[name][1], evidence=_evidence(found[name][0], measured.model))
            for name, least in limits.items()
            if name in found and found[name][1] >= least
        ]
        for limits in (SETTINGS, METHODS)
    )
    # Settings keep the order of SETTINGS, cheapest first; of methods the one that helps most is named.
    methods.sort(key=lambda one: -one.gain)
    consumer = consumer_finding(measured.model)
    first, *_ = (*settings, *([consumer] if consumer else []), *methods, cores_finding(measured.model))
    # Copies that take longer than what is computed on them are no natural limit.
    is_alarm = first in (*settings, *methods) or first.stage == "transfer"
    cure = f"; cured, {first.gain:.2f} times the samples/s" if is_alarm else ""
    return Verdict(
        stage=first.stage,
        is_alarm=is_alarm,
        sentence=f"The bottleneck is {first.stage}: {first.evidence}{cure}.",
        others=tuple(one for one in (*settings, *methods) if one is not first),
    )


def consumer_finding(model: PipelineModel) -> Finding | None:
    """Return the step or its copies as the limit, if the pipeline alone would be faster."""
    step_s, transfer_s = model.consumer.step_s, model.consumer.transfer_s
    # Simulated, not the measured rates: those carry the load by others.
    gain = simulate(model.without_consumer()).samples_per_s / simulate(model).samples_per_s
    if gain < STEP_GAIN or not step_s + transfer_s:
        return None
    evidence = (
        f"a step takes {step_s * 1e3:.1f} ms with data in memory, its copies {transfer_s * 1e3:.1f} ms, and the "
        f"pipeline could give {gain:.2f} times as much"
    )
    return Finding(stage="transfer" if transfer_s > step_s else "step", gain=gain, evidence=evidence)


def cores_finding(model: PipelineModel) -> Finding:
    """Return the natural limit, and the stages with the largest shares of it."""
    parts = ", ".join(f"{name} {share:.0%}" for name, share in list(shares_of(model).items())[:3])
    busy = f"{simulate(model).busy_ratio:.0%} of {model.num_cores:.0f} cores"
    work_ms = model.cpu_s * model.contention * 1e3
    return Finding(stage="cores", gain=1.0, evidence=f"{busy} are busy with {work_ms:.1f} ms of work a step ({parts})")


def shares_of(model: PipelineModel) -> dict[str, float]:
    """Return the share of a step's CPU seconds by stage, the largest first."""
    parts = {name: cpu_s / max(model.cpu_s, 1e-12) for name, cpu_s in model.cpu_by_stage().items() if cpu_s > 0}
    return dict(sorted(parts.items(), key=lambda one: -one[1]))


def _evidence(option: Option, model: PipelineModel) -> str:
    """Say what shows that an option is missing."""
    if option.name == "prefetch":
        return _prefetch_evidence(model)
    if option.name == "overlap_transfer":
        step_s, transfer_s = model.consumer.step_s, model.consumer.transfer_s
        times = f"takes {transfer_s * 1e3:.1f} ms a step, and the step of {step_s * 1e3:.1f} ms waits for it"
        return f"copying to the device {times}"
    if option.name == "threads":
        idle = 1 - simulate(model).busy_ratio
        return f"{model.num_threads} of {model.num_cores:.0f} are used, which keeps the cores {idle:.0%} idle"
    if option.name == "memory":
        # Waits count against the whole step, in which other threads may hide them.
        step_s = model.samples_per_step / simulate(model).samples_per_s
        wait_ms = mean_wait_s(model) * 1e3
        return f"{wait_ms:.1f} of {step_s * 1e3:.1f} ms a step, the producing thread waits for bytes"
    return f"it has {shares_of(model).get(option.stage, 0.0):.0%} of the CPU time, and need not ({option.text})"


def _prefetch_evidence(model: PipelineModel) -> str:
    limit, samples_per_s = min(bounds(model).items(), key=lambda one: one[1])
    allowed = f"on average the {limit} would allow {samples_per_s:.0f} samples/s, but"
    worst_s, mean_s = max(max(feed.waits_s) for feed in model.feeds), mean_wait_s(model)
    if worst_s < UNEVEN_RATIO * mean_s or worst_s < model.samples_per_step / samples_per_s:
        return f"{allowed} with {model.prefetch_batches} prefetched steps too few are under way at a time"
    return (
        f"{allowed} reads are uneven ({worst_s * 1e3:.0f} ms at worst, {mean_s * 1e3:.1f} ms a batch on average) and "
        f"{model.prefetch_batches} prefetched steps do not bridge that"
    )


def mean_wait_s(model: PipelineModel) -> float:
    """Return seconds a step that the producing thread waits for bytes."""
    return sum(feed.share * feed.wait_s for feed in model.feeds)
