"""Fill in templates. Imports no PyTorch, so that `leanface compare` starts at once."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from leanface.catalog import number


def render(template: str, package: str = "leanface", **context: Any) -> str:
    """Fill in a template, named by its path below the package."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(**context)
