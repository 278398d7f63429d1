"""Stages in which the problem decides more than its data do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any, get_type_hints

from torchloom.config import own
from torchloom.data.readers import block_of
from torchloom.problems import problem_of
from torchloom.problems.base import Problem


def stage(function: Callable[..., Any], problem: Problem, reader: str = "") -> Callable[..., Any]:
    """`function` with its argument `problem`: a function like others, whose code kedro-viz shows.

    Where it leaves open what the blocks `network`, `training` and `evaluation` are, they are the problem's own. With
    the name of a `reader`, it gets that, too, and its block `preparation` is that reader's.
    """
    return _made(function, problem, reader)


@cache
def _made(function: Callable[..., Any], problem: Problem, reader: str) -> Callable[..., Any]:
    assert isinstance(function, FunctionType)
    made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    bound = {"problem": problem, **({"reader": reader} if reader else {})}
    made.__kwdefaults__ = {**(function.__kwdefaults__ or {}), **bound}
    made.__dict__.update(vars(function))
    types = {name: getattr(problem, name) for name in ("network", "training", "evaluation")}
    types |= {"preparation": block_of(reader)} if reader else {}
    hints = get_type_hints(function)
    made.__annotations__ = {**hints, **{name: kind for name, kind in types.items() if hints.get(name) is Any}}
    made.__module__ = __name__
    made.__qualname__ = f"{function.__module__} {function.__qualname__} {problem.name} {reader}".replace(".", "/")
    return made


def __getattr__(name: str) -> Callable[..., Any]:
    """By its qualified name pickle finds a stage again, in another process too."""
    if name.count(" ") != 3:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function, problem, reader = name.replace("/", ".").split(" ")
    own.name_also(filter(None, [problem, reader]))  # as whoever has pickled it has
    return stage(getattr(import_module(module), function), problem_of(problem), reader)
