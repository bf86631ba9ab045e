"""Fills in templates; imports no PyTorch, for `leanface compare` should answer at once."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from leanface.report import tables


def render(template: str, **context: Any) -> str:
    """Fill in a template, named by its path below leanface/."""
    environment = Environment(
        loader=PackageLoader("leanface", "."),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = tables.number
    return environment.get_template(template).render(**context)
