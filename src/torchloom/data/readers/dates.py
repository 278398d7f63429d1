"""Dates as people write them, in English, and as ISO 8601 has them: "Sunday, the 3rd of May 1987" and 1987-05-03.

They are drawn by the project: pairs of texts in a small, real problem, as in many tutorials on translation by networks.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import DatesPreprocessConfig, PairsPreprocessConfig
from torchloom.data.download import write_sums
from torchloom.data.readers.pairs import pairs
from torchloom.data.rows import read_rows
from torchloom.datasets.raw import RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import telling

SOURCE, TARGET = "date", "iso"


def preprocess(raw: RawFiles, config: DatesPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Raw tables -> training, validation and test tensors and what is known about them: as of a user's own pairs."""
    read: dict[str, list[Any]] = {"validation": []}
    for split in ("train", "test"):
        with telling(raw.path(f"{split}.csv")):
            read[split] = read_rows(raw.path(f"{split}.csv"))
    fractions: dict[str, Any] = {"validation_fraction": config.validation_fraction, "seed": config.seed}
    of_pairs = PairsPreprocessConfig(files=str(raw.path("train.csv").parent), text=SOURCE, target=TARGET, **fractions)
    return pairs(read, of_pairs if config.fold is None else of_pairs.of_fold(config.fold))


# ---- dates of our own ----------------------------------------------------------------------------------------------

MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ONES = [
    "", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
IRREGULAR = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
             "twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth"}  # fmt: skip
FIRST, LAST = date(1930, 1, 1).toordinal(), date(2029, 12, 31).toordinal()  # of two digits no two years have the same
TESTED = 11  # each day of so many is to test, and in no form to train
FORMS = [
    "{day} {month} {year}", "the {nth} of {month} {year}", "{month} {day}, {year}", "{month} the {nth}, {year}",
    "{weekday}, {day} {month} {year}", "{weekday} the {nth} of {month}, {year}", "{day} {short} '{two}",
    "{day}.{roman}.{year}", "{day}/{number}/{year}",
    "{day:02}.{number:02}.{two}", "{short} {nth} {year}", "{year}, {month} {day}",
    "the {spoken} of {month} {years}", "{month} the {spoken}, {years}", "{weekday}, {short} {day} '{two}",
]  # fmt: skip


def draw_sample(folder: Path, train: int = 10_000, test: int = 1000, seed: int = 0) -> None:
    """Write dates of our own as train.csv and test.csv, and a SHA256SUMS, into `folder`."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        rows = dict(_pairs(count, split == "test", generator))
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([(SOURCE, TARGET), *rows.items()])
    write_sums(folder)


def _pairs(count: int, tested: bool, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
    """So many different texts, each with its date."""
    known: set[str] = set()
    while len(known) < count:
        number = int(generator.integers(FIRST, LAST + 1))
        text = _written(date.fromordinal(number), FORMS[generator.integers(len(FORMS))], generator)
        if (number % TESTED == 0) is tested and text not in known:
            known.add(text)
            yield text, date.fromordinal(number).isoformat()


def _written(day: date, form: str, generator: np.random.Generator) -> str:
    month = MONTHS[day.month - 1]
    text = form.format(
        day=day.day,
        nth=f"{day.day}{_ending(day.day)}",
        spoken=_ordinal(day.day),
        month=month,
        short=month[:3],
        number=day.month,
        roman=ROMAN[day.month - 1],
        year=day.year,
        two=f"{day.year % 100:02}",
        years=_spoken_year(day.year),
        weekday=DAYS[day.weekday()],
    )
    return text.lower() if generator.random() < 0.2 else text


def _ending(number: int) -> str:
    return "th" if 10 < number < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _spoken(number: int) -> str:
    """A number below 100 in words."""
    tens, ones = divmod(number, 10)
    return ONES[number] if number < 20 else "-".join(filter(None, [TENS[tens], ONES[ones]]))


def _ordinal(number: int) -> str:
    *before, last = _spoken(number).split("-")
    return "-".join([*before, IRREGULAR.get(last, f"{last}th")])


def _spoken_year(year: int) -> str:
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        return f"two thousand {_spoken(rest)}".strip()
    return f"{_spoken(century)} {_spoken(rest) if rest > 9 else f'oh {ONES[rest]}' if rest else 'hundred'}"
