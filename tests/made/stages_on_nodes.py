"""What stages do in the tests of RayExecutor. Here, because worker processes import it; light, since each does anew."""

import os
import time
from pathlib import Path

from benchmarks.results.record import Record, write_record
from benchmarks.suite.stages import Stage
from tests.made.made_graphs import made_record
from tests.made.patience import PATIENCE_S

__all__ = ["SlowRunner"]


class SlowRunner:
    """Take a while, note machine and stage, and leave a record that depends on the stage alone.

    hang_on: id of a machine on which the third stage to begin never ends.
    """

    def __init__(self, out: Path, notes: Path, seconds: float, hang_on: str = "") -> None:
        self.out, self.notes, self.seconds, self.hang_on = out, notes, seconds, hang_on

    def __call__(self, stage: Stage) -> Record:
        node = _node()
        (self.notes / f"{stage.key[:12]}-{os.getpid()}.begun").write_text(node)
        if node == self.hang_on and sum(path.read_text() == node for path in self.notes.glob("*.begun")) == 3:
            (self.notes / "hung").write_text(stage.key)
            time.sleep(PATIENCE_S)
        time.sleep(self.seconds)
        record = made_record(stage)
        record.results["top1_pct"] = float(int(stage.key[:6], 16) % 1000) / 10
        write_record(stage.folder(self.out), record)
        (self.notes / f"{stage.key[:12]}-{os.getpid()}.ended").write_text(node)
        return record


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else "here"
