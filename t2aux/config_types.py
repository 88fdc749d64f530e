"""Checks the types of gin settings against the annotations of parameters."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import typeguard
from gin import config as gin_config

from t2aux.errors import SettingError


def check_references(name: str, bound: Any, hint: Any) -> None:
    """Checks that a parameter's references to classes have the right class and parentheses.

    A parameter that takes a function, such as `train.optimizer`, needs a reference without
    parentheses; one that takes an object, such as `train.data`, needs parentheses.

    Args:
        name: The name of the parameter, for messages.
        bound: The value in the configuration, with unresolved references.
        hint: The parameter's annotation.

    Raises:
        UserError: A reference is to another class, or its parentheses are missing or superfluous.
    """
    wanted, is_called = _wanted(hint)
    if not wanted:
        return
    for reference in _references(bound):
        made = inspect.unwrap(reference.configurable.wrapped)
        if not isinstance(made, type):
            made = _returned(made)
        if made is None:
            continue
        scope, _, selector = reference.scoped_selector.rpartition("/")
        written = "@" + "/".join(filter(None, [scope, selector.rpartition(".")[2]]))
        if not issubclass(made, wanted):
            kinds = " or ".join(kind.__name__ for kind in wanted)
            raise SettingError(
                f"{name} is {written}, which is not of the type {kinds}: name another one."
            )
        if is_called and not reference.evaluate:
            raise SettingError(f"{name} is {written}, without parentheses: write {written}().")
        if reference.evaluate and not is_called:
            raise SettingError(f"{name} is {written}(), with parentheses: write {written}.")


def check(name: str, value: Any, hint: Any) -> None:
    """Checks the value of a parameter.

    Args:
        name: The name of the parameter, for messages.
        value: The value.
        hint: The parameter's annotation.

    Raises:
        UserError: The value has another type.
    """
    allowed = members(hint)
    wrong = isinstance(value, bool) and bool not in allowed and typing.Any not in allowed
    if not wrong:
        try:
            typeguard.check_type(value, hint)
            return
        except typeguard.TypeCheckError:
            pass
    wanted = " or ".join(describe(member) for member in allowed)
    shown = f"@{value.__name__}" if isinstance(value, type) else repr(value)
    raise SettingError(f"{name} must be {wanted}, but is {shown} ({type(value).__name__}).")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or a single annotation itself."""
    return typing.get_args(hint) if _is_union(hint) else (hint,)


def describe(hint: Any) -> str:
    """Describes a type: "a whole number". The `members` of a union are described separately."""
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
    origin = typing.get_origin(hint) or hint
    if origin in (list, tuple, collections.abc.Sequence):
        inner = [a for a in typing.get_args(hint) if a is not Ellipsis]
        what = f" of {describe(inner[0])} each" if inner else ""
        return f"a list{what}" if origin is not tuple else f"a tuple{what}"
    if origin is collections.abc.Callable:
        return "a reference such as @name"
    if isinstance(hint, type):
        return f"a reference to a {hint.__name__}, such as @name()"
    return str(hint)


def _returned(function: Any) -> type | None:
    """The class that a function returns, or None if its annotation is not a class."""
    try:
        hint = typing.get_type_hints(function).get("return")
    except NameError:  # A user's module may import names only for type checkers.
        return None
    return hint if _is_class(hint) else None


def _wanted(hint: Any) -> tuple[tuple[type, ...], bool]:
    """The classes that a parameter takes references to, if any, and whether it takes objects."""
    allowed = [member for member in members(hint) if member is not type(None)]
    if len(allowed) == 1 and typing.get_args(allowed[0]):
        origin, args = str(typing.get_origin(allowed[0])), typing.get_args(allowed[0])
        if "Sequence" in origin:
            return _wanted(args[0])
        if "Callable" in origin:
            return _wanted(args[1])[0], False
    return (tuple(allowed) if all(map(_is_class, allowed)) else ()), True


def _is_class(hint: Any) -> bool:
    """Whether this is a class that a configurable can be a subclass of."""
    # typing.Any is a class since Python 3.11, list[int] is one in 3.10, and not every protocol
    # supports issubclass.
    if not isinstance(hint, type) or typing.get_origin(hint) is not None:
        return False
    general = hint.__module__ in ("builtins", "collections.abc", "typing")
    return not general and not getattr(hint, "_is_protocol", False)


def _references(bound: Any) -> Iterator[gin_config.ConfigurableReference]:
    """The references in a value, except those to macros and constants."""
    if isinstance(bound, (list, tuple)):
        for item in bound:
            yield from _references(item)
    is_reference = isinstance(bound, gin_config.ConfigurableReference)
    if is_reference and not bound.configurable.selector.startswith("gin."):
        yield bound
