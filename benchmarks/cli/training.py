"""`fourfold pretrain` and `fourfold evaluate`: one trunk, trained and measured."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from benchmarks.recipe_files import completing, find_recipe
from benchmarks.results.output import AsJson, Overrides, plain, print_facts, print_json, print_table, say
from pipelines.base.progress import quiet_progress

if TYPE_CHECKING:
    from pipelines.base.config import Config
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
    from training.parallel import ranks_of_environment

    config = find_recipe(config, "pretrain")
    checked = load_config(PretrainConfig, config, overrides or [])
    if plan:
        _show_costs(checked, str(config), as_json=as_json)
        return
    folder = out or Path("runs") / config.stem
    with quiet_progress() if as_json else nullcontext():
        summary = train(checked, folder, device=device)
    if not ranks_of_environment().is_first:
        return
    if as_json:
        print_json(summary)
        return
    print_facts(str(folder), plain(summary))
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
            f"{one.step_gib:.3g}",
            _ratio(one.relative),
            one.paper_gpu_hours,
            _ratio(one.paper_relative),
        ]
        for one in costs
    ]
    columns = ["task", "samples a step", "inputs a sample", "GFLOP a sample", "GiB a step", "to colorization"]
    print_table(title, [*columns, "paper: GPU-hours an epoch", "to colorization"], rows)
    say("GFLOP: forward and backward, trunk and head. How many clips the paper's epochs have is unknown.")
    say("GiB: weights, optimizers and activations in fp32, from shapes; bf16 halves the activations.")


def _ratio(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def evaluate(
    run: Path | None = typer.Argument(None, metavar="[RUN]", help="Folder of a finished run of fourfold pretrain."),
    trunk: str | None = typer.Option(
        None, metavar="NAME", help="Instead of RUN: a network of timm or torchvision, such as timm:resnet18."
    ),
    weights: Path | None = typer.Option(None, metavar="FILE", help="File of the weights of --trunk."),
    names: str = typer.Option("linear_probe", "--with", metavar="A,B", help="Evaluations, separated by commas."),
    images: Path | None = typer.Option(None, metavar="DIR", help="Folder of shards with labelled images."),
    train_split: str = typer.Option("train", help="Split the probe is fitted on."),
    test_split: str = typer.Option("val", help="Split the probe is scored on."),
    out: Path | None = typer.Option(
        None, "--out", metavar="DIR", help="Folder of records and features. Default: RUN/evaluations, or runs/NAME."
    ),
    overrides: list[str] | None = Overrides,
    as_json: bool = AsJson,
) -> None:
    """Measure a trunk: a run of fourfold pretrain, or pretrained weights of timm or torchvision from a local file.

    Writes a record of each evaluation; the same command returns a finished one at once. With several evaluations,
    --set knn.pool=2 sets an option of one, and --set canvas_px=96 of all that have it.

    Example: fourfold evaluate runs/small --with linear_probe,knn,few_shot --images shards --set canvas_px=96
    """
    # Imported in the command, as in all of them: `fourfold --help` must not wait for torch.
    from benchmarks.evaluations.base import Context
    from benchmarks.evaluations.trunk_source import TrunkSource
    from benchmarks.suite.evaluate_trunk import evaluate_trunk
    from pipelines.base.errors import UsageError

    evaluations = _evaluations(names, overrides or [])
    if (run is None) == (trunk is None) or (trunk is None) != (weights is None):
        raise UsageError("evaluate: give either RUN, or --trunk NAME with --weights FILE.")
    source = TrunkSource(run=run) if run is not None else TrunkSource(architecture=trunk or "", weights=weights)
    # A file name such as resnet50-0676ba61.pth tells two sets of weights of one network apart.
    name = re.sub(r"[^\w.-]+", "-", f"{trunk}-{weights.stem}" if weights is not None else "")
    folder = out or (run / "evaluations" if run is not None else Path("runs") / name)
    context = Context(
        trunk=source, images=images, train_split=train_split, test_split=test_split, store=folder / "features"
    )
    if as_json:
        with quiet_progress():
            records = evaluate_trunk(context, evaluations, folder)
        found = {kind: record.results for kind, record in records.items()}
        # One evaluation alone is its results, as ever.
        print_json(found if len(found) > 1 else next(iter(found.values())))
        return
    for kind, record in evaluate_trunk(context, evaluations, folder, say=say).items():
        shown = {re.sub("_pct$", " %", key): value for key, value in plain(record.results).items()}
        print_facts(f"{kind} of {run or trunk}", shown)
    say(f"records: {folder}")


def _evaluations(names: str, overrides: list[str]) -> "dict[str, Config]":
    """Return checked options by kind from `A,B` and `--set` values. Raises UsageError."""
    from benchmarks.evaluations import EVALUATIONS
    from pipelines.base.config import apply_overrides, validate
    from pipelines.base.errors import UsageError

    kinds = list(dict.fromkeys(part.strip() for part in names.split(",") if part.strip()))
    for name in kinds or [names]:
        if name not in EVALUATIONS or not EVALUATIONS[name].needs_trunk:
            allowed = ", ".join(one for one, evaluation in EVALUATIONS.items() if evaluation.needs_trunk)
            raise UsageError(f"--with {name}: no such evaluation of a trunk. Allowed: {allowed}.")
    # `knn.pool=2` belongs to knn; `pool=2` to all that have such an option.
    given: dict[str, list[str]] = {name: [] for name in kinds}
    for override in overrides:
        first, _, rest = override.partition(".")
        if first in given and "=" in rest:
            given[first].append(rest)
            continue
        key = re.split("[.=]", override, maxsplit=1)[0]
        takers = [name for name in kinds if key in EVALUATIONS[name].config_class.model_fields]
        # An option that none has goes to the first, whose check names the nearest one.
        for name in takers or kinds[:1]:
            given[name].append(override)
    return {
        name: validate(EVALUATIONS[name].config_class, apply_overrides({}, own), source=f"evaluate --with {name}")
        for name, own in given.items()
    }
