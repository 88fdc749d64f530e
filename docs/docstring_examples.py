"""For the site: examples in docstrings are shown as code.

Google's style wants them in a section `Examples:`; here they stand where they explain something.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class DocstringExamples(griffe.Extension):
    """Fences each paragraph of a docstring that begins with `>>>`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of an object that was read."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"(?:^>>> .*\n?)(?:.+\n?)*",
                lambda match: f"```pycon\n{match[0].rstrip()}\n```\n",
                obj.docstring.value,
                flags=re.MULTILINE,
            )
