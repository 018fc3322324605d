"""What each option of speed gives, alone and in turns: compiled, recomputed, foreach and fused optimizers, bf16 heads.

    python -m benchmarks.studies.trainer.speed --depth 10 --depth 18 --depth 50

One task's batch in memory. Every option trains a copy of the same weights; its first loss is compared with the plain
model's before anything is timed. Seconds are CPU seconds of this process, wall time stands beside them. Compile time is
that of the first step, once with an empty folder of kernels and once, after torch has forgotten all graphs, with the
folder that the first one filled.
"""

import copy
import dataclasses
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from torch._inductor import config as inductor
from torch._inductor.codecache import PyCodeCache

from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import Job, time_in_turns
from benchmarks.studies.trainer_step import TrainerStepOptions, opened_session
from pipelines.base.errors import FourfoldError
from pipelines.tasks.base import TaskBatch
from training.model import Model
from training.speed.compiled import CACHE_VARIABLE, compiled_forward
from training.updates.losses import Loss

__all__ = ["STUDY", "SpeedOptions", "measure"]

PLAIN, LR = "plain", 1e-4
TOLERANCE = 0.02
"""Of a loss in bf16, between kernels that round at other places."""
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=LR),
    "rmsprop_foreach": lambda weights: torch.optim.RMSprop(weights, lr=LR, foreach=True),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=LR),
    "adamw_foreach": lambda weights: torch.optim.AdamW(weights, lr=LR, foreach=True),
    "adamw_fused": lambda weights: torch.optim.AdamW(weights, lr=LR, fused=True),
}
BASES = {"adamw_foreach": "adamw", "adamw_fused": "adamw"}
"""What an option is compared with, where that is not `plain`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SpeedOptions:
    depths: Annotated[tuple[int, ...], "depth of the trunk; may be given several times", "--depth"] = (10, 18, 50)
    num_repeats: Annotated[int, "turns of each option"] = 7
    num_steps: Annotated[int, "steps of each turn"] = 2
    batch_size: Annotated[int, "images of a batch"] = 8
    width: Annotated[float, "width of the trunk"] = 0.25
    canvas_px: Annotated[int, "side of the canvas"] = 96
    task: Annotated[str, "whose batch it is"] = "colorization"
    compile_depths: Annotated[tuple[int, ...], "depth to compile; default: all", "--compile-depth"] = ()
    is_compiling: bool = True


class Contender:
    """A copy of the model with its own optimizer, and a way to compute its loss."""

    def __init__(self, model: Model, task: str, optimizer: str, forward: Callable[[TaskBatch], Loss] | None = None):
        self.model = model
        self.forward = forward or model
        self._optimizer = OPTIMIZERS[optimizer](model.parameters_of(task))

    def step(self, batch: TaskBatch) -> torch.Tensor:
        loss = self.forward(batch)
        loss.total.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.total.detach()


def _contenders(model: Model, task: str) -> dict[str, Contender]:
    """Return what is measured, all with the same weights."""
    found = {PLAIN: Contender(copy.deepcopy(model), task, "rmsprop")}
    found |= {name: Contender(copy.deepcopy(model), task, name) for name in OPTIMIZERS if name != "rmsprop"}
    saving = copy.deepcopy(model)
    saving.trunk.recompute = True
    found["recompute"] = Contender(saving, task, "rmsprop")
    small = copy.deepcopy(model)
    # Weights of convolutions and linear layers, whose casts autocast then leaves out; norms stay as they are.
    for module in small.heads[task].modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.to(torch.bfloat16)
    found["bf16_heads"] = Contender(small, task, "rmsprop")
    return found


def measure(options: SpeedOptions) -> dict[str, Any]:
    """Return by depth: CPU and wall seconds of a step with each option, ratios to the plain one, compile times."""
    return {"depths": {str(depth): _measure_depth(options, depth) for depth in options.depths}}


def _measure_depth(options: SpeedOptions, depth: int) -> dict[str, Any]:
    asked = TrainerStepOptions(
        num_steps=1,
        batch_size=options.batch_size,
        depth=depth,
        width=options.width,
        canvas_px=options.canvas_px,
        device="cpu",
    )
    with opened_session(asked) as (session, steps), temporary_folder() as folder:
        batch, model, task = steps[0].batches[options.task], session.model, options.task
        contenders, compile_times = _contenders(model, task), {}
        # 1. Compiled twice: with an empty folder of kernels, and with a full one, as the next stage of a suite.
        if options.is_compiling and depth in (options.compile_depths or options.depths):
            for name in ("empty_folder", "full_folder"):
                with _new_compiler(folder):
                    compiled = copy.deepcopy(model)
                    contenders["compiled"] = Contender(compiled, task, "rmsprop", compiled_forward(compiled))
                    fresh = copy.deepcopy(contenders["compiled"].model.state_dict())
                    compile_times[name] = _seconds(contenders["compiled"], batch)
                    compiled.load_state_dict(fresh)
                    say(f"depth {depth}: first step, {name}: {compile_times[name]['cpu_s']:.1f} CPU s")
        # 2. Equal before timed.
        _check_equal(contenders, batch)
        return _timed(options, contenders, batch) | {"compile": compile_times}


@contextmanager
def _new_compiler(folder: Path) -> Iterator[None]:
    """Let torch forget all graphs and loaded kernels, and use `folder` for those it makes."""
    os.environ[CACHE_VARIABLE] = str(folder)
    torch._dynamo.reset()
    PyCodeCache.cache_clear()
    # In this process, so that its CPU seconds can be counted.
    with inductor.patch(compile_threads=1):
        yield


def _seconds(contender: Contender, batch: TaskBatch) -> dict[str, float]:
    """Return CPU seconds, of compilers that it starts too, and wall seconds of a step."""
    start_s, cpu_s = time.perf_counter(), _cpu_s()
    contender.step(batch)
    return {"cpu_s": _cpu_s() - cpu_s, "wall_s": time.perf_counter() - start_s}


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _check_equal(contenders: Mapping[str, Contender], batch: TaskBatch) -> None:
    """Take a step with every contender. Raises FourfoldError where the first loss differs from the plain one."""
    losses = {name: float(one.step(batch)) for name, one in contenders.items()}
    wrong = {name: loss for name, loss in losses.items() if abs(loss / losses[PLAIN] - 1) > TOLERANCE}
    if wrong:
        raise FourfoldError(f"losses differ, so that there is nothing to compare: {wrong}, plain {losses[PLAIN]}")


def _timed(options: SpeedOptions, contenders: Mapping[str, Contender], batch: TaskBatch) -> dict[str, Any]:
    wall_s: dict[str, list[float]] = {name: [] for name in contenders}

    def job(name: str, contender: Contender) -> Job:
        def run() -> None:
            start_s = time.perf_counter()
            for _ in range(options.num_steps):
                contender.step(batch)
            wall_s[name].append((time.perf_counter() - start_s) / options.num_steps)

        return Job(unit="step", num_items=options.num_steps, run=run)

    jobs = {name: job(name, contender) for name, contender in contenders.items()}
    timed = time_in_turns(jobs, options.num_repeats, clock=time.process_time)
    seconds = {name: [one / options.num_steps for one in found.seconds] for name, found in timed.items()}
    ratios = {
        name: ratio_spread(seconds[name], seconds[BASES.get(name, PLAIN)]) for name in contenders if name != PLAIN
    }
    return {
        "step_cpu_s": {name: dataclasses.asdict(spread_of(values)) for name, values in seconds.items()},
        # Without the warm-up.
        "step_wall_s": {name: dataclasses.asdict(spread_of(values[1:])) for name, values in wall_s.items()},
        "ratio": {name: dataclasses.asdict(found) for name, found in ratios.items()},
    }


def _lines(results: dict[str, Any]) -> Iterator[str]:
    for depth, found in results["depths"].items():
        plain = found["step_cpu_s"][PLAIN]["median"]
        yield f"depth {depth}: plain {1000 * plain:.1f} ms of CPU a step"
        for name, ratio in found["ratio"].items():
            spread = f"{ratio['lowest']:.3f} to {ratio['highest']:.3f}"
            yield f"  {name} / {BASES.get(name, PLAIN)}: {ratio['median']:.3f} ({spread})"
        for name, seconds in found["compile"].items():
            yield f"  compiled, {name}: {seconds['cpu_s']:.1f} s of CPU, {seconds['wall_s']:.1f} s"


STUDY = Study(
    module="benchmarks.studies.trainer.speed",
    kind="trainer_speed",
    label="options of speed, each alone",
    description=__doc__,
    options=SpeedOptions,
    measure=measure,
    lines=_lines,
    packages=("torch", "timm"),
)

if __name__ == "__main__":
    STUDY.main()
