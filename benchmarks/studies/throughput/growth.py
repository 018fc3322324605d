"""Does a sample cost more in a larger data set, in more shards, or in a later epoch, and does memory grow? One JSON.

    python -m benchmarks.studies.throughput.growth --out growth.json   some minutes; --memory-batches 5000 for a look

Images are tiny, so that what is measured is the plan, the reading and the drawing, not the decoding; large data sets
are simulated (simulated.py). All cases take turns in one process; what is compared is CPU time per sample (user and
system, all threads), which neighbours on a busy machine change less than they change wall time.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.studies.throughput.simulated import simulated_shards
from pipelines.build import Pipeline, PipelineConfig, build_pipeline

__all__ = ["Case", "Options", "main", "measure_cases", "measure_memory"]

IMAGE_PX = 32
SAMPLES_PER_SHARD = 1000
WARM_UP_BATCHES = 10
SETTLE_S = 0.1
"""After this the queue is full again: a case makes as many batches as it takes, and none that another left undone."""
MIB = 2**20
TASKS: dict[str, dict[str, Any]] = {"relative_position": {}, "colorization": {}, "exemplar": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is measured. num_batches: of each case and repeat. memory_batches: of the long run."""

    num_repeats: int = 7
    num_batches: int = 40
    batch_size: int = 64
    largest: int = 1_000_000
    memory_batches: int = 50_000


@dataclass(slots=True, kw_only=True)
class Case:
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


def cases(options: Options) -> list[Case]:
    """The first of each group is what the others are compared with."""
    found = [
        Case(name=f"{count} shards", compared_with="1 shards", num_shards=count, samples_per_shard=10_000 // count)
        for count in (1, 10, 100)
    ]
    shards = [count for count in (1, 10, 100, 1000) if count * SAMPLES_PER_SHARD <= options.largest]
    found += [
        Case(
            name=f"{count * SAMPLES_PER_SHARD} samples",
            compared_with=f"{SAMPLES_PER_SHARD} samples",
            num_shards=count,
            samples_per_shard=SAMPLES_PER_SHARD,
        )
        for count in shards
    ]
    found += [
        Case(name=f"epoch {epoch + 1}", compared_with="epoch 1", num_shards=10, samples_per_shard=1000, epoch=epoch)
        for epoch in (0, 9)
    ]
    return found


def measure_cases(folder: Path, options: Options) -> list[Case]:
    """All cases in turn, `num_repeats` times."""
    found = cases(options)
    with ExitStack() as stack:
        pipelines = [stack.enter_context(_opened(folder, case, options)) for case in found]
        for repeat in range(options.num_repeats):
            for case, pipeline in zip(found, pipelines, strict=True):
                _take(pipeline, WARM_UP_BATCHES if repeat == 0 else 0)
                time.sleep(SETTLE_S)
                start_s = time.process_time()
                _take(pipeline, options.num_batches)
                time.sleep(SETTLE_S)
                spent_s = time.process_time() - start_s
                case.cpu_us_per_sample.append(spent_s / options.num_batches / options.batch_size * 1e6)
    return found


def _opened(folder: Path, case: Case, options: Options) -> Pipeline:
    shards = folder / f"{case.num_shards}x{case.samples_per_shard}"
    if not shards.exists():
        simulated_shards(
            shards, num_shards=case.num_shards, samples_per_shard=case.samples_per_shard, image_px=IMAGE_PX
        )
    start_s = time.perf_counter()
    pipeline = build_pipeline(_config(shards, options), seed=0)
    batch = case.epoch * case.num_samples // options.batch_size
    pipeline.restore({"step": batch, "image_batch": batch, "clip_batch": 0})
    _take(pipeline, 1)
    case.first_step_s = time.perf_counter() - start_s
    return pipeline


def _config(shards: Path, options: Options) -> PipelineConfig:
    return PipelineConfig(images=shards, tasks=TASKS, canvas_px=IMAGE_PX, batch_size=options.batch_size, num_threads=1)


def _take(pipeline: Pipeline, num_batches: int) -> None:
    for _ in range(num_batches):
        next(pipeline)


def ratios(found: list[Case]) -> list[dict[str, Any]]:
    """Each case beside the one it is compared with: medians, and the median of the repeats' ratios."""
    by_name = {case.name: case for case in found}
    rows = []
    for case in found:
        base = by_name[case.compared_with].cpu_us_per_sample
        paired = [one / other for one, other in zip(case.cpu_us_per_sample, base, strict=True)]
        rows.append(
            asdict(case)
            | {"num_samples": case.num_samples, "median_cpu_us_per_sample": statistics.median(case.cpu_us_per_sample)}
            | {"ratio": statistics.median(paired), "ratio_low": min(paired), "ratio_high": max(paired)}
        )
    return rows


def measure_memory(folder: Path, options: Options) -> dict[str, Any]:
    """Memory of this process, without the pages of mapped files, along one long run."""
    case = Case(name="memory", compared_with="memory", num_shards=10, samples_per_shard=1000)
    small = Options(batch_size=8)
    every = max(options.memory_batches // 50, 1)
    taken, used_mib = [], []
    with _opened(folder, case, small) as pipeline:
        for batch in range(1, options.memory_batches + 1):
            next(pipeline)
            if batch % every == 0:
                taken.append(batch)
                used_mib.append(_anonymous_bytes() / MIB)
    standing_questions = len(taken) // 5
    slope = float(np.polyfit(taken[standing_questions:], used_mib[standing_questions:], 1)[0])
    return {
        "batches": taken,
        "used_mib": [round(one, 2) for one in used_mib],
        "mib_after_a_fifth": used_mib[standing_questions],
        "mib_at_the_end": used_mib[-1],
        "growth_mib_per_10000_batches": slope * 10_000,
    }


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("growth.json"))
    parser.add_argument("--repeats", type=int, default=defaults.num_repeats)
    parser.add_argument("--batches", type=int, default=defaults.num_batches)
    parser.add_argument("--largest", type=int, default=defaults.largest, help="samples of the largest data set")
    parser.add_argument("--memory-batches", type=int, default=defaults.memory_batches, help="0: memory is not measured")
    given = parser.parse_args()
    options = Options(
        num_repeats=given.repeats,
        num_batches=given.batches,
        largest=given.largest,
        memory_batches=given.memory_batches,
    )
    torch.set_num_threads(1)
    start_s, now = time.monotonic(), now_utc()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        results["cost"] = ratios(measure_cases(Path(folder), options))
        for row in results["cost"]:
            print(f"{row['name']}: {row['median_cpu_us_per_sample']:.0f} us a sample, {row['ratio']:.3f} of the first")
        if options.memory_batches:
            results["memory"] = measure_memory(Path(folder), options)
            growth = results["memory"]["growth_mib_per_10000_batches"]
            print(f"memory: {results['memory']['mib_at_the_end']:.0f} MiB, {growth:+.2f} MiB per 10,000 batches")
    config = asdict(options) | {"tasks": TASKS, "image_px": IMAGE_PX}
    record = Record(
        kind="throughput_growth",
        key=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16],
        label="cost of a sample by shards, samples and epoch",
        date=now,
        seconds=time.monotonic() - start_s,
        environment=environment(),
        config=config,
        inputs={"shards": "simulated by benchmarks/studies/throughput/simulated.py"},
        results=results,
    )
    write_json(given.out, asdict(record))
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
