"""The types of gin settings: what a parameter's annotation allows, in words."""

from __future__ import annotations

import types
import typing
from typing import Any

import typeguard

from t2aux.errors import UserError


def check(name: str, value: Any, hint: Any, reference: str | None = None) -> None:
    """Checks the value of a parameter.

    Args:
        name: The parameter's, for the message.
        value: Its value.
        hint: The parameter's annotation.
        reference: How the configuration gives the value, if by a reference such as "@mnist".

    Raises:
        UserError: The value is of another type.
    """
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    wrong = isinstance(value, bool) and bool not in members and typing.Any not in members
    if not wrong:
        try:
            typeguard.check_type(value, hint)
            return
        except typeguard.TypeCheckError:
            pass
    if isinstance(value, type) and any(_is_class_of(value, member) for member in members):
        called = f"@{value.__name__}" if reference is None else reference
        raise UserError(f"{name} is {called}, without parentheses: write {called}().")
    wanted = " or ".join(_describe(member) for member in members)
    raise UserError(f"{name} must be {wanted}, but is {value!r} ({type(value).__name__}).")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _describe(hint: Any) -> str:
    plain = {
        int: "a whole number",
        float: "a number",
        str: "a text in quotes",
        bool: "True or False",
        type(None): "None",
    }
    if hint in plain:
        return plain[hint]
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (list, tuple) or "Sequence" in str(hint):
        inner = [a for a in typing.get_args(hint) if a is not Ellipsis]
        what = f" of {_describe(inner[0])} each" if inner and inner[0] in plain else ""
        return f"a list{what}" if typing.get_origin(hint) is not tuple else f"a tuple{what}"
    if "Callable" in str(hint):
        return "a reference such as @name"
    if isinstance(hint, type):
        return f"a reference to a {hint.__name__}, such as @name()"
    return str(hint)


def _is_class_of(value: type, member: Any) -> bool:
    return isinstance(member, type) and issubclass(value, member)
