"""Values of a config before they are checked: what YAML and the shell make of a word, fitted to the field's type.

YAML 1.1 reads off and no as false, and 1e4 as text; pydantic takes true for 1. Here `off` reaches a field that allows
"off", `1e4` a field of integers, and true is refused where a number is wanted.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pipelines.base.paths import expanded

__all__ = ["fitted"]

SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
OFF_WORDS = ("off", "no", "false")
# 1e999999999 is an integer, too, and would fill the memory.
MAX_EXPONENT = 18


def fitted(kind: Any, value: Any) -> Any:
    """Return the value as a field annotated with `kind` takes it; what needs no change comes back as it is.

    Raises ValueError for true or false where a number is wanted.
    """
    choices = _choices(kind)
    if isinstance(value, bool):
        # bool before everything else: in Python it is an int, and pydantic would take true for 1.
        return _fitted_bool(choices, value)
    if isinstance(value, str):
        return _fitted_text(choices, value)
    if isinstance(value, list | tuple):
        inner = next((get_args(one) for one in choices if get_origin(one) in (list, tuple)), ())
        of_each = inner[:1] * len(value) if len(inner) == 1 or inner[1:] == (...,) else inner
        if len(of_each) == len(value):
            return type(value)(fitted(one, item) for one, item in zip(of_each, value, strict=True))
    if isinstance(value, Mapping):
        inner = next((get_args(one) for one in choices if get_origin(one) in (dict, Mapping)), ())
        if len(inner) == 2:
            return {key: fitted(inner[1], item) for key, item in value.items()}
    return value


def _choices(kind: Any) -> list[Any]:
    """The types and literal values that an annotation allows; unions are opened, Annotated is taken off."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _choices(get_args(kind)[0])
    if origin in (Union, UnionType):
        return [one for inner in get_args(kind) for one in _choices(inner)]
    return list(get_args(kind)) if origin is Literal else [kind]


def _fitted_bool(choices: list[Any], value: bool) -> Any:
    if bool in choices or any(one is value for one in choices):
        return value
    if not value and "off" in choices:
        return "off"
    if _wants_integer(choices) or float in choices:
        raise ValueError(f"a number is wanted here, not {str(value).lower()}")
    return value


def _wants_integer(choices: list[Any]) -> bool:
    """Return whether an integer is allowed, any or one of a few."""
    return int in choices or any(type(one) is int for one in choices)


def _fitted_text(choices: list[Any], value: str) -> Any:
    # YAML reads a bare off as false and a quoted one as text; both mean the choice.
    if "off" in choices and str not in choices and value.lower() in OFF_WORDS:
        return "off"
    if str in choices:
        return value
    if Path in choices:
        return expanded(value)
    if _wants_integer(choices) and SCIENTIFIC.fullmatch(value):
        # By Decimal, which is exact; the limit keeps a huge exponent from filling the memory.
        number = Decimal(value)
        if abs(number.adjusted()) <= MAX_EXPONENT and number == number.to_integral_value():
            return int(number)
    return value
