"""Comparison of loaders on the same samples: proved equal first, then timed in turns, warm and cold."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.child import Child, ChildError
from benchmarks.harness.study import versions_of
from benchmarks.harness.temporary import short_parent, temporary_folder
from benchmarks.harness.turns import turns
from benchmarks.loaders.agreement import TOLERANCE
from benchmarks.loaders.loader_samples import prepare_samples
from benchmarks.loaders.options import CompareOptions
from benchmarks.loaders.registry import CONTENDERS, LIMIT, Contender
from benchmarks.loaders.setting import Setting
from benchmarks.loaders.timings import CACHES, PassTimes

__all__ = ["compare_loaders", "open_child", "setting_of"]

Report = Callable[[str], None]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def compare_loaders(options: CompareOptions, report: Report = lambda _: None) -> dict[str, Any]:
    """Return results as they go into a record; `report` gets a line for each thing done.

    A loader that cannot run or makes other canvases is not measured, and the results say why. Raises UsageError or
    DataError for shards that cannot be used.
    """
    # Two folders: data on the disk that is to be measured; logs and sockets where paths are short.
    with temporary_folder(options.folder) as folder, temporary_folder(short_parent()) as work:
        samples = prepare_samples(options, folder)
        report(f"{samples.num_samples} samples of {samples.image_bytes / 1000:,.0f} kB")
        with ExitStack() as stack:
            # 1. All processes are started before any is asked: most of the time goes into imports.
            loaders = Loaders(report=report)
            for index, name in enumerate(options.all_names):
                setting = setting_of(options, folder, name)
                child = open_child(CONTENDERS[name], setting, work=work / str(index), timeout_s=options.timeout_s)
                loaders.children[name] = stack.enter_context(child)
            # 2. Equal first: who makes other canvases is out before anything is timed.
            for name in options.all_names:
                loaders.ask(name, "open", samples=str(folder))
            differences = {}
            for name in options.all_names:
                if name != LIMIT and (answer := loaders.ask(name, "check")):
                    differences[name] = answer["differences"]
                    report(f"{name}: makes the same")
            os.sync()  # what others have written must not be waited for while reading
            # 3. Then timed, in turns.
            times = time_loaders(options, samples.num_samples, loaders)
    packages = {package for name in options.all_names for package in CONTENDERS[name].packages}
    return {
        "num_cores": options.num_cores,
        "samples": asdict(samples),
        "tolerance": asdict(TOLERANCE),
        "differences": differences,
        "what": {name: CONTENDERS[name].what for name in options.all_names},
        **times.results(),
        "not_measured": loaders.missing,
        "versions": versions_of(packages | {"numpy"}),
    }


@dataclass(slots=True, kw_only=True)
class Loaders:
    """The loaders that still run, and why the others do not."""

    report: Report
    children: dict[str, Child] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def ask(self, name: str, do: str, **request: Any) -> dict[str, Any]:
        """Return a loader's answer. On an error the loader ends, the others stay, and the answer is {}."""
        if name not in self.children:
            return {}
        try:
            return self.children[name].ask(do, **request)
        except ChildError as error:
            extra = CONTENDERS[name].extra
            hint = f"not installed: pip install '{extra}' ({error})"
            self.missing[name] = hint if error.is_missing and extra else str(error)
            # Ended at once: it would keep cores busy while the others are timed.
            self.children.pop(name).close()
            self.report(f"{name}: not measured: {self.missing[name]}")
            return {}


def time_loaders(options: CompareOptions, num_samples: int, loaders: Loaders) -> PassTimes:
    """Time all loaders in turns, each warm and then cold. One that fails once is not measured at all."""
    times = PassTimes(num_samples=num_samples)
    num_repeats = {"warm": options.warm_repeats, "cold": options.cold_repeats}
    for repeat, name in turns(loaders.children, max(num_repeats.values())):
        for cache in CACHES:
            # The limit decodes from memory: it has no cold pass.
            if repeat >= num_repeats[cache] or (name, cache) == (LIMIT, "cold"):
                continue
            if answer := loaders.ask(name, "time", is_cold=cache == "cold", least_s=options.least_s):
                told = times.add(name, cache, repeat, answer)
                loaders.report(f"repeat {repeat + 1}: {name}, {cache}: {told}")
    for name in loaders.missing:
        times.forget(name)
    return times


def setting_of(options: CompareOptions, folder: Path, name: str) -> Setting:
    """Return a loader's setting. `folder`: of all data (see `prepare_samples`)."""
    return Setting(
        folder=folder / CONTENDERS[name].data,
        boxes_file=folder / "boxes.npy",
        reference_file=folder / "reference.npy",
        canvas_px=options.canvas_px,
        batch_size=options.batch_size,
        num_cores=options.num_cores,
    )


def open_child(contender: Contender, setting: Setting, *, work: Path, timeout_s: float) -> Child:
    """Start a loader's process. `work`: made here, with a short path; also the home folder, where libraries write."""
    (work / "home").mkdir(parents=True)
    environment = {"HOME": str(work / "home"), **ONE_THREAD}
    if contender.needs_ffmpeg:
        from benchmarks.loaders.contenders.spdl import PATH_VARIABLE, bundled_ffmpeg

        path = bundled_ffmpeg(work / "ffmpeg")
        environment |= {PATH_VARIABLE: path} if path else {}
    told = {"contender": asdict(contender), "setting": setting.to_json()}
    target = "benchmarks.loaders.host:open_host"
    return Child(target, told, folder=work, timeout_s=timeout_s, environment=environment)
