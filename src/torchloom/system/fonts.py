"""Which characters can be drawn: matplotlib's own font has no Chinese, Japanese, Thai … among them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from unicodedata import category

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from torchloom.system.words import counted, extra

logger = logging.getLogger(__name__)

OTHERS = re.compile(  # families with letters beyond Latin, Greek and Cyrillic, as systems have them
    "CJK|Noto (Sans|Naskh)|Source Han Sans|WenQuanYi|PingFang|Hiragino Sans|Heiti|YaHei|SimHei|SimSun|Meiryo|Yu Gothic|"
    "Malgun|Nanum|Droid Sans Fallback|Arial|Tahoma|Segoe UI|Geeza Pro|Amiri|Kacst|Loma|Garuda|Waree|Thonburi|Sarabun|"
    "Leelawadee|Lohit|Gargi|Kohinoor|Devanagari|Mangal|Nirmala|FreeSans|FreeSerif|Unifont|Noto Serif|Noto Emoji|"
    "Symbola|IPA|Takao|VL Gothic|UMing|UKai|Baekmuk|UnDotum|Tlwg|Norasi|Khmer OS"
)
EXTRA, FONT = "mplfonts", "fonts/NotoSansCJKsc-Regular.otf"  # the package of the extra cjk, and what is taken of it
LEFT_OUT = "…"  # in place of a few letters that no font has
READ = 10_000  # letters of a text that are looked at

_called: ContextVar[Mapping[str, str]] = ContextVar("_called", default=MappingProxyType({}))  # what names are called


@cache
def drawable() -> frozenset[int]:
    """The code points that figures can show; matplotlib is told of all fonts that are installed for them."""
    package = find_spec(EXTRA)
    for folder in (package.submodule_search_locations or []) if package else []:
        fontManager.addfont(str(Path(folder, FONT)))
    others = sorted({font.name for font in fontManager.ttflist if OTHERS.search(font.name)})
    rcParams["font.family"] = [*rcParams["font.family"], *others]  # taken one after another, for each character
    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in rcParams["font.family"]]
    return frozenset(point for font in fonts for point in font.get_charmap())


def lacking(text: str) -> str:
    """The letters of a text that no font here has, each once."""
    if text.isascii():
        return ""
    known = drawable()
    return "".join(letter for letter in dict.fromkeys(text) if ord(letter) not in known and not letter.isspace())


def wanted(text: str) -> str:
    """Those of them that a font could have: not such as are private, or control something."""
    return "".join(letter for letter in lacking(text) if not category(letter).startswith("C"))


def stand_ins(named: Iterable[tuple[str, Sequence[str]]]) -> dict[str, str]:
    """What names with letters that no font has are called in figures: by what they are names of, and their numbers.

    The second of the classes that are `named`, ("class", names), is class 2.
    """
    return {name: f"{what} {number}" for what, names in named for number, name in enumerate(names, 1) if lacking(name)}


@contextmanager
def naming(named: Iterable[tuple[str, Sequence[str]]]) -> Iterator[None]:
    """Within it, figures have the `stand_ins` in place of the names that cannot be drawn."""
    token = _called.set(stand_ins(named))
    try:
        yield
    finally:
        _called.reset(token)


@cache
def _warn() -> None:
    logger.warning(
        "figures call what has letters that no installed font has by its kind and number, such as class 1, and leave "
        "other such letters out (%s). Install a font for them, or for Chinese, Japanese and Korean the extra: %s",
        *(LEFT_OUT, extra("cjk")),
    )


def shown(text: str, free: bool = False) -> str:
    """The text as figures can show it, without what cannot be drawn, which is told once.

    In it, names have their stand-ins, unless it is a `free` text, in which they are nothing but letters. What is then
    left of letters that no font has is left out; where that is most of a text, it says so instead.
    """
    if text.isascii():
        return text
    made = text[:READ] if free else _with_stand_ins(text[:READ])
    missing = lacking(made)
    if wanted(made) or (not free and made != text[:READ]):
        _warn()
    if illegible(made):
        return f"({counted(len(text), 'letter')} that no font here has)"
    return re.sub(f"[{re.escape(missing)}]+", LEFT_OUT, made) if missing else made


def illegible(text: str) -> bool:
    """Whether no font has most of the letters of a text."""
    missing = frozenset(lacking(text[:READ]))
    return 2 * sum(letter in missing for letter in text[:READ]) > sum(not letter.isspace() for letter in text[:READ])


def _with_stand_ins(text: str) -> str:
    for name in sorted(_called.get(), key=len, reverse=True):  # of which a shorter one may be a part
        if name in text:
            text = re.sub(rf"(?<![^\x00-\x7f]){re.escape(name)}(?![^\x00-\x7f])", _called.get()[name], text)
    return text
