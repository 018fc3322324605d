"""`fourfold profile`: which stage of a pipeline is slow, how far from the limit, and what would help."""

from pathlib import Path

import typer

from benchmarks.results.output import AsJson, Overrides, print_json, say

__all__ = ["profile"]

JSON_NAME, PAGE_NAME = "profile.json", "profile.html"


def profile(
    config: Path = typer.Argument(
        metavar="CONFIG.yaml|DIR", help="A pipeline, pretraining or profile (yaml/), or a folder of shards."
    ),
    out: Path = typer.Option(Path("profile"), "--out", metavar="DIR", help="Where JSON and page go."),
    with_loaders: bool = typer.Option(
        False, "--loaders", help="Compare other loaders on the same images, too: some minutes (docs/loaders.md)."
    ),
    seconds: float | None = typer.Option(None, min=0.5, max=3600, help="For measuring. More is steadier."),
    overrides: list[str] | None = Overrides,
    as_json: bool = AsJson,
) -> None:
    """Find the bottleneck of a pipeline, and what would help.

    Measures the limits of this machine, what each stage costs, and the running pipeline; names the bottleneck with its
    evidence; predicts what changes would give. Writes profile.json and profile.html. Within a minute; changes nothing
    else.

    Examples:

    fourfold profile shards

    fourfold profile yaml/profiles/fast-gpu.yaml --set pipeline.images=shards
    """
    from benchmarks.profile.profile_config import changed, load_profile
    from benchmarks.profile.run_profile import make_profile
    from benchmarks.profile.show.document import document_of
    from benchmarks.profile.show.profile_page import page_of
    from benchmarks.profile.show.terminal import show
    from benchmarks.results.record import write_json, write_text

    checked = load_profile(config, overrides or [])
    if seconds is not None:
        checked = changed(checked, {"seconds": seconds})
    found = make_profile(
        checked,
        source=str(config),
        with_loaders=with_loaders,
        progress=lambda text: say(f"{text} ..."),
    )
    document = document_of(found)
    # The numbers first: should the page fail, a minute of measuring is not lost.
    write_json(out / JSON_NAME, document)
    write_text(out / PAGE_NAME, page_of(found))
    if as_json:
        print_json(document)
    else:
        show(found)
    say(f"look at it: {out / PAGE_NAME}")
