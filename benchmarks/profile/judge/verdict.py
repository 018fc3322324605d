"""One sentence: which stage limits the pipeline, and what shows it.

The rule goes by the model on all cores of this machine, whose costs are CPU seconds and waits: a clock on the wall
would blame the pipeline for what others do to the machine. A setting is named where changing it would help: too small a
prefetch, copies that block, too few threads, reads that wait. Else, if the pipeline could give more, the step is the
limit, and if not, the cores are: the natural limit, and no alarm, unless images are stored too large, decoded more than
once, or a task uses a method that has a faster one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.profile.judge.advice import Option
from benchmarks.profile.judge.measurements import Measured
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
    """stage: "read", "decode", a task, "transfer", "step", "prefetch", "threads" or "cores". is_alarm: whether
    something is set or stored worse than it need be; the cores or the step being busy is none.
    """

    stage: str
    is_alarm: bool
    sentence: str
    others: tuple[Finding, ...] = ()


def judge(measured: Measured, options: tuple[Option, ...]) -> Verdict:
    """The verdict, and what else would be an alarm."""
    found = {option.name: (option, option.gain(measured.model)) for option in options}
    alarms = [
        Finding(stage=found[name][0].stage, gain=found[name][1], evidence=_evidence(name, found[name][0], measured))
        for limits in (SETTINGS, METHODS)
        for name, least in limits.items()
        if name in found and found[name][1] >= least
    ]
    settings = [one for one in alarms if one.stage in ("prefetch", "transfer", "threads", "read")]
    methods = sorted((one for one in alarms if one not in settings), key=lambda one: -one.gain)
    consumer = taker_finding(measured.model)
    if settings:
        first, is_alarm = settings[0], True
    elif consumer is not None:
        # Copies that take longer than what is computed on them are no natural limit.
        first, is_alarm = consumer, consumer.stage == "transfer"
    elif methods:
        first, is_alarm = methods[0], True
    else:
        first, is_alarm = cores_finding(measured), False
    others = tuple(one for one in (*settings, *methods) if one is not first)
    return Verdict(stage=first.stage, is_alarm=is_alarm, sentence=_sentence(first, is_alarm), others=others)


def _sentence(finding: Finding, is_alarm: bool) -> str:
    cure = f"; cured, {finding.gain:.2f} times the samples/s" if is_alarm else ""
    return f"The bottleneck is {finding.stage}: {finding.evidence}{cure}."


def taker_finding(model: PipelineModel) -> Finding | None:
    """The step or its copies as the limit, if the pipeline alone would be faster."""
    taking = model.taking
    gain = simulate(model.without_taker()).samples_per_s / simulate(model).samples_per_s
    if gain < STEP_GAIN or not taking.step_s + taking.transfer_s:
        return None
    times = (
        f"a step takes {taking.step_s * 1e3:.1f} ms with data in memory, its copies {taking.transfer_s * 1e3:.1f} ms"
    )
    stage = "transfer" if taking.transfer_s > taking.step_s else "step"
    return Finding(stage=stage, gain=gain, evidence=f"{times}, and the pipeline could give {gain:.2f} times as much")


def cores_finding(measured: Measured) -> Finding:
    """The natural limit, and who has the largest share of it."""
    model = measured.model
    shares = shares_of(model)
    parts = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:3])
    played = simulate(model)
    work_ms = model.cpu_s * model.contention * 1e3
    busy = f"{played.busy_ratio:.0%} of {model.num_cores:.0f}"
    evidence = f"{busy} are busy with {work_ms:.1f} ms of work a step ({parts})"
    return Finding(stage="cores", gain=1.0, evidence=evidence)


def shares_of(model: PipelineModel) -> dict[str, float]:
    """Share of a step's CPU seconds by stage, the largest first."""
    parts = {name: cpu_s / max(model.cpu_s, 1e-12) for name, cpu_s in model.cpu_by_stage().items() if cpu_s > 0}
    return dict(sorted(parts.items(), key=lambda one: -one[1]))


def _evidence(name: str, option: Option, measured: Measured) -> str:
    return _EVIDENCE.get(name, _method_evidence)(measured, option)


def _prefetch_evidence(measured: Measured, option: Option) -> str:
    model = measured.model
    limit, samples_per_s = min(bounds(model).items(), key=lambda one: one[1])
    allowed = f"on average the {limit} would allow {samples_per_s:.0f} samples/s, but"
    worst_s, mean_s = uneven(model)
    if worst_s < UNEVEN_RATIO * mean_s or worst_s < model.samples_per_step / samples_per_s:
        return f"{allowed} with {model.prefetch_batches} prefetched steps too few are under way at a time"
    return (
        f"{allowed} reads are uneven ({worst_s * 1e3:.0f} ms at worst, {mean_s * 1e3:.1f} ms a batch on average) and "
        f"{model.prefetch_batches} prefetched steps do not bridge that"
    )


def uneven(model: PipelineModel) -> tuple[float, float]:
    """The longest wait of a batch, and the mean."""
    return max(max(feed.waits_s) for feed in model.feeds), sum(feed.share * feed.wait_s for feed in model.feeds)


def _transfer_evidence(measured: Measured, option: Option) -> str:
    taking = measured.model.taking
    return (
        f"copying to the device takes {taking.transfer_s * 1e3:.1f} ms a step, and the step of "
        f"{taking.step_s * 1e3:.1f} ms waits for it"
    )


def _threads_evidence(measured: Measured, option: Option) -> str:
    played = simulate(measured.model)
    return (
        f"{measured.model.num_threads} of {measured.model.num_cores:.0f} are used, which keeps the cores "
        f"{1 - played.busy_ratio:.0%} idle"
    )


def _read_evidence(measured: Measured, option: Option) -> str:
    model = measured.model
    wait_s = sum(feed.share * feed.wait_s for feed in model.feeds)
    step_s = model.samples_per_step / simulate(model).samples_per_s
    return f"{wait_s * 1e3:.1f} of {step_s * 1e3:.1f} ms a step, the producing thread waits for bytes"


def _method_evidence(measured: Measured, option: Option) -> str:
    shares: Mapping[str, float] = shares_of(measured.model)
    return f"it has {shares.get(option.stage, 0.0):.0%} of the CPU time, and need not ({option.text})"


_EVIDENCE = {
    "prefetch": _prefetch_evidence,
    "overlap_transfer": _transfer_evidence,
    "threads": _threads_evidence,
    "memory": _read_evidence,
}
