"""Evaluations of a suite: the options of each by name in, its kind and its checked options out."""

import re

from benchmarks.evaluations import EVALUATIONS
from benchmarks.suite.config.suite_keys import SuiteConfig
from benchmarks.suite.config.yaml_source import YamlSource, allowed_names
from pipelines.base.config import Config, Location, validate

__all__ = ["evaluation_options"]

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]*")
LONG_FORM = ("kind", "options")


def evaluation_options(config: SuiteConfig, source: YamlSource) -> tuple[dict[str, str], dict[str, Config]]:
    """Return kind and checked options of every evaluation, by its name. Raises UsageError."""
    given = dict(config.evaluations)
    for floor in (name for name, one in EVALUATIONS.items() if not one.needs_trunk):
        if floor in config.baselines:
            given.setdefault(floor, {})
        elif floor in given:
            raise source.error(("evaluations", floor), f" has options but is no baseline; add {floor} to baselines.")
    # Images of another size than in pretraining would make the probe measure the change of size, too.
    canvas_px = (config.pretrain.get("pipeline") or {}).get("canvas_px")
    kinds, checked = {}, {}
    for name, value in given.items():
        kinds[name], options, place = _kind_of(name, value, source)
        config_class = EVALUATIONS[kinds[name]].config_class
        if canvas_px is not None and "canvas_px" in config_class.model_fields:
            options = {"canvas_px": canvas_px} | options
        checked[name] = validate(config_class, options, source=source.path, lines=source.below(*place))
    # Known before a run: labelled images are there for what reads them.
    readers = [name for name, kind in kinds.items() if EVALUATIONS[kind].reads_images]
    if config.images is None and readers:
        raise source.error(("images",), f" is missing; {', '.join(readers)} need labelled images. Give images: FOLDER.")
    return kinds, checked


def _kind_of(name: str, value: dict[str, object], source: YamlSource) -> tuple[str, dict[str, object], Location]:
    """Return kind, options and their place in the file."""
    place: Location = ("evaluations", name)
    kind, options = name, value
    # The long form: a name of its own, and the kind inside.
    if "kind" in value:
        if extra := sorted(set(value) - set(LONG_FORM)):
            raise source.error((*place, extra[0]), f": unknown key {extra[0]}.{allowed_names(extra[0], LONG_FORM)}")
        kind, given = str(value["kind"]), value.get("options") or {}
        if not isinstance(given, dict):
            raise source.error((*place, "options"), f" = {given!r}: need a mapping of options of {kind}.")
        options = given
    if kind not in EVALUATIONS:
        raise source.error(place, f": unknown evaluation {kind}.{allowed_names(kind, EVALUATIONS)}")
    if not NAME_PATTERN.fullmatch(name):
        raise source.error(place, ": need a name of a-z, 0-9, _ and -.")
    if name != kind and not EVALUATIONS[kind].needs_trunk:
        raise source.error(place, f": {kind} needs no trunk, so it stands once, under its own name.")
    return kind, options, (*place, "options") if "kind" in value else place
