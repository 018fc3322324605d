"""Check a GPU, once, by its owner: is its path right, and how fast is it? Writes one JSON, again after every section.

    python -m benchmarks.studies.gpu_check --prepare gpu_check_data
    python -m benchmarks.studies.gpu_check --shards gpu_check_data/shards --out gpu_check.json

The first line makes the data, anywhere and without a GPU: 20 MB of shards. The second needs DALI (pip install
'fourfold[cuda13]') and downloads nothing; without --shards the data is made first. It is done within --budget-s:
sections that would begin later are left out and named in "skipped". A run that is killed has written all sections
before.

First every operation, task and restart is compared with the CPU (gpu_checks.py); only if all agree is anything timed.
Timed are decoding (DALI's own limit), each task alone, motion masks on the device and in threads, pipelines of the
image tasks, of motion segmentation and of all tasks (gpu_jobs.py), the trainer's step of the recipe `paper` for each
task, plain and compiled, and its wait for data (trainer_parts.py); sections are NVTX ranges (nsys profile -t cuda,nvtx
python -m ...).

With --device cpu --quick the same runs small and without a GPU, which proves the script and nothing else. Exit code 1
if something differs or a section fails.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch

from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import Timed
from benchmarks.studies.gpu import gpu_checks, gpu_jobs, trainer_parts
from benchmarks.studies.gpu.gpu_checks import Comparison, Sizes
from benchmarks.studies.throughput.made_shards import make_shards
from pipelines.base.errors import FourfoldError, UsageError
from pipelines.decode.choice import choose_backend
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.format.table import Kind
from pipelines.tasks.base import CanvasSpec

__all__ = ["STUDY", "GpuOptions", "auto_is_right", "check_sections", "run", "time_sections"]

MAX_DATA_MIB = 60
NUM_IMAGES, NUM_CLIPS = 256, 32
QUICK = Sizes(
    batch_size=8,
    clip_batch_size=4,
    canvas=CanvasSpec(canvas_px=64, clip_height_px=48, clip_width_px=64, num_frames=6),
)
QUICK_REPEATS = 2

Section = tuple[str, Callable[[dict[str, Any]], None]]
"""Name, and what adds its results to those so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """Device, shards and sizes of batches of the check."""

    shards: Annotated[Path | None, "folder of shards with images and clips; left out, some are made"] = None
    prepare: Annotated[Path | None, "make the data in this folder and check nothing"] = None
    device: Annotated[Literal["cuda", "cpu"], "cpu proves the script without a GPU"] = "cuda"
    is_quick: Annotated[bool, "small batches, pictures and nets, and 2 repeats", "--quick"] = False
    budget_s: Annotated[float, "sections that would begin later are left out"] = 480.0
    num_repeats: Annotated[int, "of every job; fewer than 6 give no interval"] = 7
    batch_size: Annotated[int, "images of a batch"] = 256
    clip_batch_size: Annotated[int, "clips of a batch"] = 16
    trained_batch_size: Annotated[int, "images and, a quarter of it, clips of a batch of the trainer's step"] = 32
    canvas_px: Annotated[int, "side of a canvas"] = 256

    def __post_init__(self) -> None:
        if self.device == "cuda" and self.prepare is None and not torch.cuda.is_available():
            raise UsageError("torch sees no GPU here; --device cpu proves the script without one.")

    @property
    def sizes(self) -> Sizes:
        if self.is_quick:
            return QUICK
        canvas = CanvasSpec(canvas_px=self.canvas_px)
        return Sizes(batch_size=self.batch_size, clip_batch_size=self.clip_batch_size, canvas=canvas)

    @property
    def trained_sizes(self) -> Sizes:
        """Sizes of the trainer's batches, which take more memory than those of a pipeline alone."""
        if self.is_quick:
            return QUICK
        return Sizes(batch_size=self.trained_batch_size, clip_batch_size=max(self.trained_batch_size // 4, 1))


def check_sections(shards: Path, device: torch.device, sizes: Sizes) -> Iterator[Section]:
    """Yield the comparisons with the CPU, one section each."""

    def section(check: Callable[[], Iterator[Comparison]]) -> Callable[[dict[str, Any]], None]:
        def add(results: dict[str, Any]) -> None:
            for one in check():
                verdict = "ok" if one.is_ok else "DIFFERS"
                say(f"{one.name}: {one.found:.4g} {one.unit}, {one.allowed:g} allowed: {verdict}")
                results["checks"].append(asdict(one) | {"is_ok": one.is_ok})
                results["num_failed"] += not one.is_ok

        return add

    for name, check in gpu_checks.checks(shards, device, sizes).items():
        yield f"check {name}", section(check)


def time_sections(shards: Path, device: torch.device, options: GpuOptions) -> Iterator[Section]:
    """Yield what is timed, the most wanted first, since a run may be cut off."""
    is_quick, sizes = options.is_quick, options.sizes
    num_repeats = QUICK_REPEATS if is_quick else options.num_repeats
    timings: dict[str, Timed] = {}

    def jobs(jobs_of: Callable[[ExitStack], Mapping[str, gpu_jobs.Work]]) -> Callable[[dict[str, Any]], None]:
        def add(results: dict[str, Any]) -> None:
            # Closed after each group: pipelines that are open hold threads, and memory of the device.
            with ExitStack() as stack:
                timings.update(gpu_jobs.time_jobs(jobs_of(stack), device, num_repeats))
            results["timings"] = [timing.row() for timing in timings.values()]

        return add

    given = shards, device, sizes
    yield "decode", jobs(partial(gpu_jobs.decode_jobs, *given))
    yield "tasks", jobs(lambda _: gpu_jobs.task_jobs(*given) | gpu_jobs.copy_jobs(device, sizes))
    yield "motion masks", jobs(partial(gpu_jobs.motion_jobs, *given))
    yield "pipelines", jobs(partial(gpu_jobs.pipeline_jobs, *given))
    yield "auto", partial(_compare, timings, device)
    if device.type == "cuda":
        yield "copies", lambda results: results.update(copies=gpu_jobs.copies_per_step(*given))
    yield from trainer_sections(shards, device, options.trained_sizes, num_repeats, is_quick=is_quick)
    # Last, because no task needs it.
    if device.type == "cuda":
        compiled = partial(gpu_jobs.compiled, device, sizes, num_repeats)
        yield "compiled arithmetic", lambda results: results.update(compiled=list(compiled()))


def trainer_sections(
    shards: Path, device: torch.device, sizes: Sizes, num_repeats: int, *, is_quick: bool
) -> Iterator[Section]:
    """Yield the trainer's step for each task of the recipe, its wait for data, and then the compiled steps."""
    recipe = trainer_parts.recipe_config(shards, sizes, is_small=is_quick)
    tasks = trainer_parts.recipe_tasks(is_small=is_quick)

    def step(name: str, backend: str | None) -> Callable[[dict[str, Any]], None]:
        def add(results: dict[str, Any]) -> None:
            config = trainer_parts.recipe_config(shards, sizes, {name: tasks[name]}, is_small=is_quick)
            found = trainer_parts.step_time(config, device, min(num_repeats, 3), backend=backend)
            results.setdefault("trainer_steps", []).append({"task": name, **found})
            say(f"{name}: {1000 * found['step_s']['median']:.1f} ms, {found['samples_per_s']:,.1f} samples/s")

        return add

    def wait(results: dict[str, Any]) -> None:
        results["data_wait"] = trainer_parts.data_wait(recipe, device)
        say(f"waits {results['data_wait']['data_wait_ratio']:.1%} of the time")

    for name in tasks:
        yield f"trainer's step, {name}", step(name, None)
    yield "trainer's wait for data", wait
    # Inductor compiles for minutes on a CPU; "eager" only cuts the graphs, which proves that they can be cut.
    backend = "inductor" if device.type == "cuda" else "eager"
    for name in tasks:
        yield f"trainer's step compiled, {name}", step(name, backend)


def _compare(timings: Mapping[str, Timed], device: torch.device, results: dict[str, Any]) -> None:
    """Add what `auto` picks, and how near pipelines come to bare decoding."""
    auto, limits = auto_is_right(timings, device), limits_of(timings)
    results |= {"auto": auto, "limits": limits}
    say(f"auto picks {auto['choice']}; faster: " + ", ".join(f"{name}: {one}" for name, one in auto["faster"].items()))
    say("share of DALI's decoding: " + ", ".join(f"{name} {share:.0%}" for name, share in limits.items()))


def limits_of(timings: Mapping[str, Timed]) -> dict[str, float]:
    """Return the speed of each pipeline as a share of DALI's bare decoding of the same samples."""
    limits = {"image": timings["decode images, dali"].median_per_s, "clip": timings["decode clips, dali"].median_per_s}
    return {
        name: timing.median_per_s / limits["clip" if "motion" in name else "image"]
        for name, timing in timings.items()
        if name.startswith("pipeline") and "all tasks" not in name
    }


def auto_is_right(timings: Mapping[str, Timed], device: torch.device) -> dict[str, Any]:
    """Return what `backend: auto` picks here, and which backend is the faster one, for images and for clips."""
    choice = choose_backend("auto", device)
    faster = {
        what: max(("dali", "opencv"), key=lambda name: timings[f"{what}, {name}"].median_per_s)
        for what in ("decode images", "decode clips", "pipeline image tasks", "pipeline motion_segmentation")
    }
    return {"choice": choice.name, "reason": choice.reason, "faster": faster}


def measure(options: GpuOptions) -> Iterator[dict[str, Any]]:
    """Yield the results after every section."""
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    if options.prepare is not None:
        prepare(options.prepare)
        return
    with temporary_folder() as folder:
        shards = options.shards or make_shards(folder, num_images=64, num_clips=8)
        for kind in get_args(Kind):
            load_manifest(shards).select(kind, "train")  # complains before anything is checked
        yield from run(shards, device, options)


def prepare(folder: Path) -> None:
    """Make the shards of the check. Raises UsageError if they cannot be written, or are too large to be carried to
    another machine."""
    try:
        shards = make_shards(folder, num_images=NUM_IMAGES, num_clips=NUM_CLIPS)
    except OSError as error:
        raise UsageError(f"--prepare {folder}: cannot be written to ({error.strerror}). Give a new folder.") from error
    mib = sum(path.stat().st_size for path in shards.rglob("*") if path.is_file()) / 2**20
    if mib > MAX_DATA_MIB:
        raise UsageError(f"{shards}: {mib:.0f} MiB, at most {MAX_DATA_MIB} allowed; prepare in an empty folder.")
    say(f"{shards}: {mib:.0f} MiB. Next: python -m benchmarks.studies.gpu_check --shards {shards}")


def run(shards: Path, device: torch.device, options: GpuOptions) -> Iterator[dict[str, Any]]:
    """Yield results after every section: checks, then timings; none of these if a comparison differs."""
    start_s = time.monotonic()
    results: dict[str, Any] = {"sections": [], "skipped": [], "failed": {}, "checks": [], "num_failed": 0}
    for name, add in check_sections(shards, device, options.sizes):
        _do(name, add, results)
        yield results
    # How fast a wrong path is, nobody needs to know.
    if results["num_failed"]:
        return
    for name, add in time_sections(shards, device, options):
        if time.monotonic() - start_s > options.budget_s:
            results["skipped"].append(name)
            continue
        _do(name, add, results)
        yield results
    yield results


def summary(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader of the numbers must know: what differs, failed or was left out."""
    if results["num_failed"]:
        yield f"{results['num_failed']} of {len(results['checks'])} comparisons differ; nothing was timed"
    if results["failed"]:
        yield "failed, see above: " + ", ".join(results["failed"])
    if results["skipped"]:
        yield "left out, since --budget-s was used up: " + ", ".join(results["skipped"])


def _do(name: str, add: Callable[[dict[str, Any]], None], results: dict[str, Any]) -> None:
    say(f"-- {name}")
    start_s = time.monotonic()
    try:
        add(results)
    except FourfoldError:
        raise  # wrong use, as a missing package: it would fail everywhere
    # One section that fails (memory, a compiler, a GPU without flow unit) is no reason to lose the others.
    except Exception as error:
        results["failed"][name] = f"{type(error).__name__}: {error}"[:500]
        say(f"{name}: {results['failed'][name]}")
        return
    results["sections"].append({"name": name, "seconds": time.monotonic() - start_s})


STUDY = Study(
    module="benchmarks.studies.gpu_check",
    kind="gpu_check",
    label="DALI on a device",
    description=__doc__,
    options=GpuOptions,
    measure=measure,
    lines=summary,
    is_failed=lambda results: bool(results["num_failed"] or results["failed"]),
    packages=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    inputs={"made shards": "benchmarks/studies/throughput/made_shards.py"},
)

if __name__ == "__main__":
    STUDY.main()
