"""Files of a run beside checkpoint and log: `config.yaml`, `backend.json` at its start, `summary.json` at its end."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import yaml

from pipelines.base.atomic import write_atomically
from pipelines.base.config import load_config
from pipelines.base.errors import UsageError
from pipelines.pipeline_config import SOURCE_NAMES, PipelineConfig
from training.config import PretrainConfig
from training.trunk import TRUNK_NAME

__all__ = [
    "BACKEND_NAME",
    "CONFIG_NAME",
    "SUMMARY_NAME",
    "RunSummary",
    "claim",
    "read_summary",
    "settle_backends",
    "write_summary",
]

BACKEND_NAME = "backend.json"
CONFIG_NAME = "config.yaml"
SUMMARY_NAME = "summary.json"
NOT_PART_OF_THE_RESULT = {"checkpoint", "diagnostics", "held_out", "log_every_steps"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A finished run. `samples_seen`, `losses` and `metrics` (last logged) are per task; empty for a random trunk.

    passes: times that a task saw every sample. source_samples, source_passes: the same for "image" and "clip", whose
    batches tasks share. trunk_updates, head_updates: steps of optimizers. decay: sum of learning rate x weight decay
    over the updates of "trunk" and of each task's head. cpu_seconds: of all threads and ended worker processes of all
    ranks. gpu_seconds: wall time x GPUs; 0 on a CPU. held_out: task -> "model", "constant" or "place" -> loss and
    metrics. warnings: what is wrong with a task's learning, a sentence each.
    """

    num_steps: int
    seconds: float
    compute_tflop: float
    num_trunk_parameters: int
    device: str
    samples_seen: dict[str, int]
    losses: dict[str, float]
    metrics: dict[str, dict[str, float]]
    passes: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    source_samples: dict[str, int] = field(default_factory=dict)
    source_passes: dict[str, float] = field(default_factory=dict)
    trunk_updates: int = 0
    head_updates: dict[str, int] = field(default_factory=dict)
    decay: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0


def claim(run_dir: Path, config: PretrainConfig) -> None:
    """Write the configuration, or check that the run in the folder has the same. Raises UsageError."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / CONFIG_NAME
    if not path.is_file():
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_atomically(path, text.encode())
        return
    there = load_config(PretrainConfig, path).model_dump(mode="json", exclude=NOT_PART_OF_THE_RESULT)
    given = config.model_dump(mode="json", exclude=NOT_PART_OF_THE_RESULT)
    changed = [name for name in {**given, **there} if given.get(name) != there.get(name)]
    free = sorted(NOT_PART_OF_THE_RESULT)
    if changed:
        raise UsageError(
            f"{run_dir}: holds a run with other values of {', '.join(changed)}. A run can resume with other values of "
            f"{', '.join(free[:-1])} and {free[-1]} only: give another folder, or delete this one."
        )


def settle_backends(run_dir: Path, config: PipelineConfig, device: torch.device) -> PipelineConfig:
    """Return the config with the backends of this run: chosen when it begins and written down, with the reasons.

    A run resumes with the backends it began with, on any machine: pixels of others differ by some levels. Raises
    UsageError if one is not available here.
    """
    path, kinds = run_dir / BACKEND_NAME, config.kinds
    if not path.is_file():
        placements = {SOURCE_NAMES[kind]: config.placement_of(kind, device) for kind in kinds}
        chosen = {name: asdict(one.backend) | {"placement": str(one)} for name, one in placements.items()}
        write_atomically(path, (json.dumps(chosen, indent=1) + "\n").encode())
    begun = json.loads(path.read_text(encoding="utf-8"))
    # Runs of earlier versions had one backend for both kinds.
    names = {SOURCE_NAMES[kind]: begun.get(SOURCE_NAMES[kind], begun)["name"] for kind in kinds}
    settled = config.with_backends(names)
    for kind in kinds:
        try:
            settled.placement_of(kind, device)
        except UsageError as error:
            name = SOURCE_NAMES[kind]
            raise UsageError(
                f"{path}: this run began with {names[name]} for {name} and resumes with no other. {error}"
            ) from error
    return settled


def write_summary(run_dir: Path, summary: RunSummary) -> RunSummary:
    """Mark the run as finished."""
    text = json.dumps(asdict(summary), indent=1) + "\n"
    write_atomically(run_dir / SUMMARY_NAME, text.encode())
    return summary


def read_summary(run_dir: Path) -> RunSummary | None:
    """Return the summary of a finished run; None if there is none."""
    path = run_dir / SUMMARY_NAME
    if not path.is_file() or not (run_dir / TRUNK_NAME).is_file():
        return None
    return RunSummary(**json.loads(path.read_text(encoding="utf-8")))
