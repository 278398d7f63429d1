"""Stages in which the problem decides more than its data do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any, get_type_hints

from torchloom.config import own
from torchloom.problems import problem_of
from torchloom.problems.base import Problem


@cache
def stage(function: Callable[..., Any], problem: Problem) -> Callable[..., Any]:
    """`function` with its argument `problem`: a function like others, whose code kedro-viz shows.

    Where it leaves open what the blocks `network`, `training` and `evaluation` are, they are the problem's own.
    """
    assert isinstance(function, FunctionType)
    made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    made.__kwdefaults__ = {**(function.__kwdefaults__ or {}), "problem": problem}
    made.__dict__.update(vars(function))
    types = {name: getattr(problem, name) for name in ("network", "training", "evaluation")}
    hints = get_type_hints(function)
    made.__annotations__ = {**hints, **{name: kind for name, kind in types.items() if hints.get(name) is Any}}
    made.__module__ = __name__
    made.__qualname__ = f"{function.__module__} {function.__qualname__} {problem.name}".replace(".", "/")
    return made


def __getattr__(name: str) -> Callable[..., Any]:
    """By its qualified name pickle finds a stage again, in another process too."""
    if name.count(" ") != 2:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function, problem = name.replace("/", ".").split(" ")
    own.name_also([problem])  # as whoever has pickled it has
    return stage(getattr(import_module(module), function), problem_of(problem))
