"""`fourfold shards build|info|verify|stats`: pack images and videos, and look at what was packed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.commands.output import AsJson, Overrides, plain, print_facts, print_json, print_table, say, size_text
from pipelines.progress import quiet_progress

if TYPE_CHECKING:
    from pipelines.shards.info import GroupSummary

__all__ = ["app"]

MOST_SHOWN = 10

app = typer.Typer(help="Build shards, look at them.")
Folder = typer.Argument(help="Folder of shards (it holds a manifest.json).", metavar="DIR")


@app.command()
def build(
    sources: list[Path] = typer.Argument(
        metavar="SRC...", help="Folders of images, videos or both; or single files. Class folders become labels."
    ),
    out: Path = typer.Option(..., "--out", metavar="DIR", help="Where the shards go."),
    val: str | None = typer.Option(
        None, help="What goes into the validation split: none, every:N (of each class), or hash:SHARE."
    ),
    overrides: list[str] | None = Overrides,
    as_json: bool = AsJson,
) -> None:
    """Pack images and videos into shards; a killed build goes on where it stopped, a finished one is reused.

    Examples:

    fourfold shards build photos/ --out shards --val every:10

    fourfold shards build videos/ --out shards --set fps=5 --set codec=mjpeg
    """
    from pipelines.config import apply_overrides, validate
    from pipelines.shards.build import BuildConfig, build_shards

    given: dict[str, Any] = {"sources": [str(source) for source in sources], "out": str(out)}
    if val is not None:
        given["val"] = val
    config = validate(BuildConfig, apply_overrides(given, overrides or []), source="shards build")
    if as_json:
        with quiet_progress():
            print_json(build_shards(config))
        return
    print_facts(str(out), _readable(plain(build_shards(config))))
    say(f"look at it: fourfold preview {out} --out preview.png")


@app.command()
def info(folder: Path = Folder, as_json: bool = AsJson) -> None:
    """What a folder of shards holds.

    Example: fourfold shards info shards --json
    """
    from pipelines.shards.info import describe

    summary = describe(folder)
    if as_json:
        print_json(summary)
        return
    columns = ["kind", "split", "samples", "shards", "size", "median sample", "format", "classes"]
    print_table(str(folder), columns, [_group_row(group) for group in summary.groups])
    for warning in summary.warnings:
        say(f"note: {warning}")


@app.command()
def verify(folder: Path = Folder, as_json: bool = AsJson) -> None:
    """Check every shard against the manifest: structure, sizes, sha256. Exit code 1 if anything is wrong.

    Example: fourfold shards verify shards
    """
    from pipelines.shards.verify import verify_shards

    problems = verify_shards(folder)
    if as_json:
        print_json({"folder": folder, "is_whole": not problems, "problems": problems})
    else:
        print("\n".join(problems) or f"{folder}: whole, every shard is what the manifest says")
    if problems:
        raise typer.Exit(1)


@app.command()
def stats(folder: Path = Folder, as_json: bool = AsJson) -> None:
    """Count the colors of the training images, so that colorization can weigh rare colors up. Writes color_prior.json.

    Example: fourfold shards stats shards
    """
    from pipelines.color_prior import PRIOR_NAME, count_prior

    prior = count_prior(folder)
    if as_json:
        print_json(prior)
        return
    facts = {"split": prior.split, "num_images": prior.num_images, "num_gray_images": prior.num_gray_images}
    print_facts(str(folder / PRIOR_NAME), facts)


def _group_row(group: "GroupSummary") -> list[Any]:
    median = f"{group.median_width_px} x {group.median_height_px}, {size_text(group.median_sample_bytes)}"
    formats = ", ".join(f"{number} {name}" for name, number in group.codecs.items())
    counts = [group.kind, group.split, group.num_samples, group.num_shards, size_text(group.shard_bytes)]
    return [*counts, median, formats, len(group.labels) or None]


def _readable(facts: dict[str, Any]) -> dict[str, Any]:
    """Bytes with a unit; lists and mappings in a line, long ones as their number."""
    return {name: _text(name, value) for name, value in facts.items()}


def _text(name: str, value: Any) -> Any:
    if name.endswith("bytes") and isinstance(value, int):
        return size_text(value)
    if isinstance(value, dict | list) and len(value) > MOST_SHOWN:
        return f"{len(value)} {name}"
    if isinstance(value, dict):
        return ", ".join(f"{inner} {number}" for inner, number in value.items()) or None
    return (", ".join(map(str, value)) or None) if isinstance(value, list) else value
