"""Progress bar for long work, on stderr: items, rates, time left, values. Plain lines where stderr is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["ProgressBar", "print_line", "progress_bar", "quiet_progress"]

LINE_EVERY_S = 10.0
_is_quiet = False


class ProgressBar:
    """Progress bar: `advance(n)` counts work done, `skip(n)` work done earlier, `show(loss=0.3)` adds values."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.num_done = 0
        self._num_skipped = self._num_bytes = 0
        self._start_s = self._line_s = time.monotonic()
        self._values = ""
        self._rich: Progress | None = None

    def __enter__(self) -> "ProgressBar":
        # On stderr, so that --json output on stdout stays clean.
        if sys.stderr.isatty() and not _is_quiet:
            self._rich = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._rich.start()
            self._task = self._rich.add_task(self.description, total=self.total, rate="", values="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
        # The bar is transient: one line with the totals stays behind, but not beside an error message.
        if kind is None and not _is_quiet:
            print(self._line(), file=sys.stderr, flush=True)

    def advance(self, count: int = 1, num_bytes: int = 0) -> None:
        """Count `count` items as done now. `num_bytes` are shown as a second rate."""
        self.num_done += count
        self._num_bytes += num_bytes
        self._refresh()

    def skip(self, count: int) -> None:
        """Count `count` items as done by an earlier run: they count for the bar and not for the rate."""
        self._num_skipped += count
        self.advance(count)

    def show(self, **values: float | int | str) -> None:
        """Show values beside the bar from the next refresh on."""
        self._values = " ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())

    def _rate(self) -> str:
        elapsed_s = max(time.monotonic() - self._start_s, 1e-9)
        rate = f"{(self.num_done - self._num_skipped) / elapsed_s:.3g} {self.unit}/s"
        return f"{rate}, {self._num_bytes / 1e6 / elapsed_s:.3g} MB/s" if self._num_bytes else rate

    def _time_left(self) -> str:
        """Return the time left at the rate so far, as ", 0:01:30 left"; empty before there is a rate."""
        elapsed_s, num_new = time.monotonic() - self._start_s, self.num_done - self._num_skipped
        if self.total is None or num_new <= 0 or self.num_done >= self.total:
            return ""
        left_s = round((self.total - self.num_done) * elapsed_s / num_new)
        return f", {left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left"

    def _line(self) -> str:
        of = f"/{self.total}" if self.total is not None else ""
        amount = f"{self.num_done}{of} {self.unit}, {self._rate()}{self._time_left()}"
        return f"{self.description}: {amount} {self._values}".rstrip()

    def _refresh(self) -> None:
        # Log files get a line every LINE_EVERY_S, not one per item.
        if self._rich is not None:
            self._rich.update(self._task, completed=self.num_done, rate=self._rate(), values=self._values)
        elif not _is_quiet and time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)


def progress_bar(description: str, *, total: int | None, unit: str) -> ProgressBar:
    """Return a progress bar to use as a context manager. `unit`: plural of what is counted, such as "samples"."""
    return ProgressBar(description, total, unit)


def print_line(text: str) -> None:
    """Print a line on stderr, unless progress is quiet: in a suite, dozens of runs would each print theirs."""
    if not _is_quiet:
        print(text, file=sys.stderr)


@contextmanager
def quiet_progress() -> Iterator[None]:
    """Print no progress inside the block (for --json and tests)."""
    global _is_quiet
    before, _is_quiet = _is_quiet, True
    try:
        yield
    finally:
        _is_quiet = before
