"""`fourfold shards build|adopt|info|verify|merge|stats`: build shards and inspect them."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.cli.shards_adopt import adopt
from benchmarks.recipe_files import completing, find_recipe
from benchmarks.results.output import AsJson, Overrides, plain, print_facts, print_json, print_table, say, size_text
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress

if TYPE_CHECKING:
    from pipelines.shards.build import BuildConfig, BuildSummary
    from pipelines.shards.tools.info import GroupSummary

__all__ = ["app"]

MOST_SHOWN = 10
SPLIT_SOURCE = re.compile(r"([\w.]+)=(.+)")

app = typer.Typer(help="Build shards and inspect them.")
app.command()(adopt)
Folder = typer.Argument(help="Folder of shards (it holds a manifest.json), or its URL.", metavar="DIR")
Workers = typer.Option(0, "--workers", min=0, help="Worker processes; 0 is one per core.")


@app.command()
def build(
    sources: list[str] | None = typer.Argument(
        None,
        metavar="SRC",
        help="Folders (class folders become labels), csv, tsv, jsonl, parquet or txt lists, tars, Hugging Face "
        "datasets on disk, single files; local, or URLs such as s3://bucket/photos. Folders called train, val and test "
        "are splits.",
    ),
    split: list[str] | None = typer.Option(
        None,
        metavar="NAME=SRC",
        help="A source all of which goes into one split; again for more: --split train=DIR1 --split val=DIR2.",
    ),
    out: str | None = typer.Option(None, metavar="DIR", help="Folder or URL to write the shards to."),
    config: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="YAML of settings, or the name of packaged ones, such as labelled-photos; options given here win over it.",
        autocompletion=completing("shards"),
    ),
    val: str | None = typer.Option(None, help="Validation split: none, every:N (of each class), or hash:SHARE."),
    check: str | None = typer.Option(
        None, help="Check of images: decode (decode each), or header (structure only; faster)."
    ),
    short_side: int | None = typer.Option(None, help="Shrink larger images to this short side, in px. Default: keep."),
    clip_short_side: int | None = typer.Option(None, help="Short side of clips in px."),
    num_frames: int | None = typer.Option(None, help="Frames of a clip."),
    fps: float | None = typer.Option(
        None, help="Frames per second of a clip, at most: a slower video keeps its own rate."
    ),
    codec: str | None = typer.Option(None, help="Codec of clips: mjpeg or vp9."),
    samples_per_shard: int | None = typer.Option(None, help="Largest number of samples in a shard."),
    max_reject_ratio: float | None = typer.Option(
        None, help="Largest share of unusable items; beyond it the build fails."
    ),
    workers: int | None = typer.Option(None, help="Worker processes; 0 is one per core."),
    engine: str | None = typer.Option(None, help="local, or ray: the cluster that RAY_ADDRESS names."),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Replace a finished build of other sources or settings in DIR."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the plan: counts, sizes, time. Writes no shard."),
    ranks: str = typer.Option(
        "8x4", metavar="RxW", help="For the dry run: training processes x loader workers of each."
    ),
    overrides: list[str] | None = Overrides,
    as_json: bool = AsJson,
) -> None:
    """Build shards of images and videos. The same command resumes a killed build and leaves a finished one as it is.

    Examples:

    fourfold shards build photos/ --out shards --val every:10 --dry-run

    fourfold shards build videos/ list.csv --out shards --fps 5 --num-frames 16

    fourfold shards build --split train=photos/ --split val=others/ --out shards

    fourfold shards build photos/ --config labelled-photos --out s3://bucket/shards --engine ray
    """
    plain, splits = _divided(sources or [], split or [])
    given = {
        "sources": plain or None,
        "splits": splits or None,
        "out": out,
        "val": val,
        "check": check,
        "short_side_px": short_side,
        "clip_short_side_px": clip_short_side,
        "num_frames": num_frames,
        "fps": fps,
        "codec": codec,
        "samples_per_shard": samples_per_shard,
        "max_reject_ratio": max_reject_ratio,
        "num_workers": workers,
        "engine": engine,
        # None where it is not given, so that the setting in the file holds.
        "overwrite": overwrite or None,
    }
    checked = _checked(config, {name: value for name, value in given.items() if value is not None}, overrides or [])
    if dry_run:
        from benchmarks.cli.dry_run import show_estimate

        show_estimate(checked, ranks, as_json)
        return
    _build(checked, as_json)


def _divided(sources: list[str], split_options: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Sources, and those given for one split: --split train=DIR1 val=DIR2 means --split for both. Raises UsageError."""
    plain: list[str] = []
    splits: dict[str, list[str]] = {}
    for option in split_options:
        if not (match := SPLIT_SOURCE.fullmatch(option)):
            raise UsageError(f"--split {option}: need NAME=SOURCE, for example --split train=photos/.")
        splits.setdefault(match[1], []).append(match[2])
    for source in sources:
        # A file may have "=" in its name: what exists is a source.
        match = None if os.path.lexists(source) else SPLIT_SOURCE.fullmatch(source)
        if match:
            splits.setdefault(match[1], []).append(match[2])
        else:
            plain.append(source)
    return plain, splits


