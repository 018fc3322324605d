"""Config of a run whose ranks are divided among tasks, the `ranks:` part of a YAML file."""

from typing import Literal

from pydantic import Field

from pipelines.base.config import Config

__all__ = ["RanksConfig"]


class RanksConfig(Config):
    """Ranks divided among tasks: a group of ranks trains the whole batches of its tasks, and the trunk updates of all
    groups are added up. Needs `updates: summed`. One rank alone trains all tasks, as without it."""

    tasks: Literal["auto"] | dict[str, int] = "auto"
    """"auto": by what a step of each task costs, on any number of ranks. Or ranks by task, which must be all ranks."""
    local_steps: int = Field(default=1, ge=1)
    """Steps between two exchanges of trunk updates. 1 gives the weights of ranks that all train all tasks. Larger saves
    messages and waiting, and groups then take steps from trunks that lack the others' last updates, as in the paper's
    training without synchronization across tasks."""
