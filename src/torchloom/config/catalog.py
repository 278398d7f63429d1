"""The entries of catalog files: what is wrong with one, in one message that names it and its file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torchloom.config.checks import unknown

PACKAGES = ("kedro_datasets.", "kedro.io.", "")  # in which Kedro looks for a type


def mistakes_of_entries(
    entries: Mapping[str, Any], credentials: Callable[[], Collection[str]]
) -> Iterator[tuple[str, str]]:
    """Of each entry that can be none its name, and what is wrong; `credentials` has the names of theirs."""
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            yield name, f"given {entry!r}; must be a block with type: … and what that takes"
        elif "type" not in entry:
            yield (
                name,
                "has no type, such as type: pandas.CSVDataset. What other entries refer to begins with _",
            )
        else:
            for asked in _credentials_in(entry):
                if asked not in (known := credentials()):
                    yield name, f"credentials: given {asked!r}; {unknown(asked, known, 'entry of credentials.yml')}"


def _credentials_in(entry: Mapping[str, Any]) -> Iterator[str]:
    for key, value in entry.items():
        if key == "credentials" and isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _credentials_in(value)


def why_not_made(error: Exception, kind: Any) -> str:
    """What Kedro says of an entry of the type `kind` that cannot be made, in one line."""
    cause = str(error.__cause__ or error).strip()
    if "not found in" in cause or "No module named" in cause:
        near = _meant(str(kind))
        guess = f" (did you mean {near}?)" if near else ""
        return f"type: given {kind!r}; there is no such class{guess}, or what it needs is not installed"
    return cause.partition("\n")[0].rstrip(".")


def _meant(kind: str) -> str | None:
    package, _, last = kind.rpartition(".")
    for prefix in PACKAGES:
        try:
            module = import_module(f"{prefix}{package}".rstrip("."))
        except Exception:  # noqa: S112  # whatever a module of others raises
            continue
        if near := get_close_matches(last, getattr(module, "__all__", dir(module)), 1):
            return f"{package}.{near[0]}".lstrip(".")
    return None
