"""`fourfold shards adopt`: WebDataset tars of others, used where they lie."""

from typing import Any

import typer

from benchmarks.results.output import AsJson, plain, print_facts, print_json, say, size_text
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress

__all__ = ["adopt"]

MOST_LABELS = 10
CHOICES = {"check": ("header", "decode"), "labels": ("auto", "off")}


def adopt(
    tars: list[str] = typer.Argument(
        metavar="TARS...",
        help="WebDataset tars, folders that hold some, patterns such as 'data/{000..099}.tar', or URLs.",
    ),
    out: str = typer.Option(..., metavar="DIR", help="A folder (or URL) for the manifest; no tar is copied to it."),
    split: str = typer.Option("auto", help="Split of all tars; auto: by their names (train, val, test), else train."),
    labels: str = typer.Option("auto", help="auto: from .cls and .json members, else class folders; off: none."),
    label_field: str | None = typer.Option(None, help="Key of the label in .json members. Default: label."),
    check: str = typer.Option("header", help="Images: look at their structure (header), or decode each (decode)."),
    trust: bool = typer.Option(
        False, "--trust", help="Do not read tars whole for their sha256: believe their size and time of change."
    ),
    max_reject_ratio: float = typer.Option(0.5, min=0, max=1, help="Fail when a larger share cannot be used."),
    workers: int = typer.Option(0, "--workers", min=0, help="Worker processes; 0 is one per core."),
    as_json: bool = AsJson,
) -> None:
    """Use WebDataset tars made by others where they lie. Killed or repeated, it reads only what is new or changed.

    Examples:

    fourfold shards adopt laion/*.tar --out shards/laion

    fourfold shards adopt 's3://bucket/imagenet1k-train-{0000..1023}.tar' --out shards/imagenet --trust
    """
    from pipelines.shards.adopting.adopt import adopt_tars

    for name, given in (("check", check), ("labels", labels)):
        if given not in CHOICES[name]:
            raise UsageError(f"shards adopt: --{name} {given}; allowed: {', '.join(CHOICES[name])}.")
    options: dict[str, Any] = {
        "split": split,
        "labels": labels,
        "label_field": label_field,
        "check": check,
        "trust": trust,
        "num_workers": workers,
        "max_reject_ratio": max_reject_ratio,
    }
    if as_json:
        with quiet_progress():
            print_json(adopt_tars(tars, out, **options))
        return
    facts = plain(adopt_tars(tars, out, **options))
    print_facts(out, {name.removeprefix("num_"): _text(name, value) for name, value in facts.items()})
    for warning in _warnings(facts):
        say(f"note: {warning}")
    say(f"look at it: fourfold preview {out} --out preview.png")


def _warnings(facts: dict[str, Any]) -> list[str]:
    """One line for each way in which images or labels were left out."""
    warnings = []
    if facts["num_rejects"]:
        warnings.append(f"{facts['num_rejects']} images are left out; rejects.jsonl there says why")
    if facts["labels"] and facts["num_unlabelled"]:
        warnings.append(f"{facts['num_unlabelled']} of {facts['num_images']} images have no label")
    if facts["num_renamed"]:
        warnings.append(f"{facts['num_renamed']} keys occur in several tars; the later ones got a number (key_2)")
    return warnings


def _text(name: str, value: Any) -> Any:
    if name == "bytes":
        return size_text(value)
    if isinstance(value, dict):
        return ", ".join(f"{inner} {number}" for inner, number in value.items()) or None
    if isinstance(value, list):
        return f"{len(value)} {name}" if len(value) > MOST_LABELS else ", ".join(map(str, value)) or None
    return value
