"""Output of commands: tables and facts for people, or the same as one JSON document for programs (`--json`)."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

__all__ = ["AsJson", "Overrides", "plain", "print_facts", "print_json", "print_table", "say", "size_text"]

MOST_FOLDED_ROWS = 500
"""Of a table on a terminal; rich takes a millisecond for each."""

AsJson = typer.Option(False, "--json", help="Print one JSON document instead of a table.")
Overrides = typer.Option(
    None,
    "--set",
    metavar="NAME=VALUE",
    help="Override one key of the configuration; may be repeated. Example: --set trunk.depth=34",
)


def plain(value: Any) -> Any:
    """Return a value that `json` can write, from dataclasses, configs, paths, tuples and NumPy numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    # Numbers of NumPy and of torch, without importing either.
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, and nothing else."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a title and below it a table, numbers aligned right."""
    rows = [list(row) for row in rows]
    is_number = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    texts = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty() or len(texts) > MOST_FOLDED_ROWS:
        _print_lines(title, [list(columns), *texts], is_number)
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column, is_right in zip(columns, is_number, strict=True):
        table.add_column(column, justify="right" if is_right else "left", overflow="fold")
    for row in texts:
        table.add_row(*row)
    _print_folded(title, table)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print a title and below it names and values, one pair a line."""
    texts = [[name, _cell(value)] for name, value in facts.items()]
    if not sys.stdout.isatty():
        _print_lines(title, texts, [False, False])
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for row in texts:
        table.add_row(*row)
    _print_folded(title, table)


def say(message: str) -> None:
    """Print one line for people on stderr; stdout holds results only."""
    print(message, file=sys.stderr, flush=True)


def size_text(num_bytes: float) -> str:
    """Return bytes for people: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_cell, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_lines(title: str, rows: Sequence[Sequence[str]], is_right: Sequence[bool]) -> None:
    """Print one line a row, as wide as it is, and no blanks at the ends, so that diff and grep see only the content."""
    rows = [[" ".join(text.split("\n")) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    print(title)
    for row in rows:
        padding = [" " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)]
        cells = (
            blanks + text if right else text + blanks
            for text, blanks, right in zip(row, padding, is_right, strict=True)
        )
        print("  ".join(cells).rstrip())


def _print_folded(title: str, table: Table) -> None:
    """Print a table on a terminal, long cells folded to its width."""
    console = Console(highlight=False, markup=False)
    console.print(title, style="bold")
    console.print(table)
