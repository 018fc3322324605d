"""Build a flow engine by its name. The optional ones (RAFT, the GPU's flow unit) are imported only if chosen."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.targets.motion.dense_flow import DenseFlow, DisFlow, EngineName, FarnebackFlow

__all__ = ["EnginePool", "build_engine"]


def build_engine(name: EngineName, raft_weights: str = "default") -> DenseFlow:
    """Return a new engine. `raft_weights` (flow_raft.py) is for "raft" only. Raises UsageError if it cannot be had."""
    if name == "raft":
        from pipelines.targets.motion.flow_raft import RaftFlow

        return RaftFlow(raft_weights)
    if name == "nvof":
        from pipelines.targets.motion.flow_nvof import NvofFlow

        return NvofFlow()
    return DisFlow() if name == "dis" else FarnebackFlow()


class EnginePool:
    """Engines that any thread may borrow: as many as were ever in use at once.

    They outlive the threads, because an engine's first flow costs more than all later ones (buffers).
    """

    def __init__(self, name: EngineName, raft_weights: str = "default") -> None:
        """Raises UsageError if the engine cannot be had."""
        self._arguments = name, raft_weights
        self._idle: list[DenseFlow] = [build_engine(*self._arguments)]

    @contextmanager
    def borrow(self) -> Iterator[DenseFlow]:
        """Lend one engine to the calling thread."""
        try:
            engine = self._idle.pop()  # atomic under the GIL, so two threads never get the same one
        except IndexError:
            engine = build_engine(*self._arguments)
        try:
            yield engine
        finally:
            self._idle.append(engine)
