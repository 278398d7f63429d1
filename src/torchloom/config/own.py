"""A user's own code by its dotted path, as `type:` in Kedro's catalog: `model: {name: my_project.networks.wide}`.

What the parameters name is imported when they are checked. What only a file names, such as a checkpoint that comes from
elsewhere, is not imported: else whoever made the file would choose what runs here.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from torchloom.config.checks import UnknownNameError, one_of
from torchloom.errors import InputError

_named: set[str] = set()  # by the parameters of this process


def is_path(name: str) -> bool:
    return "." in name and "/" not in name  # timm/resnet50.a1_in1k is a name of a library


def named() -> frozenset[str]:
    """The paths that the parameters have named so far."""
    return frozenset(_named)


def name_also(names: Iterable[str]) -> None:
    """What the parameters of the process that started this one have named; of these the paths."""
    _named.update(filter(is_path, names))


def chosen(name: str, allowed: Collection[str], what: str, parent: type | None = None) -> None:
    """Raise UnknownNameError unless the parameters' `name` is one of `allowed`, or the path of something of one's own.

    With `parent` that must be a class below it.
    """
    if not is_path(name):
        if not allowed:
            raise UnknownNameError(name, f"must be {what.rstrip(',')}")
        one_of(name, allowed, f"{what} or the dotted path of one of yours")
        return
    reached(name, parent)
    _named.add(name)


def reached(path: str, parent: type | None = None) -> Any:
    """What is at the dotted path, whoever names it; UnknownNameError unless it is there, and with `parent` below it."""
    found = _imported(path)
    if parent:
        _check_below(path, found, parent)
    return found


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


# ---- when it fails -------------------------------------------------------------------------------------------------


@contextmanager
def running(key: str, name: str) -> Iterator[None]:
    """Whatever a user's own code raises is one InputError, with the lines where it does; ours fails as it does."""
    try:
        yield
    except Exception as error:
        if not is_path(name) or _is_no_mistake(error):
            raise
        raise _failure(key, name, error) from error


def explained(error: BaseException, stage: str, used: Iterable[str] = ()) -> InputError | None:
    """What a stage raises as one InputError, where the user's own code has raised it; none where it is another's
    mistake.

    That there is no gradient is told of those of the `used` names that are the user's own.
    """
    if _is_no_mistake(error):
        return None
    if frames := _frames(error):
        return _failure(stage, _blamed(frames), error)
    through = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    if "backward" in through and (own := sorted(_named.intersection(used))):
        return _failure(f"{stage}: the gradient of what is yours", ", ".join(own), error)
    return None


def _is_no_mistake(error: BaseException) -> bool:
    """Whether it is one that is told already; that there is no memory left is no mistake of the code."""
    return isinstance(error, InputError | MemoryError) or "memory" in str(error)


def _failure(where: str, name: str, error: BaseException) -> InputError:
    """The message, with the line that fails, and below it how it was come by, as far as that is the user's own."""
    frames = _frames(error)
    lines = [f"line {line} of {frame.f_code.co_filename}" for frame, line in frames]
    calls = [f"\n  {at}, in {frame.f_code.co_qualname}" for at, (frame, _) in zip(lines, frames, strict=True)]
    at = f" in {lines[-1]}" if lines else ""
    way = "".join(calls) if len(calls) > 1 else ""
    return InputError(f"{where}: {name} fails{at}: {type(error).__name__}: {error}{way}")


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The calls of functions in files of the user's own, each with its line, the innermost last."""
    roots = [root for path in _named for root in _roots(path)]
    found = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in found if _is_in(frame.f_code.co_filename, roots)]


def _is_in(file: str, roots: Iterable[Path]) -> bool:
    return any(Path(file).is_relative_to(root) for root in roots)


def _roots(path: str) -> Iterator[Path]:
    """The folders of the package that has it, or the file where it is a module alone."""
    top = sys.modules.get(path.partition(".")[0])
    places = getattr(top, "__path__", None) or [getattr(top, "__file__", None)]
    yield from (Path(place) for place in places if place and top is not sys.modules["torchloom"])


def _blamed(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Which of the named paths it is that has been called, or else the module."""
    for frame, _ in frames:
        owner = frame.f_locals.get("self")
        for path in sorted(_named):
            thing = inspect.unwrap(find(path))
            if thing is type(owner) or getattr(thing, "__code__", None) is frame.f_code:
                return path
        modules = [path for path in sorted(_named) if path.rpartition(".")[0] == frame.f_globals.get("__name__")]
        if len(modules) == 1:
            return modules[0]
    return str(frame.f_globals.get("__name__"))


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
