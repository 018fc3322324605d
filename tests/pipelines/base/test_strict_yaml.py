"""Strict YAML: values and lines as PyYAML has them, and what nobody means refused with its line and without a wait."""

import time

import pytest
import yaml

from pipelines.base.strict_yaml import YamlError, parse_yaml

ANCHORS = "base: &b {lr: 0.1, steps: 5}\nfirst: {<<: *b, steps: 6}\nsecond: *b\n"


@pytest.mark.parametrize("text", ["a: 1\nb: [x, {c: 2}]\n", ANCHORS, "- 1\n- 2\n", "", "# nothing\n", "a: 'off'\n"])
def test_values_are_those_of_pyyaml(text: str) -> None:
    assert parse_yaml(text)[0] == yaml.safe_load(text)


def test_lines_are_counted_from_one() -> None:
    assert parse_yaml("a:\n  - x\n  - b: 1\n\nc: 2\n")[1] == {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 3,
        ("a", 1, "b"): 3,
        ("c",): 5,
    }


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", (1, 3)),
        ("a: 1\n'a': 1\n", "a", (1, 2)),
        ("t:\n  x: 1\n  y: 2\n  x: 1\n", "x", (2, 4)),
        ("t:\n  - {x: 1,\n     x: 2}\n", "x", (2, 3)),
        ("# c\n\nt: {u: {v: 1, w: 2}}\nt: {}\n", "t", (3, 4)),
        ("a: &n {k: 1}\nb: {<<: *n,\n  <<: *n}\n", "<<", (2, 3)),
        ("a: {b: 1, c: {d: 1, d: 1}}", "d", (1, 1)),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, key: str, lines: tuple[int, int]) -> None:
    with pytest.raises(YamlError, match=rf"^{key} stands here and at line {lines[0]} already; keep one$") as caught:
        parse_yaml(text)
    assert caught.value.line == lines[1]


def bomb(levels: int, width: int, made: str) -> str:
    """Aliases of aliases: width ** levels values in a few lines."""
    lines = [f"a0: &a0 {made}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(9, 9, "[x, x, x]"),
        bomb(30, 2, "{k: v}"),
        bomb(4, 100, "x"),
        "a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 40)),
        "a: &a [" + ", ".join("x" * 1 for _ in range(6000)) + "]\nb: [*a, *a]\n",
    ],
)
def test_alias_bombs_end_in_a_message_at_once(text: str) -> None:
    start_s = time.process_time()
    with pytest.raises(YamlError, match="aliases"):
        parse_yaml(text)
    assert time.process_time() - start_s < 3


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: {c: *a}}\n", "&a [1, [2, *a]]"])
def test_aliases_of_what_holds_them_are_refused(text: str) -> None:
    with pytest.raises(YamlError, match="inside of what it names"):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["a: [1", "{[1]: 2}", "? {a: 1}\n: 2\n", "day: 2026-13-45\n", "[" * 2000, "a: b: c"])
def test_what_is_no_usable_yaml_is_one_error(text: str) -> None:
    with pytest.raises(YamlError):
        parse_yaml(text)
