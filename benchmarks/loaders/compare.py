"""All loaders on the same samples: proved equal first, then timed in turns, warm and cold. Options in, results out."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.loaders.agreement import TOLERANCES
from benchmarks.loaders.hosted import HostedLoader, LoaderError
from benchmarks.loaders.loader_samples import Samples, prepare_samples
from benchmarks.loaders.options import CompareOptions
from benchmarks.loaders.registry import CONTENDERS, LIMIT
from benchmarks.loaders.scratch import short_parent, temporary_folder
from benchmarks.loaders.setting import Setting
from benchmarks.loaders.timings import CACHES, Timings

__all__ = ["compare_loaders"]

Report = Callable[[str], None]


def compare_loaders(options: CompareOptions, report: Report = lambda _: None) -> dict[str, Any]:
    """Results as they go into a record; `report` gets a line for everything that is done.

    A loader that cannot run or makes other tensors is not measured, and the results say why. Raises UsageError or
    DataError for shards that cannot be used.
    """
    with temporary_folder(options.folder) as folder, temporary_folder(short_parent()) as work:
        samples = prepare_samples(options, folder)
        report(f"{samples.num_samples} samples of {samples.image_bytes / 1000:,.0f} kB")
        missing: dict[str, str] = {}
        with ExitStack() as stack:
            hosts = _opened(options, folder, work, stack, missing, report)
            agreement = _checked(hosts, missing, report)
            os.sync()  # what others have written must not be waited for while reading
            timings = _timed(options, samples, hosts, missing, report)
    return _results(options, samples, agreement, timings, missing)


def _opened(
    options: CompareOptions, folder: Path, work: Path, stack: ExitStack, missing: dict[str, str], report: Report
) -> dict[str, HostedLoader]:
    """All processes are started first: most of the time goes into imports, which need no one's answer."""
    hosts = {}
    for index, name in enumerate(options.all_names):
        place, setting = work / str(index), _setting(options, folder, name)
        host = HostedLoader(CONTENDERS[name], setting, work=place, timeout_s=options.timeout_s)
        hosts[name] = stack.enter_context(host)
    for name, host in list(hosts.items()):
        with _excluding(name, hosts, missing, report):
            host.ask("open", samples=str(folder))
    return hosts


def _setting(options: CompareOptions, folder: Path, name: str) -> Setting:
    return Setting(
        folder=folder / CONTENDERS[name].data,
        boxes_file=folder / "boxes.npy",
        reference_file=folder / "reference.npy",
        make=options.make,
        canvas_px=options.canvas_px,
        batch_size=options.batch_size,
        num_cores=options.num_cores,
    )


def _checked(hosts: dict[str, HostedLoader], missing: dict[str, str], report: Report) -> dict[str, Any]:
    """By loader and tensor, differences from the reference."""
    agreement: dict[str, Any] = {}
    for name, host in list(hosts.items()):
        if name != LIMIT:
            with _excluding(name, hosts, missing, report):
                agreement[name] = host.ask("check")["differences"]
                report(f"{name}: makes the same")
    return agreement


def _timed(
    options: CompareOptions,
    samples: Samples,
    hosts: dict[str, HostedLoader],
    missing: dict[str, str],
    report: Report,
) -> Timings:
    """In turns; who is first moves on from repeat to repeat. A loader that fails once is not measured at all."""
    timings, repeats = Timings(num_samples=samples.num_samples), (options.warm_repeats, options.cold_repeats)
    for repeat in range(max(repeats)):
        names = list(hosts)
        first = repeat % max(len(names), 1)
        for name in names[first:] + names[:first]:
            with _excluding(name, hosts, missing, report):
                for cache, num_repeats in zip(CACHES, repeats, strict=True):
                    if repeat < num_repeats and (name, cache) != (LIMIT, "cold"):
                        answer = hosts[name].ask("time", is_cold=cache == "cold", least_s=options.least_s)
                        said = timings.add(name, cache, repeat, answer)
                        report(f"repeat {repeat + 1}: {name}, {cache}: {said}")
    for name in missing:
        timings.forget(name)
    return timings


@contextmanager
def _excluding(name: str, hosts: dict[str, HostedLoader], missing: dict[str, str], report: Report) -> Iterator[None]:
    """On an error the loader ends, and the others go on."""
    try:
        yield
    except LoaderError as error:
        missing[name] = str(error)
        hosts.pop(name).close()
        report(f"{name}: not measured: {error}")


def _results(
    options: CompareOptions,
    samples: Samples,
    agreement: dict[str, Any],
    timings: Timings,
    missing: dict[str, str],
) -> dict[str, Any]:
    packages = {package for name in options.all_names for package in CONTENDERS[name].packages} | {"numpy"}
    return {
        "make": options.make,
        "num_cores": options.num_cores,
        "samples": asdict(samples),
        "tolerances": {name: asdict(TOLERANCES[name]) for name in TOLERANCES},
        "differences": agreement,
        "what": {name: CONTENDERS[name].what for name in options.all_names},
        **timings.results(),
        "not_measured": missing,
        "versions": {package: _version(package) for package in sorted(packages)},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
