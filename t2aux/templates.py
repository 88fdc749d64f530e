"""Texts that are written from Jinja2 templates."""

from __future__ import annotations

import pathlib

import jinja2


def render(path: pathlib.Path, **values: object) -> str:
    """Fills in a template.

    Args:
        path: The template's file.
        **values: What it names; a name that is missing is an error.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(path.read_text(encoding="utf-8")).render(**values)
