"""`fourfold pretrain` and `fourfold evaluate`: one trunk, trained and measured."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from benchmarks.recipe_files import completing, find_recipe
from benchmarks.results.output import AsJson, Overrides, plain, print_facts, print_json, print_table, say
from pipelines.base.progress import quiet_progress

if TYPE_CHECKING:
    from training.config import PretrainConfig

__all__ = ["evaluate", "pretrain"]


def pretrain(
    config: Path = typer.Argument(
        metavar="CONFIG.yaml",
        help="What to train: a YAML file, or the name of a packaged one, such as small.",
        autocompletion=completing("pretrain"),
    ),
    out: Path | None = typer.Option(None, "--out", metavar="DIR", help="Run folder. Default: runs/NAME of the file."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    plan: bool = typer.Option(False, "--plan", help="Show what a sample of each task costs, and train nothing."),
    overrides: list[str] | None = Overrides,
    as_json: bool = AsJson,
) -> None:
    """Train one trunk on the tasks of a config. The same command resumes a stopped run; a finished one returns at once.

    Example: fourfold pretrain small --set pipeline.images=shards --set trunk.depth=34
    """
    from pipelines.base.config import load_config
    from training.config import PretrainConfig
    from training.loop import pretrain as train

    config = find_recipe(config, "pretrain")
    checked = load_config(PretrainConfig, config, overrides or [])
    if plan:
        _show_costs(checked, str(config), as_json=as_json)
        return
    folder = out or Path("runs") / config.stem
    if as_json:
        with quiet_progress():
            print_json(train(checked, folder, device=device))
        return
    print_facts(str(folder), plain(train(checked, folder, device=device)))
    say(f"next: fourfold evaluate {folder} --images SHARDS")


def _show_costs(config: "PretrainConfig", title: str, *, as_json: bool) -> None:
    from training.diagnostics.task_costs import task_costs

    costs = task_costs(config)
    if as_json:
        print_json({"source": title, "tasks": costs})
        return
    rows = [
        [
            one.task,
            one.samples_per_step,
            f"{one.inputs_per_sample:g}",
            f"{one.gflop_per_sample:.3g}",
            _ratio(one.relative),
            one.paper_gpu_hours,
            _ratio(one.paper_relative),
        ]
        for one in costs
    ]
    columns = ["task", "samples a step", "inputs a sample", "GFLOP a sample", "to colorization"]
    print_table(title, [*columns, "paper: GPU-hours an epoch", "to colorization"], rows)
    say("GFLOP: forward and backward, trunk and head. How many clips the paper's epochs have is unknown.")


def _ratio(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def evaluate(
    run: Path = typer.Argument(metavar="RUN", help="Folder of a finished run of fourfold pretrain."),
    name: str = typer.Option("linear_probe", "--with", help="Name of the evaluation."),
    images: Path = typer.Option(..., metavar="DIR", help="Folder of shards with labelled images."),
    train_split: str = typer.Option("train", help="Split the probe is fitted on."),
    test_split: str = typer.Option("val", help="Split the probe is scored on."),
    overrides: list[str] | None = Overrides,
    as_json: bool = AsJson,
) -> None:
    """Measure a pretrained trunk on labelled images.

    Example: fourfold evaluate runs/small --with linear_probe --images shards --set canvas_px=96
    """
    # Imported in the command, as in all of them: `fourfold --help` must not wait for torch.
    from benchmarks.evaluations import EVALUATIONS
    from benchmarks.evaluations.base import Context
    from benchmarks.evaluations.trunk_source import TrunkSource
    from pipelines.base.config import apply_overrides, validate
    from pipelines.base.errors import UsageError

    if name not in EVALUATIONS:
        raise UsageError(f"--with {name}: no such evaluation. Allowed: {', '.join(EVALUATIONS)}.")
    evaluation = EVALUATIONS[name]
    options = validate(evaluation.config_class, apply_overrides({}, overrides or []), source=f"evaluate --with {name}")
    context = Context(
        trunk=TrunkSource(run=run),
        images=images,
        train_split=train_split,
        test_split=test_split,
        store=run / "features",
    )
    evaluation.check(context, options)
    if as_json:
        with quiet_progress():
            print_json(evaluation.run(context, options))
        return
    results = evaluation.run(context, options)
    print_facts(f"{name} of {run}", {re.sub("_pct$", " %", key): value for key, value in plain(results).items()})
