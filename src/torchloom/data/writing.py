"""How the texts in a user's tables write numbers and dates, where that is not as 1234.5 and 2024-01-31."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from torchloom.data.columns import is_gap

Decimal = Literal[".", ","]

NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}([. ]\d{3})+)(,\d+)?([eE][+-]?\d+)?|[+-]?,\d+")  # with a comma before decimals
CERTAIN = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+,\d+|0,\d+|\d+,(\d{1,2}|\d{4,}))")  # 1,234 could be either
SPACES = str.maketrans({"\u00a0": " ", "\u202f": " "})  # that stand between thousands
DAYS = [f"%{one}{mark}%{other}{mark}%{year}" for one, other in ("dm", "md") for mark in "./-" for year in "Yy"]
DAYS += ["%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"]
TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p")


class Writing(BaseModel):
    """Which mark stands `decimal` before the decimals of numbers, and the form of dates beside ISO 8601, as strptime
    takes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    decimal: Decimal = "."
    date_format: str | None = None

    def plain(self, cell: Any) -> Any:
        """The cell; a text that is such a number or date is written as 1234.5, or as 2024-01-31T18:30:00.

        To be done once: of 1,234 it makes 1.234, and of that 1234.
        """
        if not isinstance(cell, str):
            return cell
        text = cell.strip()
        if self.decimal == "," and NUMBER.fullmatch(spaced := text.translate(SPACES)):
            return spaced.replace(".", "").replace(" ", "").replace(",", ".")
        return _as_iso(text, self.date_format) or cell if self.date_format else cell

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.plain(cell) for name, cell in row.items()}


USUAL = Writing()


def _as_iso(text: str, form: str) -> str | None:
    try:
        return datetime.strptime(text, form).isoformat()
    except ValueError:
        return None


# ---- what there is, for a task that is proposed ---------------------------------------------------------------------


def as_said(writing: Writing) -> dict[str, str]:
    """The keys of a block `preprocess` that say it."""
    return writing.model_dump(exclude_defaults=True)


def writing_in(rows: Sequence[Mapping[str, Any]], gaps: Collection[str]) -> Writing:
    """How these rows write numbers and dates, where that is certain."""
    names = rows[0] if rows else ()
    given = [[row[name] for row in rows if not is_gap(row.get(name), gaps)] for name in names]
    texts = [[cell.strip() for cell in cells if isinstance(cell, str)] for cells in given]
    texts = [cells for cells in texts if cells]
    commas = any(all(map(_with_comma, cells)) and any(map(CERTAIN.fullmatch, cells)) for cells in texts)
    points = any(all(map(_with_point, cells)) and any("." in cell for cell in cells) for cells in texts)
    forms = {form for cells in texts if len(found := forms_of(cells)) == 1 for form in found}
    return Writing(decimal="," if commas and not points else ".", date_format=forms.pop() if len(forms) == 1 else None)


def forms_of(cells: Sequence[str]) -> list[str]:
    """The forms that all cells have; none where these are as ISO 8601 writes them."""
    forms = [day + time for day, time in product(DAYS, TIMES)]
    for cell in dict.fromkeys(cells):
        forms = [form for form in forms if _as_iso(cell, form)]
        if not forms:
            break
    return forms


def _with_comma(cell: str) -> bool:
    return NUMBER.fullmatch(cell.translate(SPACES)) is not None


def _with_point(cell: str) -> bool:
    try:
        return float(cell) == float(cell)
    except ValueError:
        return False
