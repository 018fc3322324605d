"""Data sets that evaluations bring themselves: a folder in one of several layouts comes in, checked splits go out.

Detection, depth and the dense probe share this: which layout a folder has, what to download if it has none, and the
`Evaluation` around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from benchmarks.evaluations.base import Context, Evaluation, Results
from benchmarks.evaluations.content import folder_content
from pipelines.base.config import Config
from pipelines.base.errors import UsageError

__all__ = ["Layout", "data_content", "evaluation_of_own_data", "open_data"]

SplitT = TypeVar("SplitT")
MOST_FOLDERS = 1000
"""Folders that are looked into for a layout: the folder given may hold thousands of others."""


class DataConfig(Protocol):
    """Options that name a data set."""

    @property
    def data(self) -> Path: ...


ConfigT = TypeVar("ConfigT", bound=DataConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(Generic[ConfigT, SplitT]):
    """A layout of a data set: `fits` looks at the folder's names only, `open` reads and checks it."""

    fits: Callable[[Path], bool]
    open: Callable[[ConfigT], list[SplitT]]
    """open(config) -> train and test split. Raises UsageError or DataError."""
    needs: str
    """What to download, from where, and which folder to give: "VOC: ...", without a full stop."""


def open_data(config: ConfigT, layouts: Sequence[Layout[ConfigT, SplitT]]) -> tuple[SplitT, SplitT]:
    """Return the train and the test split of `config.data`, in the first layout that fits.

    Raises UsageError that names all layouts where there is no such folder or none fits, and what `open` raises.
    """
    data, allowed = config.data, "".join(f"\n- {layout.needs}." for layout in layouts)
    if not data.is_dir():
        raise UsageError(f"data: {data} is no folder. Give a folder in one of these layouts:{allowed}")
    for layout in layouts:
        if layout.fits(data):
            train, test = layout.open(config)
            return train, test
    inner = _inner(data, layouts)
    hint = "" if inner is None else f" Give {inner}, which has one."
    raise UsageError(f"data: {data} has none of the layouts below.{hint} Allowed:{allowed}")


def _inner(data: Path, layouts: Sequence[Layout[Any, Any]]) -> Path | None:
    """Return a folder up to two levels below that has a layout: archives often unpack into one more folder."""
    below = [path for pattern in ("*", "*/*") for path in sorted(data.glob(pattern))[:MOST_FOLDERS] if path.is_dir()]
    return next((path for path in below if any(layout.fits(path) for layout in layouts)), None)


def data_content(config: DataConfig) -> dict[str, str]:
    """Return the content of a data set, for the key of a record."""
    return {"data": folder_content(config.data)}


def evaluation_of_own_data(
    *,
    config_class: type[Config],
    run: Callable[[Context, Any], Results],
    check: Callable[[Context, Any], None],
    metric: str,
) -> Evaluation:
    """Return an evaluation that reads `config.data` instead of the suite's labelled images."""
    return Evaluation(
        config_class=config_class,
        run=run,
        check=check,
        content=data_content,
        data_fields=("data",),
        reads_images=False,
        metric=metric,
    )
