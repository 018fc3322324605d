"""The trace is one that Perfetto and chrome://tracing read: complete events, microseconds, a row for every thread."""

import json
from pathlib import Path

import pytest

from benchmarks.profile.measure.trace import Recorder, Span, trace_events, write_trace

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
