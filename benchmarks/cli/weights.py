"""`fourfold export`: the trunk of a run for other programs."""

from pathlib import Path

import typer

from benchmarks.results.output import AsJson, print_facts, print_json, say

__all__ = ["export"]


def export(
    run: Path = typer.Argument(metavar="RUN", help="Folder of a finished run of fourfold pretrain."),
    out: Path = typer.Option(..., "--out", metavar="FILE.safetensors", help="File to write."),
    as_json: bool = AsJson,
) -> None:
    """Write the trunk of a run as weights that plain timm loads; the header of the file says how.

    Example: fourfold export runs/small --out trunk.safetensors
    """
    from training.weights.export import export_trunk

    header = export_trunk(run, out)
    if as_json:
        print_json({"file": str(out), "header": header})
        return
    print_facts(str(out), header)
    say("next: docs/weights.md has the lines of Python that load it")
