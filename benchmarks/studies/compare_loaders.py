"""Compare loaders on one or more data sets (docs/loaders.md).

python -m benchmarks.studies.compare_loaders SHARDS... --out record.json
python -m benchmarks.studies.compare_loaders --photos FOLDER        the photos as they are
python -m benchmarks.studies.compare_loaders --made-from FOLDER     JPEGs of 500 x 375 made of the photos
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.loaders import CompareOptions, compare_loaders, loader_rows
from benchmarks.loaders.registry import CONTENDERS
from benchmarks.studies.throughput.made_shards import write_jpegs
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress
from pipelines.shards.build import BuildConfig, build_shards

__all__ = ["STUDY", "LoadersOptions"]

MADE = "500x375-q90"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadersOptions(CompareOptions):
    """A comparison, and the data sets that it is made on."""

    shards: Path = Path()
    """One data set after the other takes this place."""
    folders: Annotated[tuple[Path, ...], "folders of image shards", "SHARDS"] = ()
    photos: Annotated[Path | None, "a folder of photos"] = None
    made_from: Annotated[Path | None, "a folder of photos to make JPEGs of 500 x 375, quality 90, of"] = None

    def __post_init__(self) -> None:
        # slots=True makes a second class, in which a bare super() would look for the first one.
        super(LoadersOptions, self).__post_init__()
        if not self.folders and self.photos is None and self.made_from is None:
            raise UsageError("nothing to read: give folders of shards, --photos FOLDER or --made-from FOLDER.")


def measure(options: LoadersOptions) -> dict[str, Any]:
    """Return the results of `compare_loaders` by the name of the data set."""
    with temporary_folder(options.folder) as folder:
        given = {name: dataclasses.replace(options, shards=one) for name, one in _datasets(options, folder).items()}
        return {name: _compared(name, one) for name, one in given.items()}


def _datasets(options: LoadersOptions, folder: Path) -> dict[str, Path]:
    """Return folders of shards by name; those of photos are made in `folder`."""
    shards = {path.name: path for path in options.folders}
    images = [options.photos] if options.photos else []
    if options.made_from is not None:
        write_jpegs(folder / MADE, options.made_from, options.num_samples)
        images.append(folder / MADE)
    for one in images:
        shards[one.name] = folder / "shards" / one.name
        with quiet_progress():
            build_shards(BuildConfig(sources=[one], out=shards[one.name], labels="off", check="header"))
    return shards


def _compared(name: str, options: CompareOptions) -> dict[str, Any]:
    results = compare_loaders(options, lambda line: say(f"{name}: {line}"))
    for row in loader_rows(results):
        rate, ratio = row["samples_per_s"], row["ratio_to_limit"]
        numbers = "" if rate is None else f"{rate:8,.0f} samples/s {'' if ratio is None else f'{ratio:6.2f}'}"
        say(f"{name:12} {row['cache']:5} {row['loader']:34} {numbers:26} {row['note']}")
    return results


STUDY = Study(
    module="benchmarks.studies.compare_loaders",
    kind="loaders",
    label="loaders compared",
    description=__doc__,
    options=LoadersOptions,
    measure=measure,
    packages={"numpy"}.union(*(one.packages for one in CONTENDERS.values())),
)

if __name__ == "__main__":
    STUDY.main()
