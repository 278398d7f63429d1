"""Numbers and lists as sentences have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class Said(str):
    """What is said of a sample, and whether it is right."""

    right: bool

    def __new__(cls, text: str, right: bool) -> Said:
        said = super().__new__(cls, text)
        said.right = right
        return said


LARGE = 1e15  # of whole numbers, whose digits are no longer written out


def counted(count: int, noun: str) -> str:
    """So many of what the noun, in the singular, stands for: 1 epoch, 2,000 batches, 0 entries."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def are(count: int, noun: str) -> str:
    """The same with what a sentence goes on with: 1 row is, 2 rows are."""
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'}"


def plural(noun: str) -> str:
    """Of a regular noun, or of several words that end in one."""
    if noun.endswith(("s", "x", "tch", "sh")):  # an epoch is no batch
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def listed(names: Sequence[str], most: int = 10) -> str:
    """The names in a row; of many the first, and how many there are besides."""
    if len(names) <= most + 1:  # one more name is no longer than what would stand for it
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} others"


def meant(name: str, known: Iterable[str]) -> str:
    """What is likely meant by a name that is none of those that are known, to go on with in a message."""
    near = get_close_matches(name, list(known), 1) or [each for each in known if each.lower() == name.lower()]
    return f" (did you mean {near[0]!r}?)" if near else ""


def extra(name: str) -> str:
    """How to install an extra of this package, in a clone of the project and elsewhere."""
    return f"uv sync --extra {name}, or where torchloom is installed: pip install 'torchloom[{name}]'"


def directed(ratio: float, more: str, less: str) -> tuple[float, str]:
    """A ratio as a number of 1 or more, and the word for its direction: 0.5, smaller or larger: 2, larger."""
    return (ratio, more) if ratio >= 1 else (1 / ratio, less)


def times(ratio: float, more: str, less: str, same: str) -> str:
    """The same in words: 2.00 times larger; `same` where that would be 1.00 times."""
    number, word = directed(ratio, more, less)
    return same if f"{number:.2f}" == "1.00" else f"{number:.2f} times {word}"


def significant(value: float) -> float:
    """To the 7 significant digits that float32 has; a whole number is one, 48 and not 48.0."""
    rounded = float(f"{value:.7g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < LARGE else rounded
