"""What the trainer's step costs beside a bare loop with the same nets, losses and optimizers.

Batches lie in memory. Both sides first train on the same batches and must end in the same weights to the bit; then they
are timed in turns in one process. The trainer's side counts, keeps losses for the log, and makes a line of it every
20 steps; the bare side does forward, backward and the optimizer's step.
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Any

import torch

from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.harness.study import Study
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import Job, time_in_turns
from benchmarks.studies.throughput.made_shards import make_shards
from pipelines.base.errors import FourfoldError
from pipelines.build import Step, build_pipeline
from training.config import PretrainConfig
from training.model import Model
from training.parallel import Ranks, choose_device, cpu_threads
from training.session import Session

__all__ = ["STUDY", "BareLoop", "TrainerStepOptions", "measure", "opened_session"]

TASKS: dict[str, dict[str, Any]] = {"relative_position": {}, "colorization": {}, "exemplar": {}}
LOG_EVERY = 20
LIMIT_RATIO = 1.03


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerStepOptions:
    num_steps: Annotated[int, "steps of each turn"] = 20
    num_repeats: Annotated[int, "turns of each side"] = 9
    batch_size: Annotated[int, "images of a batch"] = 16
    depth: Annotated[int, "depth of the trunk"] = 18
    width: Annotated[float, "width of the trunk"] = 0.25
    canvas_px: Annotated[int, "side of the canvas"] = 96
    num_threads: Annotated[int, "CPU threads of training"] = 1
    device: Annotated[str, "auto, cpu or cuda"] = "auto"

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the run, without its images."""
        return {
            "pipeline": {"tasks": TASKS, "canvas_px": self.canvas_px, "batch_size": self.batch_size},
            "trunk": {"depth": self.depth, "width": self.width},
            "heads": {"preset": "small"},
            # Warm-up and schedule are the same number at every step here: the bare side has none.
            "schedule": {"lr_warmup_steps": 0},
            "budget": {"steps": 10**6},
            "held_out": None,
        }


class BareLoop:
    """The loop one would write by hand: an optimizer per task over trunk and head, with torch's own defaults."""

    def __init__(self, model: Model, config: PretrainConfig) -> None:
        self.model, options = model, config.optimizer
        self._optimizers = {
            task: torch.optim.RMSprop(
                [*model.trunk.parameters(), *model.heads[task].parameters()],
                lr=options.lr,
                alpha=options.smoothing,
                eps=options.eps,
            )
            for task in model.heads
        }

    def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            for task, batch in step.batches.items():
                self.model(batch).total.backward()
                self._optimizers[task].step()
                self._optimizers[task].zero_grad(set_to_none=True)


@contextmanager
def opened_session(options: TrainerStepOptions) -> Iterator[tuple[Session, list[Step]]]:
    """Open a session of the trainer, and the batches of its first steps on its device."""
    device = choose_device(options.device)
    with temporary_folder() as folder, cpu_threads(options.num_threads):
        shards = make_shards(folder, num_images=max(64, options.batch_size), num_clips=1)
        value = options.config
        value["pipeline"] = value["pipeline"] | {"images": shards}
        config = PretrainConfig.model_validate(value)
        with build_pipeline(config.pipeline, seed=0) as pipeline:
            session = Session(config, pipeline, Ranks(), device)
            steps = [next(pipeline) for _ in range(options.num_steps)]
            for step in steps:
                step.batches.update({task: batch.to(device) for task, batch in step.batches.items()})
            with closing(session):
                yield session, steps


def measure(options: TrainerStepOptions) -> dict[str, Any]:
    """Return seconds of a step on both sides, and the trainer's divided by the bare loop's."""
    with opened_session(options) as (session, steps):
        bare = BareLoop(copy.deepcopy(session.model), session.config)

        def trainer() -> None:
            for step in steps:
                session.learn(step)
                if session.step % LOG_EVERY == 0:
                    session.log_line()
            _wait(session.device)

        def plain() -> None:
            bare.run(steps)
            _wait(session.device)

        # 1. Equal before timed.
        trainer()
        plain()
        pairs = zip(session.model.parameters(), bare.model.parameters(), strict=True)
        if not all(torch.equal(one, other) for one, other in pairs):
            raise FourfoldError("trainer and bare loop trained different weights; there is nothing to compare")
        # 2. In turns.
        jobs = {
            "trainer": Job(unit="step", num_items=len(steps), run=trainer),
            "bare": Job(unit="step", num_items=len(steps), run=plain),
        }
        timed = time_in_turns(jobs, options.num_repeats)
        ratio = ratio_spread(timed["trainer"].seconds, timed["bare"].seconds)
        seconds = {name: spread_of([one / len(steps) for one in found.seconds]) for name, found in timed.items()}
        return {
            "device": str(session.device),
            "step_s": {name: dataclasses.asdict(found) for name, found in seconds.items()},
            "ratio": dataclasses.asdict(ratio),
            "ratio_of_medians": seconds["trainer"].median / seconds["bare"].median,
            "limit_ratio": LIMIT_RATIO,
        }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _lines(results: dict[str, Any]) -> Iterator[str]:
    for name, found in results["step_s"].items():
        yield f"{name}: {1000 * found['median']:.2f} ms a step"
    yield f"trainer / bare loop: {results['ratio_of_medians']:.3f} (at most {results['limit_ratio']})"


STUDY = Study(
    module="benchmarks.studies.trainer_step",
    kind="trainer_step",
    label="the trainer's step beside a bare loop",
    description=__doc__,
    options=TrainerStepOptions,
    measure=measure,
    lines=_lines,
    is_failed=lambda results: results["ratio_of_medians"] > LIMIT_RATIO,
    packages=("torch", "timm"),
)

if __name__ == "__main__":
    STUDY.main()
