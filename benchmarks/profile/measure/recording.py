"""Record one stretch of a running pipeline, every piece of work in it, and how busy a GPU is meanwhile.

The trace is for Perfetto (ui.perfetto.dev) or chrome://tracing, one row for every thread. Trace event format:
{"traceEvents": [{"ph": "X", "name", "cat", "ts", "dur", "pid", "tid"}, ...]}, microseconds. Without a GPU, its busy
ratio is None and its kernels are (), shown as "not measured".
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.profile_config import ProfileConfig
from benchmarks.results.record import write_json

__all__ = [
    "GpuWatch",
    "Kernel",
    "Live",
    "Recorder",
    "Span",
    "record_live",
    "top_kernels",
    "trace_events",
    "write_trace",
]

EVERY_S = 0.05
NUM_KERNELS = 10


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work. Seconds of `time.perf_counter`."""

    stage: str
    start_s: float
    end_s: float
    thread: str


class Recorder:
    """A listener of a pipeline's stages that keeps every span; appending to a list is safe from any thread."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def __call__(self, stage: str, start_s: float, end_s: float, thread: str) -> None:
        self.spans.append(Span(stage, start_s, end_s, thread))


@dataclass(slots=True)
class GpuWatch:
    """Samples of NVML, filled while `watched` runs: share of time in which any kernel ran, 0 to 1."""

    busy_ratios: list[float] = field(default_factory=list)
    note: str = "no GPU"

    @property
    def busy_ratio(self) -> float | None:
        return sum(self.busy_ratios) / len(self.busy_ratios) if self.busy_ratios else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel or operator by name, with its own milliseconds on the device."""

    name: str
    device_ms: float
    num_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The recorded stretch: all work, how busy the GPU was, the kernels that took longest."""

    spans: tuple[Span, ...]
    gpu: GpuWatch
    kernels: tuple[Kernel, ...]


def record_live(config: ProfileConfig, seconds: float) -> Live:
    """Run a pipeline with its consumer for a time, then one step more under torch's profiler."""
    # The kernels come after the spans, of a step of their own: torch's profiler slows down what it watches.
    recorder = Recorder()
    with Bench(config) as bench:
        bench.observe(recorder)
        with watched(bench.device) as gpu:
            bench.window(seconds)
        bench.observe(None)
        kernels = top_kernels(lambda: bench.window(60.0, max_steps=1), bench.device)
    return Live(spans=tuple(recorder.spans), gpu=gpu, kernels=kernels)


@contextmanager
def watched(device: torch.device) -> Iterator[GpuWatch]:
    """Ask NVML for the GPU's utilisation every EVERY_S for the time of the block."""
    watch, ended = GpuWatch(), threading.Event()
    if device.type != "cuda":
        yield watch
        return
    watch.note = ""

    def sample() -> None:
        try:
            while not ended.wait(EVERY_S):
                watch.busy_ratios.append(torch.cuda.utilization(device) / 100)
        except Exception as error:  # NVML is extra information: whatever is wrong with it must not cost the profile
            watch.note = f"NVML: {type(error).__name__}: {error}. pip install nvidia-ml-py"

    # A thread of its own: questions to NVML between steps would make the steps longer.
    thread = threading.Thread(target=sample, name="fourfold-nvml", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def top_kernels(work: Callable[[], object], device: torch.device) -> tuple[Kernel, ...]:
    """Do some work under torch's profiler; return the kernels that took longest. () where the device is no GPU."""
    if device.type != "cuda":
        return ()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        work()
        # Before the profiler stops: kernels that end later would be missing.
        torch.cuda.synchronize(device)
    return kernels_of(profiler.key_averages())


def kernels_of(events: Any) -> tuple[Kernel, ...]:
    """Return kernels with time on the device, the longest first."""
    found = [Kernel(name=one.key, device_ms=one.self_device_time_total / 1e3, num_calls=one.count) for one in events]
    ran = [kernel for kernel in found if kernel.device_ms > 0]
    return tuple(sorted(ran, key=lambda kernel: -kernel.device_ms)[:NUM_KERNELS])


def trace_events(spans: Sequence[Span]) -> dict[str, Any]:
    """Return the document, times counted from the first span."""
    origin_s = min((span.start_s for span in spans), default=0.0)
    # The format has numbers for threads, and their names in events of their own.
    threads = {name: index for index, name in enumerate(dict.fromkeys(span.thread for span in spans), start=1)}
    pid = os.getpid()
    names = [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
        for name, tid in threads.items()
    ]
    events = [
        {
            "ph": "X",
            "name": span.stage,
            "cat": "stage",
            "ts": round((span.start_s - origin_s) * 1e6, 1),
            "dur": round((span.end_s - span.start_s) * 1e6, 1),
            "pid": pid,
            "tid": threads[span.thread],
        }
        for span in sorted(spans, key=lambda span: span.start_s)
    ]
    return {"traceEvents": names + events, "displayTimeUnit": "ms"}


def write_trace(path: Path, spans: Sequence[Span]) -> None:
    """Write the trace whole or not at all. Raises DataError."""
    write_json(path, trace_events(spans))
