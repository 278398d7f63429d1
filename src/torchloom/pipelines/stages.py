"""Stages in which the problem decides more than its data do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any, get_type_hints

from torchloom.config import own
from torchloom.problems import Problem, problem_of


def stage(function: Callable[..., Any], problem: Problem) -> Callable[..., Any]:
    """`function` with its argument `problem`: a function like others, whose code kedro-viz shows.

    Where it leaves open what the blocks `network`, `training` and `evaluation` are, they are the problem's own.
    """
    return _made(f"{function.__module__} {function.__qualname__} {problem.name}")


@cache
def _made(name: str) -> Callable[..., Any]:
    module, function_name, problem_name = name.split(" ")
    function, problem = getattr(import_module(module), function_name), problem_of(problem_name)
    made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    made.__kwdefaults__ = {**(function.__kwdefaults__ or {}), "problem": problem}
    made.__dict__.update(vars(function))
    types = {name: getattr(problem, name) for name in ("network", "training", "evaluation")}
    hints = get_type_hints(function)
    made.__annotations__ = {**hints, **{name: kind for name, kind in types.items() if hints.get(name) is Any}}
    made.__module__, made.__qualname__ = __name__, name.replace(".", "/")
    return made


def __getattr__(name: str) -> Callable[..., Any]:
    """By such a name pickle finds a stage again, in another process too."""
    if name.count(" ") != 2:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path = name.replace("/", ".")
    own.name_also([path.split(" ")[2]])  # as whoever has pickled it has
    return _made(path)
