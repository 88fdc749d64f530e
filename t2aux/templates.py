"""Rendering of Jinja2 templates."""

from __future__ import annotations

import pathlib

import jinja2


def render(path: pathlib.Path, **values: object) -> str:
    """Renders a template.

    Args:
        path: The template's file.
        **values: The variables of the template; a missing one is an error.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(path.read_text(encoding="utf-8")).render(**values)
