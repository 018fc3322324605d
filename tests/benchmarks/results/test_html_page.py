"""Pages from templates: values stay text, a forgotten value is an error, both pages share one base."""

from pathlib import Path

import jinja2
import pytest
from markupsafe import Markup

from benchmarks.results.html_page import render

SOURCES = Path(__file__).resolve().parents[3] / "benchmarks"
TEMPLATES = sorted(SOURCES.rglob("*.html.j2"))
PAGE = """{% extends "base.html.j2" %}{% from "parts.html.j2" import table, facts %}
{% block title %}{{ name }}{% endblock %}
{% block body %}{{ chart }}{{ table([name], [[name]]) }}{{ facts([(name, name)]) }}{% endblock %}"""


def test_text_stays_text_everywhere_and_charts_stay_charts(tmp_path: Path) -> None:
    (tmp_path / "page.html.j2").write_text(PAGE)
    name = "<script>alert('1')</script>"
    page = render(tmp_path / "page.html.j2", name=name, chart=Markup("<div>a chart</div>"))
    assert "<script>" not in page
    # Title, head and cell of the table, name and value of the facts.
    assert page.count("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;") == 5
    assert "<div>a chart</div>" in page
    assert page.startswith("<!doctype html>\n<html")
    assert "font: 15px/1.5 system-ui" in page  # the style stands inside


def test_a_value_that_is_not_given_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.html.j2").write_text(PAGE)
    with pytest.raises(jinja2.UndefinedError, match="chart"):
        render(tmp_path / "page.html.j2", name="x")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_escape_everything_and_load_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "safe" not in text
    assert "autoescape" not in text
    assert "http" not in text


def test_there_are_two_pages_on_one_base() -> None:
    extending = [path.name for path in TEMPLATES if '{% extends "base.html.j2" %}' in path.read_text(encoding="utf-8")]
    assert sorted(extending) == ["profile.html.j2", "report.html.j2"]
