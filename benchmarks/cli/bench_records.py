"""`fourfold bench compare|verify`: whether records may be compared, and whether a number comes out again."""

import tempfile
from pathlib import Path

import typer

from benchmarks.results.output import AsJson, print_json, print_table, say

__all__ = ["compare", "verify"]

RecordPlace = "A record.json, the folder of a stage or of a suite, or a file of benchmarks/records."


def compare(
    first: Path = typer.Argument(metavar="A", help=RecordPlace),
    second: Path = typer.Argument(metavar="B", help=RecordPlace),
    as_json: bool = AsJson,
) -> None:
    """Say whether two records may be compared, and what changed: configuration, data, code, machine.

    Of two suites, the records with the same kind and label are compared. Exit code 1 if any may not be.

    Example: fourfold bench compare runs/demo runs/demo-again
    """
    from benchmarks.results.records.compare import compare_records
    from benchmarks.results.records.load import load_records

    found, alone = compare_records(load_records(first), load_records(second))
    if as_json:
        print_json([{"comparison": one, "may_be_compared": not one.reasons, "reasons": one.reasons} for one in found])
    else:
        changes: dict[tuple[str, ...], int] = {}
        for one in found:
            for change in one.changes:
                row = (change.part, change.name, change.first, change.second, change.forbids or "-")
                changes[row] = changes.get(row, 0) + 1
        columns = ["part", "what", "first", "second", "forbids", "records"]
        print_table(
            f"what changed between {first} and {second}", columns, [(*row, count) for row, count in changes.items()]
        )
        rows = [(one.kind, one.second, name, a, b, b - a) for one in found for name, a, b, _ in one.results]
        print_table("results", ["kind", "record", "result", "first", "second", "difference"], rows)
        for label in alone:
            say(f"in one of the two only: {label}")
    reasons = list(dict.fromkeys(reason for one in found for reason in one.reasons))
    for reason in reasons:
        say(f"may not be compared: {reason}")
    if not found:
        say("may not be compared: no record of one has the kind and label of a record of the other")
    if reasons or not found:
        raise typer.Exit(1)
    say(f"{len(found)} pair{'' if len(found) == 1 else 's'} of records may be compared")


def verify(
    record: Path = typer.Argument(metavar="RECORD", help=RecordPlace),
    cell: str = typer.Option(..., "--cell", metavar="NAME", help='Such as "colorization, depth 18, seed 0".'),
    images: Path | None = typer.Option(None, "--images", metavar="DIR", help="Where the image shards lie now."),
    clips: Path | None = typer.Option(None, "--clips", metavar="DIR", help="Where the clip shards lie now."),
    out: Path | None = typer.Option(None, "--out", metavar="DIR", help="Keep the new run here. Default: nowhere."),
    as_json: bool = AsJson,
) -> None:
    """Run a cell again and say whether its numbers lie in the interval; costs what the cell cost.

    The interval: by how much two runs of different seeds differ, 95 % of the time. Exit code 1 if a number is outside.

    Example: fourfold bench verify runs/demo --cell "colorization, depth 10, seed 0"
    """
    from benchmarks.suite.verify import verify_cell

    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        found = verify_cell(record, cell, folder, images=images, clips=clips)
    if as_json:
        print_json([{"verified": one, "difference": one.difference, "is_inside": one.is_inside} for one in found])
    else:
        rows = [
            (
                one.evaluation.replace("_", " "),
                one.metric,
                f"{one.recorded:.2f}",
                f"{one.rerun:.2f}",
                f"{one.difference:+.2f}",
                f"{one.recorded - one.allowed:.2f} to {one.recorded + one.allowed:.2f}",
                "equal" if one.difference == 0 else "inside" if one.is_inside else "OUTSIDE",
                one.reason,
            )
            for one in found
        ]
        columns = ["evaluation", "result", "recorded", "again", "difference", "interval", "verdict", "interval from"]
        print_table(cell, columns, rows)
    if not all(one.is_inside for one in found):
        raise typer.Exit(1)
