"""Configuration: the base class of every user-facing config, and YAML in with errors that name file, line and key.

A config class stands beside the code it configures; YAML states only what differs from its defaults.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from pipelines.base.config_values import fitted
from pipelines.base.errors import UsageError
from pipelines.base.paths import expanded
from pipelines.base.strict_yaml import Location, YamlError, parse_yaml

__all__ = ["Config", "GrownConfig", "Location", "apply_overrides", "load_config", "read_yaml", "validate"]

MAX_SHOWN = 200
"""Characters of a wrong value in a message."""


class Config(BaseModel):
    """Base class of all configs: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _fit(cls, value: Any, info: ValidationInfo) -> Any:
        """Fit what YAML and the shell make of off, 1e4, true and ~ to the type of the field."""
        return fitted(cls.model_fields[str(info.field_name)].annotation, value)


class GrownConfig(Config):
    """Config with options that came later than its users' runs.

    They are not written down while they have their default, so that older runs and stages keep their identity.
    """

    later_options: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        fields = type(self).model_fields
        unused = {
            name
            for name in self.later_options
            if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return {name: value for name, value in values.items() if name not in unused}


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """Return a YAML mapping and the line (from 1) of every key in it. Raises UsageError, which names the line."""
    path = Path(expanded(str(path)))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot read it ({reason}). Give the path of a YAML file.") from error
    try:
        # Lines are kept beside the values, since pydantic names a wrong value by its keys only.
        value, lines = parse_yaml(text)
    except YamlError as error:
        where = f"{path}:{error.line}" if error.line else path
        raise UsageError(f"{where}: {error}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: holds {type(value).__name__}; need a mapping of keys to values.")
    return value, lines


def apply_overrides(value: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply overrides such as "trunk.depth=34" to a copy of a nested mapping; the right side is YAML.

    Raises UsageError.
    """
    result: dict[str, Any] = _copy(value)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {override}: need NAME=VALUE, for example --set trunk.depth=34.")
        target = result
        *parents, last = name.split(".")
        for parent in parents:
            # A parent that the file does not mention is created, so that --set works without the section in the file.
            inner = target.get(parent)
            if inner is None:
                inner = target[parent] = {}
            if not isinstance(inner, dict):
                raise UsageError(f"--set {override}: {parent} holds {inner!r}, not a mapping; set {parent} itself.")
            target = inner
        try:
            target[last], _ = parse_yaml(text)
        except YamlError as error:
            raise UsageError(f"--set {override}: {error}. Put text with special characters in quotes.") from error
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def load_config(model: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read, override and check a YAML file. Raises UsageError naming file, line, key and the nearest legal key."""
    value, lines = read_yaml(path)
    return validate(model, apply_overrides(value, overrides), source=str(path), lines=lines)


def validate(
    model: type[ConfigT],
    value: Mapping[str, Any],
    *,
    source: str,
    lines: Mapping[Location, int] | None = None,
) -> ConfigT:
    """Check a mapping against a config class. Raises UsageError with one line per problem."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Unknown keys first: a misspelled key is also missing under its right name.
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        problems = [_explain(model, dict(item), source, lines or {}) for item in items]
        raise UsageError("\n".join(problems)) from error


def _explain(model: type[BaseModel], item: dict[str, Any], source: str, lines: Mapping[Location, int]) -> str:
    location: Location = tuple(item["loc"])
    # A missing key has no line of its own, so the line of the nearest mapping around it is named.
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    where = f"{source}:{line}" if line else source
    name = ".".join(str(part) for part in location) or "(whole file)"
    if item["type"] == "extra_forbidden":
        # The nearest legal key first: most unknown keys are misspelled ones.
        legal = _legal_keys(model, location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), legal, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        return f"{where}: unknown key {name}.{hint} Allowed here: {', '.join(sorted(legal))}."
    given = item.get("input")
    shown = "" if item["type"] == "missing" else f" = {_shortened(repr(given))}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {name}{shown}: {message}."


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _legal_keys(model: type[BaseModel], location: Location) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = _config_or_container(field.annotation) if field else None
        else:
            # An item of a list, or a value of a mapping, whatever its key.
            current = _config_or_container((get_args(current) or (None,))[-1])
    return list(getattr(current, "model_fields", {}))


def _config_or_container(annotation: Any) -> Any:
    """Return the config class or container among the choices of a field that is optional or a union."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    classes = [one for one in choices if isinstance(one, type) and not get_args(one) and issubclass(one, BaseModel)]
    return next(iter([*classes, *(one for one in choices if get_args(one))]), None)