def _checked(path: Path | None, options: dict[str, Any], overrides: list[str]) -> "BuildConfig":
    """Return the settings of the file, then of the options, then of --set; the later ones win."""
    from pipelines.base.config import apply_overrides, read_yaml, validate
    from pipelines.shards.build import BuildConfig

    path = find_recipe(path, "shards") if path else None
    in_file, lines = read_yaml(path) if path else ({}, {})
    settings = apply_overrides(in_file | options, overrides)
    for name, what in (("sources", "no source"), ("out", "no --out DIR")):
        if name not in settings and not (name == "sources" and settings.get("splits")):
            raise UsageError(
                f"shards build: {what} given. Say for example: fourfold shards build photos/ --out shards; "
                f"or give a --config FILE that has {name}."
            )
    # The values of options stand in no line of the file.
    lines = {place: line for place, line in lines.items() if place[0] not in options}
    return validate(BuildConfig, settings, source=str(path or "shards build"), lines=lines)


def _build(config: "BuildConfig", as_json: bool) -> None:
    from pipelines.shards.build import build_shards

    if as_json:
        with quiet_progress():
            print_json(build_shards(config))
        return
    summary = build_shards(config)
    print_facts(str(config.out), _summary_facts(summary))
    for warning in summary.warnings:
        say(f"warning: {warning}")
    say(f"look at it: fourfold preview {config.out} --out preview.png")


def _summary_facts(summary: "BuildSummary") -> dict[str, Any]:
    """Return the facts of a build. The rate in bytes is left out where shards were reused, which would flatter it."""
    facts: dict[str, Any] = plain(summary)
    del facts["warnings"]
    facts["num_rows"] = (
        f"{summary.num_rows} read = {summary.num_images} images + {summary.num_videos} videos + "
        f"{summary.num_rejects} rejects + {summary.num_ignored} ignored"
    )
    rate = f"{facts.pop('samples_per_s'):.4g} samples/s"
    if not summary.num_reused:
        rate += f", {summary.bytes / 1e6 / summary.seconds:.3g} MB/s"
    return {name.removeprefix("num_"): _text(name, value) for name, value in (facts | {"rate": rate}).items()}


@app.command()
def info(folder: str = Folder, as_json: bool = AsJson) -> None:
    """Show what a folder of shards holds.

    Example: fourfold shards info shards --json
    """
    from pipelines.shards.tools.info import describe

    summary = describe(folder)
    if as_json:
        print_json(summary)
        return
    columns = ["kind", "split", "samples", "shards", "size", "median sample", "format", "classes"]
    print_table(str(folder), columns, [_group_row(group) for group in summary.groups])
    for warning in summary.warnings:
        say(f"note: {warning}")


@app.command()
def verify(
    folder: str = Folder,
    decode: bool = typer.Option(False, "--decode", help="Also decode every image and clip."),
    workers: int = Workers,
    as_json: bool = AsJson,
) -> None:
    """Check every shard against the manifest: structure, sizes, sha256. Exit code 1 if anything is wrong.

    Example: fourfold shards verify shards --decode
    """
    from pipelines.shards.tools.verify import verify_shards

    if as_json:
        with quiet_progress():
            problems = verify_shards(folder, decode=decode, num_workers=workers)
        print_json({"folder": folder, "is_whole": not problems, "problems": problems})
    else:
        problems = verify_shards(folder, decode=decode, num_workers=workers)
        decoded = ", every sample decodes" if decode else ""
        print("\n".join(problems) or f"{folder}: whole, every shard is what the manifest says{decoded}")
    if problems:
        raise typer.Exit(1)


@app.command()
def merge(
    folders: list[str] = typer.Argument(metavar="DIR...", help="Folders of shards, two or more."),
    out: str = typer.Option(..., metavar="DIR", help="A new folder for all of them, or a URL."),
    prefix_keys: bool = typer.Option(
        False, "--prefix-keys", help="Put the folder's name before each key; for folders that share keys."
    ),
    as_json: bool = AsJson,
) -> None:
    """Join folders of shards into one, with one manifest; tars are linked or copied where their labels allow it.

    Example: fourfold shards merge shards/photos shards/videos --out shards/all
    """
    from pipelines.shards.tools.merge import merge_shards

    if as_json:
        with quiet_progress():
            print_json(merge_shards(folders, out, prefix_keys=prefix_keys))
        return
    summary = plain(merge_shards(folders, out, prefix_keys=prefix_keys))
    print_facts(out, {name.removeprefix("num_"): _text(name, value) for name, value in summary.items()})


@app.command()
def stats(
    folder: str = Folder,
    colors: bool = typer.Option(True, "--colors/--no-colors", help="Decode all training images to count colors."),
    as_json: bool = AsJson,
) -> None:
    """Show sizes, motion of the clips, and colors of the training images.

    The count of colors is written to color_prior.json in the folder; with it, colorization gives rare colors more
    weight. Example: fourfold shards stats shards --no-colors
    """
    from benchmarks.cli.shards_stats import show_stats

    show_stats(folder, colors, as_json)


def _group_row(group: "GroupSummary") -> list[Any]:
    median = f"{group.median_width_px} x {group.median_height_px}, {size_text(group.median_sample_bytes)}"
    formats = ", ".join(f"{number} {name}" for name, number in group.codecs.items())
    counts = [group.kind, group.split, group.num_samples, group.num_shards, size_text(group.shard_bytes)]
    return [*counts, median, formats, len(group.labels) or None]


def _text(name: str, value: Any) -> Any:
    """Return bytes with a unit; lists and mappings in one line, long ones as a count."""
    if name.endswith("bytes") and isinstance(value, int):
        return size_text(value)
    if isinstance(value, dict | list) and len(value) > MOST_SHOWN:
        return f"{len(value)} {name}"
    if isinstance(value, dict):
        return ", ".join(f"{inner} {number}" for inner, number in value.items()) or None
    return (", ".join(map(str, value)) or None) if isinstance(value, list) else value
