"""A user's own code by its dotted path, as `type:` in Kedro's catalog: `model: {name: my_project.networks.wide}`.

What the parameters name is imported when they are checked. What only a file names, such as a checkpoint that comes from
elsewhere, is not imported: else whoever made the file would choose what runs here.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torchloom.config.checks import UnknownNameError, one_of
from torchloom.errors import InputError

_named: set[str] = set()  # by the parameters of this process


def is_path(name: str) -> bool:
    return "." in name


def named() -> frozenset[str]:
    """The paths that the parameters have named so far."""
    return frozenset(_named)


def name_also(paths: Iterable[str]) -> None:
    """What the parameters of the process that started this one have named."""
    _named.update(paths)


def chosen(name: str, allowed: Collection[str], what: str, parent: type | None = None) -> None:
    """Raise UnknownNameError unless the parameters' `name` is one of `allowed`, or the path of something of one's own.

    With `parent` that must be a class below it.
    """
    if not is_path(name):
        if not allowed:
            raise UnknownNameError(name, f"must be {what.rstrip(',')}")
        one_of(name, allowed, f"{what} or the dotted path of one of yours")
        return
    found = _imported(name)
    if parent:
        _check_below(name, found, parent)
    _named.add(name)


def _check_below(name: str, found: Any, parent: type) -> None:
    if not (inspect.isclass(found) and issubclass(found, parent)):
        raise UnknownNameError(name, f"must lead to a class below {parent.__module__}.{parent.__qualname__}")


def find(path: str) -> Any:
    """What `path` leads to; InputError when no parameters name it."""
    return _trusted(path)


def find_class(path: str, parent: type) -> Any:
    """The same of a class below `parent`, which is one of ours; UnknownNameError when it leads to something else."""
    found = _trusted(path)
    _check_below(path, found, parent)
    return found


def resolve(name: str, module: Any) -> Any:
    """What a name stands for that has been `chosen`: something of the module, or what is at the dotted path."""
    return find(name) if is_path(name) else getattr(module, name)


@contextmanager
def running(key: str, name: str) -> Iterator[None]:
    """Whatever a user's own code raises is one InputError, with the line where it does; ours fails as it does.

    That there is no memory left is no mistake of the code.
    """
    try:
        yield
    except Exception as error:
        if not is_path(name) or isinstance(error, InputError | MemoryError) or "memory" in str(error):
            raise
        called = traceback.extract_tb(error.__traceback__)
        file = inspect.getsourcefile(inspect.unwrap(find(name)))
        lines = [f" in line {each.lineno} of {each.filename}" for each in called if each.filename == file]
        where = lines[-1] if lines else ""
        raise InputError(f"{key}: {name} fails{where}: {type(error).__name__}: {error}") from error


def _trusted(path: str) -> Any:
    if path not in _named:
        raise InputError(
            f"{path}: is code that a file names and these parameters do not, so it is not imported. If you trust it, "
            "name it in the parameters, as model.name, train.loss.name, preprocess.modality or wherever it belongs"
        )
    return _imported(path)


def _imported(path: str) -> Any:
    """The module of that name, or what a module calls so; UnknownNameError when it cannot be had."""
    parent, _, last = path.rpartition(".")
    for module in (path, parent):
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if f"{module}.".startswith(f"{error.name}."):
                continue
            raise UnknownNameError(path, f"cannot be imported: {error}") from error
        except (Exception, SystemExit) as error:  # whatever a user's module raises
            raise UnknownNameError(path, f"cannot be imported: {type(error).__name__}: {error}") from error
        if module == path:
            return found
        if hasattr(found, last):
            return getattr(found, last)
        near = get_close_matches(last, [known for known in dir(found) if not known.startswith("_")], 1)
        guess = f" (did you mean {parent}.{near[0]}?)" if near else ""
        raise UnknownNameError(path, f"leads nowhere: {parent} has no {last!r}{guess}")
    raise UnknownNameError(path, "leads nowhere: it must be a module, or something in one, that Python can import here")
