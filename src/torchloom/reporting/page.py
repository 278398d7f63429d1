"""Pages of HTML in one file: pictures are inside, nothing is fetched, no script runs, and what is shown is escaped."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 400  # characters of a text in a table's cell


@dataclass(frozen=True)
class Table:
    """Rows that all have the same columns; `bar` is a column of numbers that is drawn as well."""

    kind: ClassVar = "table"
    caption: str
    rows: list[dict[str, Any]]
    bar: str | None = None
    folded: bool = False

    @cached_property
    def columns(self) -> dict[str, bool]:
        """The columns, and whether they hold numbers."""
        names = list(self.rows[0]) if self.rows else []
        return {name: all(_is_number(row[name]) for row in self.rows) for name in names}

    def share(self, row: Mapping[str, Any]) -> float:
        """How long the row's bar is, in percent of the longest."""
        assert self.bar is not None
        longest = max(float(other[self.bar]) for other in self.rows)
        return 100 * float(row[self.bar]) / longest if longest else 0.0


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar = "facts"
    caption: str
    values: dict[str, Any]
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG file; the caption says what a reader who does not see it must know."""

    kind: ClassVar = "picture"
    caption: str
    png: bytes = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the file's header has them."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of the page; the others stand side by side."""
        return self.size[0] > 800 or self.size[0] > 1.6 * self.size[1]

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Text:
    """A text as it is, line breaks and all."""

    kind: ClassVar = "text"
    caption: str
    text: str


@dataclass(frozen=True)
class Section:
    title: str
    parts: list[Table | Facts | Picture | Text]

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def render(title: str, lead: str, figures: Mapping[str, Any], sections: Iterable[Section]) -> str:
    """The page: below its title a sentence, the most important figures by their names, and the sections with parts."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["shown"] = shown
    template = environment.from_string(read_template("templates/page.html"))
    return template.render(
        title=title, lead=lead, figures=figures, sections=[section for section in sections if section.parts]
    )


def read_template(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def shown(value: Any) -> str:
    """A value as people read it: four digits of a fraction, thousands apart, long texts cut off, blanks in quotes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        large = abs(value) >= 1000
        return f"{value:,.0f}" if large else f"{value:.4f}" if abs(value) >= 0.001 or value == 0 else f"{value:.3g}"
    if isinstance(value, list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False)
    text = repr(value) if str(value).isspace() else str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def png(figure: Figure) -> bytes:
    """A figure as the file that a Picture has."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def when(time: str) -> str:
    """An ISO time to the second, without its zone."""
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M:%S")


def _is_number(value: Any) -> bool:
    if isinstance(value, str):  # of a table that was read from CSV
        try:
            float(value or 0)
        except ValueError:
            return False
        return True
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
