"""A small text data set that comes with Python: docstrings of its standard library.

They are the documents of the smoke budget; the class is the package of a text. They are real text
and need no download.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import pathlib
import types

from t2aux import files

_PACKAGES = ("argparse", "email.message", "logging", "subprocess", "tarfile", "ipaddress")


def write(folder: pathlib.Path) -> None:
    """Writes train.csv and test.csv of class and text, and classes.txt, to an existing folder.

    Every fifth text is in the test set.

    Raises:
        UserError: A file can't be written.
    """
    splits: dict[str, list[tuple[int, str]]] = {"train": [], "test": []}
    for label, name in enumerate(_PACKAGES, start=1):
        for i, text in enumerate(_docstrings(importlib.import_module(name))):
            splits["train" if i % 5 else "test"].append((label, text))
    for split, rows in splits.items():
        with files.atomic_write(folder / f"{split}.csv") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    with files.atomic_write(folder / "classes.txt") as file:
        file.writelines(f"{name}\n" for name in _PACKAGES)


def _docstrings(module: types.ModuleType) -> list[str]:
    texts = {inspect.getdoc(module) or ""}
    for _, value in inspect.getmembers(module):
        if inspect.isclass(value) and value.__module__ == module.__name__:
            texts.add(inspect.getdoc(value) or "")
            texts |= {inspect.getdoc(member) or "" for member in vars(value).values()}
        elif inspect.isroutine(value):
            texts.add(inspect.getdoc(value) or "")
    return sorted(" ".join(text.split()) for text in texts if len(text) >= 40)
