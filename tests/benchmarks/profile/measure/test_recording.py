"""The trace is one that Perfetto reads; what only a GPU can tell is not measured without one."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.profile.measure.recording import (
    GpuWatch,
    Recorder,
    Span,
    kernels_of,
    record_live,
    top_kernels,
    trace_events,
    watched,
    write_trace,
)
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]
CPU = torch.device("cpu")
SPANS = [
    Span("decode", 10.5, 10.75, "fourfold-pipeline"),
    Span("read", 10.25, 10.5, "fourfold-pipeline"),
    Span("step", 10.6, 10.6000012, "MainThread"),
]


def test_events_are_complete_and_in_microseconds_from_the_first() -> None:
    events = [event for event in trace_events(SPANS)["traceEvents"] if event["ph"] == "X"]
    assert [(event["name"], event["ts"], event["dur"]) for event in events] == [
        ("read", 0.0, 250_000.0),
        ("decode", 250_000.0, 250_000.0),
        ("step", pytest.approx(350_000.0), pytest.approx(1.2)),
    ]
    assert {event["cat"] for event in events} == {"stage"}


def test_every_thread_has_a_named_row() -> None:
    document = trace_events(SPANS)
    names = {event["tid"]: event["args"]["name"] for event in document["traceEvents"] if event["ph"] == "M"}
    rows = {event["name"]: names[event["tid"]] for event in document["traceEvents"] if event["ph"] == "X"}
    assert rows == {"read": "fourfold-pipeline", "decode": "fourfold-pipeline", "step": "MainThread"}
    assert len({event["pid"] for event in document["traceEvents"]}) == 1


def test_a_file_without_any_span_is_a_trace_too(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace.json", [])
    assert json.loads((tmp_path / "trace.json").read_text()) == {"traceEvents": [], "displayTimeUnit": "ms"}


def test_written_trace_is_the_document(tmp_path: Path) -> None:
    write_trace(tmp_path / "out" / "trace.json", SPANS)
    assert json.loads((tmp_path / "out" / "trace.json").read_text()) == trace_events(SPANS)


def test_the_recorder_keeps_what_it_is_told() -> None:
    recorder = Recorder()
    recorder("read", 1.0, 2.0, "MainThread")
    recorder("decode", 2.0, 3.0, "other")
    assert recorder.spans == [Span("read", 1.0, 2.0, "MainThread"), Span("decode", 2.0, 3.0, "other")]


def test_without_a_gpu_nothing_is_measured_and_it_says_so() -> None:
    with watched(CPU) as watch:
        pass
    assert watch.busy_ratio is None
    assert watch.note == "no GPU"


def test_without_a_gpu_the_work_is_not_even_done() -> None:
    assert top_kernels(lambda: 1 / 0, CPU) == ()


def test_utilisation_is_the_mean() -> None:
    assert GpuWatch(busy_ratios=[0.5, 1.0]).busy_ratio == 0.75


def test_kernels() -> None:
    rows = [("copy", 500.0, 2), ("aten::mm", 0.0, 9), ("gemm", 2500.0, 3)]
    events = [SimpleNamespace(key=key, self_device_time_total=us, count=count) for key, us, count in rows]
    found = kernels_of(events)
    assert [(one.name, one.device_ms, one.num_calls) for one in found] == [("gemm", 2.5, 3), ("copy", 0.5, 2)]
    assert len(kernels_of(events * 20)) == 10


def test_a_live_stretch_records_every_stage(small_shards: MakeShards) -> None:
    config = made_config(images=small_shards(8), batch_size=4, canvas_px=32, prefetch_batches=1)
    live = record_live(config, 0.05)
    assert {span.stage for span in live.spans} == {"read", "decode", "colorization", "wait", "transfer", "step"}
    assert (live.gpu.busy_ratio, live.kernels) == (None, ())
