"""`fourfold shortcuts`: how much of each pretext task can be solved without seeing what it is about."""

from pathlib import Path

import typer

from benchmarks.recipe_files import completing, find_recipe
from benchmarks.results.output import AsJson, Overrides, print_json, print_table, say

__all__ = ["shortcuts"]


def shortcuts(
    source: Path = typer.Argument(
        metavar="CONFIG|RUN",
        help="A YAML of a pipeline or pretraining, the name of a packaged one, or the folder of a run.",
        autocompletion=completing("pretrain", "pipelines"),
    ),
    samples: int = typer.Option(256, min=4, help="Images, and clips, to fit probes, and again to judge them."),
    tasks: str = typer.Option("", metavar="NAME,NAME", help="Tasks to look at. Default: all of the configuration."),
    seed: int = typer.Option(0, min=0, help="Seed of the choice of samples and of the augmentations."),
    device: str = typer.Option("auto", help="Of a trained run: auto, cpu or cuda."),
    overrides: list[str] | None = Overrides,
    as_json: bool = AsJson,
) -> None:
    """Show how much of each task can be solved by what is not meant: a border, a mean color, a place.

    Of a configuration, small probes answer from what is left of the inputs. Of a run, the trained model does. Each row
    stands beside chance, with a 95 % interval over images, or over source videos. docs/shortcuts.md reads the table.

    Example: fourfold shortcuts small --set pipeline.images=shards --tasks relative_position
    """
    from contextlib import nullcontext

    from benchmarks.profile.profile_config import load_profile
    from benchmarks.results.output import plain
    from benchmarks.results.record import write_json
    from benchmarks.results.report.learning import SHORTCUTS_NAME
    from benchmarks.shortcuts.finding import MARGIN
    from benchmarks.shortcuts.trained import findings_of_run
    from benchmarks.shortcuts.untrained import findings_of_config
    from pipelines.base.progress import quiet_progress
    from training.run_folder import CONFIG_NAME

    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    is_run = (source / CONFIG_NAME).is_file()
    with quiet_progress() if as_json else nullcontext():
        if is_run:
            found = findings_of_run(
                source, num_samples=samples, tasks=names, seed=seed, device=device, overrides=overrides or []
            )
        else:
            if not source.is_dir():
                # Pretraining first: some names are also those of pipelines, which have other keys.
                source = find_recipe(source, "pretrain", "pipelines", or_give="the folder of a run")
            pipeline = load_profile(source, overrides or []).pipeline
            found = findings_of_config(pipeline, num_samples=samples, tasks=names, seed=seed)
    content = {"source": source, "is_trained": is_run, "margin": MARGIN, "findings": found}
    if is_run:
        # Beside the run, where the report of its suite finds it.
        write_json(source / SHORTCUTS_NAME, plain(content))
    if as_json:
        print_json(content)
        return
    columns = ["task", "sees", "metric", "chance", "value", "95 % interval", "sources", *(["kept"] if is_run else [])]
    rows = [
        [
            one.task,
            one.sees,
            one.metric,
            f"{one.chance:.3f}",
            f"{one.value:.3f}",
            f"{one.ci95_low:.3f} to {one.ci95_high:.3f}",
            one.num_sources,
            *([None if one.kept is None else f"{100 * one.kept:.0f} %"] if is_run else []),
            one.verdict,
        ]
        for one in found
    ]
    print_table(str(source), [*columns, "verdict"], rows)
    say(f"leaks: the interval begins more than {MARGIN:.0%} of the way from chance to 1. See docs/shortcuts.md")
