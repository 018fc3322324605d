"""One command line and one writer of records for all studies: a dataclass of options in, one JSON record out.

A field `num_samples: Annotated[int, "samples of each repeat"] = 4096` is the option `--samples 4096` with that help. A
second text names the option otherwise; without leading dashes it is positional. Fields without a text stay off the
command line.
"""

import argparse
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from benchmarks.results.output import plain
from benchmarks.results.record import Environment, Record, environment, installed_version, now_utc, write_json
from pipelines.base.errors import FourfoldError, UsageError
from pipelines.base.interrupt import sigterm_as_interrupt

__all__ = ["RecordFile", "Study", "say", "versions_of"]

Options = TypeVar("Options")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return installed versions by package; "not installed" for the others."""
    return {package: installed_version(package) for package in sorted(set(packages))}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """File of a study's record. Made before measuring: date, seconds, commit and packages are those of the start."""

    out: Path
    kind: str
    label: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    earlier_s: float = 0.0
    """Seconds of runs that this one resumes."""
    date: str = field(default_factory=now_utc)
    place: Environment = field(default_factory=environment)
    start_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Check the file before minutes of measuring, not after them. Raises UsageError."""
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {self.out}: {self.out.parent} cannot be made ({error.strerror}).") from error
        if self.out.is_dir() or not os.access(self.out.parent, os.W_OK):
            raise UsageError(
                f"--out {self.out}: a folder, or in one that cannot be written to. Give the name of a file."
            )
        if not self.config.get("command"):
            raise ValueError(f"record of {self.label}: config has no command; a number needs the command that made it.")

    def write(self, results: Mapping[str, Any]) -> None:
        """Write the record, whole or not at all; may be called again with more results. Raises ValueError if anything
        is missing or not finite, DataError if it cannot be written."""
        content = json.dumps([self.kind, plain(self.config), dict(self.inputs)], sort_keys=True)
        record = Record(
            kind=self.kind,
            key=hashlib.sha256(content.encode()).hexdigest()[:16],
            label=self.label,
            date=self.date,
            seconds=self.earlier_s + time.monotonic() - self.start_s,
            environment=self.place,
            config=plain(self.config),
            inputs=dict(self.inputs),
            results=plain(results),
        )
        write_json(self.out, asdict(record))


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Generic[Options]):
    """A measurement run as `python -m MODULE`."""

    module: str
    kind: str
    label: str
    description: str | None
    options: type[Options]
    measure: Callable[[Options], dict[str, Any] | Iterator[dict[str, Any]]]
    """From options to the record's results; or results that grow, written each time, so that a killed run counts. If
    it yields none, no record is written."""
    lines: Callable[[dict[str, Any]], Iterable[str]] = lambda _: ()
    """What to print of the results at the end."""
    is_failed: Callable[[dict[str, Any]], bool] = lambda _: False
    """Whether results mean exit code 1; the record is written all the same."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Part of the record's config that no option changes."""
    packages: Iterable[str] = ()
    """Packages whose versions stand in the record."""
    inputs: Mapping[str, str] = field(default_factory=dict)

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}",
            description=self.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        default = Path(f"{self.module.rpartition('.')[2]}.json")
        parser.add_argument("--out", type=Path, default=default, help=f"file of the record; default {default}")
        for name, (hint, texts) in _annotated(self.options).items():
            _add(parser, _default(self.options, name), name, hint, *texts)
        return parser

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run the command line: measure, print, write the record. Exits with 1 for a failure, 2 for wrong use."""
        words = list(sys.argv[1:] if arguments is None else arguments)
        given = vars(self.parser().parse_args(words))
        out = given.pop("out")
        results: dict[str, Any] | None = None
        try:
            with sigterm_as_interrupt():
                # argparse collects repeated options in lists, where the dataclasses have tuples. What was left out
                # stays out, since the default of a field may be computed.
                told = {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}
                options = self.options(**{name: one for name, one in told.items() if one is not None})
                config = {name: getattr(options, name) for name in _annotated(self.options)}
                command = shlex.join(["python", "-m", self.module, *words])
                record = RecordFile(
                    out=out,
                    kind=self.kind,
                    label=self.label,
                    config=config | dict(self.constants) | {"command": command},
                    inputs=versions_of(self.packages) | dict(self.inputs),
                )
                measured = self.measure(options)
                for results in [measured] if isinstance(measured, dict) else measured:
                    record.write(results)
                if results is None:
                    return
                for line in self.lines(results):
                    say(line)
        except FourfoldError as error:
            print(f"{self.kind}: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt:
            kept = "" if results is None else f"; {out} holds what was measured before"
            print(f"{self.kind}: interrupted{kept}", file=sys.stderr)
            raise SystemExit(130) from None
        say(f"wrote {out}")
        if record.place.is_dirty:
            say("this checkout has changes that are not committed: a look, not a record")
        if self.is_failed(results):
            raise SystemExit(1)


def _annotated(options: type) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Return type and texts of the fields that are options."""
    hints = get_type_hints(options, include_extras=True)
    chosen = {one.name: hints[one.name] for one in fields(options) if get_origin(hints[one.name]) is Annotated}
    return {name: (get_args(hint)[0], hint.__metadata__) for name, hint in chosen.items()}


def _default(options: Any, name: str) -> Any:
    """Return a field's default; None if it is computed or there is none."""
    found = next(one.default for one in fields(options) if one.name == name)
    return None if found is MISSING else found


def _add(parser: argparse.ArgumentParser, default: Any, name: str, hint: Any, text: str, flag: str = "") -> None:
    """Add one field as an option: a number, text, Path, Literal, one of these or None, a tuple of them, or a bool that
    is false without the option."""
    flag = flag or "--" + name.removeprefix("num_").replace("_", "-")
    kinds = [kind for kind in get_args(hint) if kind not in (NoneType, ...)]
    is_shown = default is not None and not isinstance(default, tuple)
    given: dict[str, Any] = {"help": f"{text}; default {default}" if is_shown else text}
    if hint is bool:
        parser.add_argument(flag, dest=name, action="store_true", help=text)
        return
    if get_origin(hint) is Literal:
        given |= {"choices": kinds, "type": str}
    else:
        given |= {"type": kinds[0] if kinds else hint, "metavar": flag.removeprefix("--").upper()}
    # argparse refuses `dest` for a positional argument.
    if not flag.startswith("-"):
        parser.add_argument(name, nargs="*", default=default, **given)
        return
    if get_origin(hint) is tuple:
        given |= {"action": "append", "default": None}  # argparse would add to the default
    parser.add_argument(flag, dest=name, **{"default": default, **given})
