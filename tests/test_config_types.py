"""References to classes, checked by the type of the parameter that takes them."""

import typing
from collections.abc import Callable, Sequence

import pytest
from gin import config as gin_config

import t2aux.training.train  # noqa: F401  Its configurables.
from t2aux import config_types
from t2aux.errors import SettingError
from t2aux.model.core import Core


class _Protocol(typing.Protocol):
    x: int


def _reference(call: bool) -> gin_config.ConfigurableReference:
    return gin_config.ConfigurableReference("LSTM", call)


# A configurable of one's own may have any annotation.
@pytest.mark.parametrize("call", [False, True])
@pytest.mark.parametrize(
    "hint",
    [
        typing.Any,
        Callable,
        Callable | None,
        Callable[..., typing.Any],
        Callable[..., None],
        typing.Callable,
        typing.Callable[..., typing.Any] | None,
        Sequence,
        Sequence[typing.Any],
        Sequence[int],
        list,
        list[typing.Any],
        dict,
        type,
        type[Core],
        _Protocol,
        typing.TypeVar("T"),
        typing.Literal["a"],
    ],
    ids=str,
)
def test_what_names_no_class_takes_every_reference(hint, call):
    config_types.check_references("f.x", _reference(call), hint)
    config_types.check_references("f.x", [_reference(call)], hint)


@pytest.mark.parametrize(
    ("hint", "call"),
    [
        (Core, True),
        (Core | None, True),
        (Sequence[Core], True),
        (Callable[..., Core], False),
        (Callable[..., Core] | None, False),
    ],
    ids=str,
)
def test_a_class_takes_its_subclasses_and_no_others(hint, call):
    config_types.check_references("f.x", [_reference(call)], hint)
    with pytest.raises(SettingError, match=r"f\.x .*@LSTM.*parentheses"):
        config_types.check_references("f.x", [_reference(not call)], hint)
    other = gin_config.ConfigurableReference("Classifier", call)
    with pytest.raises(SettingError, match=r"f\.x .*@Classifier, .* Core: "):
        config_types.check_references("f.x", [other], hint)


def test_macros_and_scopes():
    macro = gin_config.ConfigurableReference("NAME/gin.macro", True)
    config_types.check_references("f.x", macro, Callable[..., Core])
    scoped = gin_config.ConfigurableReference("a/LSTM", False)
    config_types.check_references("f.x", scoped, Callable[..., Core])
    with pytest.raises(SettingError, match=r"f\.x .*@a/LSTM, .*@a/LSTM\(\)"):
        config_types.check_references("f.x", scoped, Core)
