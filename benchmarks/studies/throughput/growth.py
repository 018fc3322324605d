"""Cost of a sample in larger data sets, in more shards and in later epochs, and memory along a long run.

    python -m benchmarks.studies.throughput.growth --out growth.json   some minutes; --memory-batches 5000 for a look

Images are tiny, so that what is measured is the plan, the reading and the drawing, not the decoding; large data sets
are simulated (`simulated_shards`). All data sets take turns in one process; what is compared is CPU time per sample
(user and system, all threads), which neighbours on a busy machine change less than they change wall time.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from benchmarks.harness.spread import ratio_spread, spread_of
from benchmarks.harness.study import Study
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import turns
from benchmarks.studies.throughput.made_shards import simulated_shards
from pipelines.build import Pipeline, PipelineConfig, build_pipeline

__all__ = ["STUDY", "DataSet", "GrowthOptions", "data_sets", "measure_cost", "measure_memory"]

IMAGE_PX = 32
SAMPLES_PER_SHARD = 1000
WARM_UP_BATCHES = 10
SETTLE_S = 0.1
"""After this the queue is full again: a data set makes as many batches as it takes, and none that another left."""
MIB = 2**20
TASKS: dict[str, dict[str, Any]] = {"relative_position": {}, "colorization": {}, "exemplar": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthOptions:
    """Amounts to measure."""

    num_repeats: Annotated[int, "of every data set"] = 7
    num_batches: Annotated[int, "of every data set and repeat"] = 40
    batch_size: Annotated[int, "samples of a batch"] = 64
    largest: Annotated[int, "samples of the largest data set"] = 1_000_000
    memory_batches: Annotated[int, "of the long run; 0: memory is not measured"] = 50_000


@dataclass(slots=True, kw_only=True)
class DataSet:
    """A data set at one place of its stream. first_step_s: from opening it to its first batch."""

    name: str
    compared_with: str
    num_shards: int
    samples_per_shard: int
    epoch: int = 0
    first_step_s: float = 0.0
    cpu_us_per_sample: list[float] = field(default_factory=list)

    @property
    def num_samples(self) -> int:
        return self.num_shards * self.samples_per_shard


def data_sets(options: GrowthOptions) -> dict[str, DataSet]:
    """Return all data sets by name: more shards, more samples, a later epoch, the first of each the base."""
    many = [count for count in (1, 10, 100, 1000) if count * SAMPLES_PER_SHARD <= options.largest]
    rows = [(f"{count} shards", "1 shards", count, 10_000 // count, 0) for count in (1, 10, 100)]
    base = f"{SAMPLES_PER_SHARD} samples"
    rows += [(f"{count * SAMPLES_PER_SHARD} samples", base, count, SAMPLES_PER_SHARD, 0) for count in many]
    rows += [(f"epoch {epoch + 1}", "epoch 1", 10, 1000, epoch) for epoch in (0, 9)]
    names = ("name", "compared_with", "num_shards", "samples_per_shard", "epoch")
    return {row[0]: DataSet(**dict(zip(names, row, strict=True))) for row in rows}  # type: ignore[arg-type]


def measure(options: GrowthOptions) -> dict[str, Any]:
    """Return the cost of a sample by data set, and memory along a long run."""
    # Threads that wait for each other would count as CPU time.
    torch.set_num_threads(1)
    with temporary_folder() as folder:
        results: dict[str, Any] = {"cost": measure_cost(folder, options)}
        if options.memory_batches:
            results["memory"] = measure_memory(folder, options)
    return results


def measure_cost(folder: Path, options: GrowthOptions) -> list[dict[str, Any]]:
    """Return a row for each data set: CPU time a sample, and its ratio to that of the one it is compared with."""
    found = data_sets(options)
    with ExitStack() as stack:
        pipelines = {name: stack.enter_context(_opened(folder, one, options.batch_size)) for name, one in found.items()}
        for repeat, name in turns(found, options.num_repeats):
            # Warmed up once, since the pipelines stay open between their turns.
            _take(pipelines[name], 0 if repeat else WARM_UP_BATCHES)
            time.sleep(SETTLE_S)
            start_s = time.process_time()
            _take(pipelines[name], options.num_batches)
            time.sleep(SETTLE_S)
            spent_s = time.process_time() - start_s
            found[name].cpu_us_per_sample.append(spent_s / options.num_batches / options.batch_size * 1e6)
    return [_row(one, found[one.compared_with]) for one in found.values()]


def _row(one: DataSet, base: DataSet) -> dict[str, Any]:
    ratio = ratio_spread(one.cpu_us_per_sample, base.cpu_us_per_sample)
    return asdict(one) | {
        "num_samples": one.num_samples,
        "median_cpu_us_per_sample": spread_of(one.cpu_us_per_sample).median,
        "ratio": ratio.median,
        "ratio_low": ratio.lowest,
        "ratio_high": ratio.highest,
    }


def _opened(folder: Path, one: DataSet, batch_size: int) -> Pipeline:
    """Return the pipeline at the data set's place, its first batch taken."""
    shards = folder / f"{one.num_shards}x{one.samples_per_shard}"
    if not shards.exists():
        size = {"num_shards": one.num_shards, "samples_per_shard": one.samples_per_shard}
        simulated_shards(shards, **size, image_px=IMAGE_PX)
    config = {"images": shards, "tasks": TASKS, "canvas_px": IMAGE_PX, "batch_size": batch_size, "num_threads": 1}
    start_s = time.perf_counter()
    pipeline = build_pipeline(PipelineConfig.model_validate(config), seed=0)
    batch = one.epoch * one.num_samples // batch_size
    # Restored to its place, since running up to it would take whole epochs.
    pipeline.restore({"step": batch, "image_batch": batch, "clip_batch": 0})
    _take(pipeline, 1)
    one.first_step_s = time.perf_counter() - start_s
    return pipeline


