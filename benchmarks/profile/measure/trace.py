"""What happened when, as a trace for Perfetto (ui.perfetto.dev) or chrome://tracing: one row for every thread.

Trace event format: {"traceEvents": [{"ph": "X", "name", "cat", "ts", "dur", "pid", "tid"}, ...]}, microseconds.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results.record import write_json

__all__ = ["Recorder", "Span", "trace_events", "write_trace"]


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


def trace_events(spans: list[Span]) -> dict[str, Any]:
    """The document, times counted from the first span."""
    origin_s = min((span.start_s for span in spans), default=0.0)
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


def write_trace(path: Path, spans: list[Span]) -> None:
    """Whole or not at all. Raises DataError."""
    write_json(path, trace_events(spans))
