"""The files of configuration: why one cannot be read, which of them count for nothing, and what `globals.yml` says."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import MarkedYAMLError, YAMLError

from torchloom.config.checks import unknown

SUFFIXES = {".yml", ".yaml", ".json"}
OURS = ("data", "results")  # of globals.yml
VARIABLE = re.compile(r"\$\{?\w|%\w+%")
WORDS = {  # of what a parser of YAML says, in those of who writes it
    r"found character '\\t' that cannot start any token": "is indented by a tab; YAML wants spaces",
    r"but found another document": "begins a second document (---); there can be one in a file",
    r"found duplicate key (.*)": r"gives the key \1 once more; join the two",
}


def mistake(path: Path) -> str | None:
    """Why no configuration can be read from `path`, if none can, without quoting values that it holds."""
    try:
        config = OmegaConf.load(io.StringIO(path.read_bytes().decode("utf-8")))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"{path}: line {line} is not in UTF-8, in which YAML is written. Save the file as UTF-8"
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return f"{path}: line {line} {_in_words(error.problem or 'is no YAML')}"
    except (YAMLError, RecursionError):
        return f"{path}: is no YAML"
    except OSError as error:
        return f"{path}: {error.strerror or 'must be a mapping, with lines such as name: value'}"
    return (
        None if isinstance(config, DictConfig) else f"{path}: is a list; must be a mapping, with lines such as name: …"
    )


def _in_words(problem: str) -> str:
    for pattern, words in WORDS.items():
        if re.fullmatch(pattern, problem):
            return re.sub(pattern, words, problem)
    return f"is no YAML: {problem}"


def unread(folder: Path, read: Iterable[Path]) -> list[Path]:
    """The files of configuration below `folder` that are none of those that are read, nor settings of the log."""
    known = {path.resolve() for path in read}
    found = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    hidden = {path for path in found if any(part.startswith(".") for part in path.relative_to(folder).parts)}
    return [path for path in found if path.resolve() not in known | hidden and not path.name.startswith("logging")]


def with_homes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `globals.yml`, with the user's folder in place of ~."""
    return {key: os.path.expanduser(value) if isinstance(value, str) else value for key, value in settings.items()}


def mistakes_of_globals(settings: Mapping[str, Any], conf: Path) -> Iterator[str]:
    """A line for each setting of `globals.yml` that nothing below `conf` reads, or that can be no folder."""
    for key, value in settings.items():
        if key not in OURS:
            if not _is_read(key, conf):
                yield f"{key}: {unknown(key, OURS)}, and what a file of configuration reads as ${{globals:{key}}}"
        elif not isinstance(value, str) or not value.strip():
            yield f"{key}: given {value!r}; must be a folder, or an address"
        elif VARIABLE.search(value):
            yield f"{key}: given {value!r}; variables of the environment are not read here. Write the folder out"


def _is_read(key: str, conf: Path) -> bool:
    asked = re.compile(rf"\bglobals:\s*{re.escape(str(key))}\b")
    files = (path for path in conf.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return any(asked.search(path.read_text(encoding="utf-8", errors="replace")) for path in files)
