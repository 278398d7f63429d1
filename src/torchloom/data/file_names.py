"""What the names of files say, by the parts that preprocess.names gives them."""

from __future__ import annotations

import re
from pathlib import Path

from torchloom.config import parts_of


def parts_in(name: str, names: str) -> dict[str, str] | None:
    """The parts of a file's name, by what `names` calls them; None where it does not fit, or in two ways."""
    short, long = (_pattern(names, any_text).fullmatch(Path(name).stem) for any_text in ("(.+?)", "(.+)"))
    if short is None or long is None or short.groups() != long.groups():
        return None
    return dict(zip(parts_of(names), short.groups(), strict=True))


def _pattern(names: str, any_text: str) -> re.Pattern[str]:
    return re.compile(any_text.join(map(re.escape, re.split(r"{.*?}", names))), re.DOTALL)
