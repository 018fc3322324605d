"""HTML pages from Jinja2 templates: values in, one document out that needs no network and no other file.

A page's template (`*.html.j2`) lies beside the code that fills it and extends `templates/base.html.j2`, which brings
style and layout. Every value is escaped, but for `markupsafe.Markup`: charts, escaped where they are made.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined

from benchmarks.results.record import Environment

__all__ = ["environment_facts", "render"]

SHARED = Path(__file__).resolve().parent / "templates"


def render(template: Path, **values: Any) -> str:
    """Return the page. Raises jinja2.UndefinedError where the template names a value that is not given."""
    templates = Templates(
        loader=FileSystemLoader([template.parent, SHARED]),
        # Names come from YAML, from folders and from error messages: none of them may become markup.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template(template.name).render(values)


def environment_facts(place: Environment) -> list[tuple[str, str]]:
    """Return code, machine and versions as rows of a table."""
    return [
        ("commit", f"{place.commit}{' with uncommitted changes' if place.is_dirty else ''}"),
        ("machine", f"{place.machine}; {place.cpu_name}, {place.num_cores} cores; GPU: {place.gpu_name}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in place.versions.items())),
    ]
