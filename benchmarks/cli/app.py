"""The fourfold command: every error is one message on stderr and an exit code; a traceback only with FOURFOLD_DEBUG=1.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated (130 while shards are built).
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import typer

from benchmarks.cli import bench, bench_records, profile, shards, shortcuts, training, weights
from benchmarks.results.output import AsJson, print_json, say
from pipelines.base.errors import FourfoldError
from training.ranks.one_message import has_failed, is_first_to_fail

__all__ = ["app", "main", "run"]

COMPLETE_VARIABLE = "_FOURFOLD_COMPLETE"
"""Set by the script that `fourfold --install-completion` installs."""

app = typer.Typer(
    name="fourfold",
    help="Multi-task self-supervised visual pretraining: build shards, look at the tasks, pretrain one trunk, "
    "and benchmark single against combined tasks.",
    epilog="Start with: fourfold doctor, then fourfold demo.",
    # Errors are one message here, and not Typer's traceback with all local variables.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(shards.app, name="shards")
bench.app.command("compare")(bench_records.compare)
bench.app.command("verify")(bench_records.verify)
app.add_typer(bench.app, name="bench")
app.command("pretrain")(training.pretrain)
app.command("evaluate")(training.evaluate)
app.command("export")(weights.export)
app.command("profile")(profile.profile)
app.command("shortcuts")(shortcuts.shortcuts)


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised as an exception so that it cleans up as Ctrl-C does."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"fourfold {version('fourfold')}")
        except PackageNotFoundError:
            print("fourfold (a source tree that is not installed)")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


@app.command()
def doctor(as_json: bool = AsJson) -> None:
    """Show what this machine has, what fourfold will use of it, and what is missing.

    Exit code 1 if something required is missing.

    Example: fourfold doctor --json
    """
    from benchmarks.cli import doctor as checks

    report = checks.examine()
    if as_json:
        print_json(report)
    else:
        checks.show(report)
    if not report.is_usable:
        raise typer.Exit(1)


@app.command()
def preview(
    folder: Path = typer.Argument(help="Folder of shards with images, clips or both."),
    out: Path = typer.Option(Path("preview.png"), "--out", help="PNG file to write."),
    clips: Path | None = typer.Option(
        None, help="Folder of clip shards, if they are in another folder than the images."
    ),
    num_samples: int = typer.Option(4, min=1, max=16, help="Samples per task, one a row."),
    seed: int = typer.Option(0, min=0, help="Seed of the choice of samples and of the augmentations."),
    canvas_px: int = typer.Option(256, min=64, max=1024, help="Side of the square image canvas."),
) -> None:
    """Draw inputs and targets of each task on one sheet.

    Example: fourfold preview demo/shards --out sheet.png
    """
    from pipelines.preview.task_sheet import write_sheet

    print(write_sheet(folder, out, clips=clips, num_samples=num_samples, seed=seed, canvas_px=canvas_px))


@app.command()
def demo(
    out: Path = typer.Option(Path("demo"), "--out", help="Folder for everything the demo writes."),
) -> None:
    """Run everything once on real photos and video: shards, preview, a small suite, its report.

    Takes a few minutes of one CPU. The pictures come inside Python packages (pip install 'fourfold[demo]'); nothing is
    downloaded. A second run reuses what is there. Example: fourfold demo
    """
    from benchmarks.cli.demo import run_demo

    run_demo(out)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors are printed as one message on stderr."""
    # A bare `fourfold` or `fourfold shards` is a question, not a mistake.
    is_question = list(arguments) in ([], ["shards"], ["bench"])
    arguments = [*arguments, "--help"] if is_question else list(arguments)
    try:
        # Not `app()`: it turns Ctrl-C and SIGTERM into silent exits.
        parser = typer.main.get_command(app)
        with parser.make_context("fourfold", arguments) as context:
            parser.invoke(context)
        return 0
    except FourfoldError as error:
        return _fail(error, str(error), error.exit_code)
    except typer.Exit as error:
        return int(error.exit_code)
    except Terminated as error:
        return _fail(error, "terminated", 143)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _fail(error, "interrupted", 130)
    except BrokenPipeError:
        # `fourfold ... | head` has closed the pipe. stdout goes nowhere, or the interpreter would fail when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(error, f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), 1)
    except Exception as error:
        if (message := _usage_message(error)) is not None:
            return _fail(error, message, 2)
        hint = "This is a bug in fourfold; FOURFOLD_DEBUG=1 shows where."
        return _fail(error, f"{type(error).__name__}: {error}. {hint}", 1)


def main() -> None:
    """Entry point of the `fourfold` command."""
    if COMPLETE_VARIABLE in os.environ:
        app(prog_name="fourfold")  # the shell asks what could come next: Typer answers and exits
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def _terminate(number: int, frame: FrameType | None) -> None:
    # torchrun terminates all ranks once one has ended: that must not cut off the message of one that fails.
    if not has_failed():
        raise Terminated


def _fail(error: BaseException, message: str, exit_code: int) -> int:
    if os.environ.get("FOURFOLD_DEBUG") == "1":
        raise error
    if is_first_to_fail():
        say(f"fourfold: {message}")
    return exit_code


def _usage_message(error: Exception) -> str | None:
    """Return the text of an error of the parser (unknown option, missing argument), whose class is private to typer."""
    format_message = getattr(error, "format_message", None)
    if format_message is None:
        return None
    context = getattr(error, "ctx", None)
    where = f" Try: {context.command_path} --help" if context is not None else ""
    return f"{str(format_message()).rstrip('.')}.{where}"
