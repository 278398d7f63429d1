"""The readers, which turn raw files into arrays and an Info: one module each.

A reader is a module with a function `preprocess(raw, config)` -> training, validation and test tensors and an info; the
files of its `raw` are brought by `download`. `config`, by its annotation, is the block `preprocess`, a subclass of
config.ReaderConfig. Where the files are the user's own, `find(config)` lists them, and `preprocess(found, config,
scratch)` also gets a folder to work in. `draw_sample(folder)` draws files of the same format for `sample://` places.
`takes(path, target)` says whether such files are there, and `propose(path, target)` then what a task on them could be;
where that is a task only for problems that must be named, these are `ONLY_FOR`. Where a problem is named that is among
its `SURE_OF`, they are such files, whatever they look like.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from torchloom.config import own
from torchloom.errors import InputError
from torchloom.system.words import extra

PACKAGE = "torchloom.data.readers"


def default_reader(data: str) -> str:
    """That of a data set which does not say: the one of its name, or else that of folders of pictures."""
    return data if data.isidentifier() and find_spec(f"{PACKAGE}.{data}") else "folder"


def reader_names() -> list[str]:
    import pkgutil

    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_reader(name: str) -> None:
    """Raise UnknownNameError unless there is such a reader, or one of the user's own with that dotted path."""
    own.chosen(name, reader_names(), "a reader, a module of torchloom.data.readers,")


@dataclass(frozen=True)
class Proposal:
    """A task on a user's own files, as far as they tell: `preprocess` is the block of the data set, `blocks` are those
    of the task but for `task`, `seen` is what there is to know of the data, a line each. `letters` are some of those in
    names and texts that figures would show."""

    preprocess: Mapping[str, Any]
    problem: str
    blocks: Mapping[str, Any]
    seen: Sequence[str]
    letters: str = ""


def propose(path: Path, target: str | None, problem: str | None = None, by: str | None = None) -> Proposal:
    """A task on the files at `path`, for the `problem`, and with the reader `by`, if one is named; InputError when no
    reader takes such."""
    looking = {name: known for name in reader_names() if hasattr(known := reader(name), "takes")}
    named = {
        name for name, known in looking.items() if problem in getattr(known, "ONLY_FOR", getattr(known, "SURE_OF", ()))
    }
    if by not in {None, *looking}:
        raise InputError(f"--reader {by}: is none of those that look at files: {', '.join(looking)}")
    for name, known in looking.items():
        sure = problem in getattr(known, "SURE_OF", ())
        asked = name in named if named else not hasattr(known, "ONLY_FOR")
        if name == by or (not by and (sure or (asked and known.takes(path, target)))):
            proposal: Proposal = known.propose(path, target)
            if problem not in {None, proposal.problem}:
                raise InputError(f"--problem {problem}: {path} looks like data for a {proposal.problem}")
            return replace(proposal, seen=[*proposal.seen, *_of_fonts(proposal)])
    known_to = ", ".join(sorted(named) or looking)
    raise InputError(f"{path}: no reader knows what to make of it. Those that look at files are: {known_to}")


def _of_fonts(proposal: Proposal) -> Iterator[str]:
    """What to do so that figures can show the names and texts, where no font has their letters."""
    letters = "".join([*proposal.seen, proposal.letters])
    if letters.isascii():
        return
    from torchloom.system.fonts import wanted

    if missing := wanted(letters):
        some = f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
        yield (
            f"no font here has {some}: figures call what has such letters class 1, say, or leave it out. Install a "
            f"font, or for Chinese, Japanese and Korean the extra: {extra('cjk')}"
        )


def reader(name: str) -> ModuleType:
    module: ModuleType = own.find(name) if own.is_path(name) else import_module(f"torchloom.data.readers.{name}")
    return module


def block_of(name: str) -> Any:
    """The model of the block `preprocess` that goes with the reader, as far as its annotations can be resolved."""
    try:
        return get_type_hints(reader(name).preprocess).get("config")
    except NameError:
        return None