def _take(pipeline: Pipeline, num_batches: int) -> None:
    for _ in islice(pipeline, num_batches):
        pass


def measure_memory(folder: Path, options: GrowthOptions) -> dict[str, Any]:
    """Return the memory of this process, without the pages of mapped files, along one long run."""
    one = DataSet(name="memory", compared_with="memory", num_shards=10, samples_per_shard=1000)
    every = max(options.memory_batches // 50, 1)
    taken, used_mib = [], []
    with _opened(folder, one, batch_size=8) as pipeline:
        for batch in range(1, options.memory_batches + 1):
            next(pipeline)
            if batch % every == 0:
                taken.append(batch)
                used_mib.append(_anonymous_bytes() / MIB)
    # Without the first fifth, in which caches and pools still fill.
    settled = len(taken) // 5
    slope = float(np.polyfit(taken[settled:], used_mib[settled:], 1)[0])
    return {
        "batches": taken,
        "used_mib": [round(one, 2) for one in used_mib],
        "mib_after_a_fifth": used_mib[settled],
        "mib_at_the_end": used_mib[-1],
        "growth_mib_per_10000_batches": slope * 10_000,
    }


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def shown(results: dict[str, Any]) -> Iterator[str]:
    for row in results["cost"]:
        yield f"{row['name']}: {row['median_cpu_us_per_sample']:.0f} us a sample, {row['ratio']:.3f} of the first"
    if memory := results.get("memory"):
        growth = memory["growth_mib_per_10000_batches"]
        yield f"memory: {memory['mib_at_the_end']:.0f} MiB, {growth:+.2f} MiB per 10,000 batches"


STUDY = Study(
    module="benchmarks.studies.throughput.growth",
    kind="throughput_growth",
    label="cost of a sample by shards, samples and epoch",
    description=__doc__,
    options=GrowthOptions,
    measure=measure,
    lines=shown,
    constants={"tasks": TASKS, "image_px": IMAGE_PX},
    inputs={"shards": "simulated by benchmarks/studies/throughput/made_shards.py"},
)

if __name__ == "__main__":
    STUDY.main()
