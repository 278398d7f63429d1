"""The problems, what is asked of a network: one package each, which answers all questions about outputs.

Whoever needs to know something of an output asks the `Problem`; see base.py for what it answers. A user's own is a
class below `Problem`, or below one of those here, by its dotted path.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from torchloom.config import own
from torchloom.config.checks import UnknownNameError, one_of

if TYPE_CHECKING:
    from torchloom.problems.base import Problem


@cache
def problem_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def check_problem(name: str) -> None:
    """Raise UnknownNameError unless there is such a problem, or one of the user's own with that dotted path."""
    if not own.is_path(name):
        own.chosen(name, problem_names(), "a problem")
        return
    from torchloom.problems.base import Problem  # which commands that only look at the project are spared

    own.chosen(name, problem_names(), "a problem", parent=Problem)
    lacking = [each for each in ("reports", "tag", "answers") if not hasattr(own.find(name), each)]
    if lacking:
        raise UnknownNameError(name, f"says nothing of {', '.join(lacking)}, which a problem must")


def problem_of(name: str) -> Problem:
    """The problem of that name or dotted path; UnknownNameError, or InputError for a path that no parameters name."""
    if own.is_path(name):
        from torchloom.problems.base import Problem

        return own.find_class(name, Problem)(name)  # type: ignore[no-any-return]
    one_of(name, problem_names(), "a problem")
    return import_module(f"torchloom.problems.{name}").PROBLEM(name)  # type: ignore[no-any-return]
