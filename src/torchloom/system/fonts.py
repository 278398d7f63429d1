"""Which characters can be drawn: matplotlib's own font has no Chinese, Japanese, Thai … among them."""

from __future__ import annotations

import logging
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from torchloom.system.words import extra

logger = logging.getLogger(__name__)

OTHERS = re.compile(  # families with letters beyond Latin, Greek and Cyrillic, as systems have them
    "CJK|Noto (Sans|Naskh)|Source Han Sans|WenQuanYi|PingFang|Hiragino Sans|Heiti|YaHei|SimHei|SimSun|Meiryo|Yu Gothic|"
    "Malgun|Nanum|Droid Sans Fallback|Arial|Tahoma|Segoe UI|Geeza Pro|Amiri|Kacst|Loma|Garuda|Waree|Thonburi|Sarabun|"
    "Leelawadee|Lohit|Gargi|Kohinoor|Devanagari|Mangal|Nirmala|FreeSans|FreeSerif|Unifont"
)
EXTRA, FONT = "mplfonts", "fonts/NotoSansCJKsc-Regular.otf"  # the package of the extra cjk, and what is taken of it
MISSING = "\ufffd"  # in place of what no font has


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


@cache
def _warn() -> None:
    logger.warning(
        "figures show %s in place of letters that no installed font has. Install a font for them, or for Chinese, "
        "Japanese and Korean the extra: %s",
        *(MISSING, extra("cjk")),
    )


def shown(text: str) -> str:
    """The text without what cannot be drawn, which is told once: matplotlib would warn of each, and draw a box."""
    known = drawable()
    made = "".join(letter if ord(letter) in known or letter.isspace() else MISSING for letter in text)
    if made != text:
        _warn()
    return made
