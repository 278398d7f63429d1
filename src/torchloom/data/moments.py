"""When the rows of a series are: dates as files write them, as numbers, and the regular step between them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from torchloom.system.words import counted

EPOCH = datetime.datetime(1970, 1, 1)
MICROSECOND = datetime.timedelta(microseconds=1)
UNITS = {"week": 604_800_000_000, "day": 86_400_000_000, "hour": 3_600_000_000, "minute": 60_000_000}
UNITS |= {"second": 1_000_000, "millisecond": 1000, "microsecond": 1}  # in microseconds
DAY, WEEK, YEAR = UNITS["day"], UNITS["week"], 31_556_952_000_000
LATEST = 9000  # year: what is forecast comes after it
MONDAY, SUNDAY, BUSINESS = 4, 6, 5  # the first Monday, in days after 1970-01-01; days after one; days for business
PERIODS = {"day": DAY, "week": WEEK, "year": YEAR}  # of a calendar


def read_date(value: Any, form: str | None = None) -> datetime.datetime:
    """A moment as a table has it; ValueError of what is no date as strptime's `form` or ISO 8601 writes it."""
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime.combine(value, datetime.time())
    text = str(value).strip()
    if form:
        with suppress(ValueError):
            return datetime.datetime.strptime(text, form)
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        such = f"of the form {form}, or such as" if form else "such as 2024-01-31 or"
        raise ValueError(f"{value!r} is not a date {such} 2024-01-31 18:30") from None


class Clock(BaseModel):
    """How a series counts its time: a step of so many `microseconds`, or `months`, and how its moments are written.

    Of `business` days, from Monday to Friday, those of a weekend are no steps.

    Moments are microseconds since 1970, as the file writes them, or where it names a zone, in UTC. Those of months are
    all at the same day and time, or `ends`, all as long before the end of their months.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    form: str | None = None
    utc: bool = False
    months: int = 0
    microseconds: int = 0
    ends: bool = False
    business: bool = False

    def read(self, value: Any) -> int:
        """ValueError of what is no date, or has a zone where others have none."""
        moment, utc = read_moment(value, self.form)
        if utc != self.utc:
            raise ValueError(f"{value!r} {'names a' if utc else 'has no'} time zone, unlike what it was trained on")
        return moment

    def written(self, moment: int) -> str:
        found = EPOCH + int(moment) * MICROSECOND
        if self.form:
            return (found.replace(tzinfo=datetime.UTC) if self.utc else found).strftime(self.form)
        whole = moment % DAY == 0 and (self.months > 0 or self.microseconds % DAY == 0)
        return found.date().isoformat() if whole else f"{found.isoformat(' ')}{'+00:00' if self.utc else ''}"

    def places(self, moments: np.ndarray) -> np.ndarray:
        """How many steps each of the moments (T,), in order, is after the first; ValueError where that is no number."""
        if not len(moments):
            return np.zeros(0, dtype=np.int64)
        if self.months:
            month, inside = _months(moments, self.ends)
            steps, rest = np.divmod(month - month[0], self.months)
            rest = rest + (inside != inside[0])
        elif self.business:
            day, inside = _business_days(moments)
            steps, rest = day - day[0], (inside != inside[0]) | _at_weekends(moments)
        else:
            steps, rest = np.divmod(moments - moments[0], self.microseconds)
        if rest.any():
            odd = int(np.argmax(rest != 0))
            raise ValueError(
                f"{self.written(moments[odd])} is not a whole number of steps of {self.step} after "
                f"{self.written(moments[odd - 1])}; rows must be regular"
            )
        return np.asarray(steps)

    def after(self, moment: int, steps: Iterable[int]) -> np.ndarray:
        """The moments so many steps after one, int64."""
        count = np.fromiter(steps, dtype=np.int64)
        if self.business:
            day, inside = _business_days(np.array([moment]))
            week, place = np.divmod(day + count, BUSINESS)
            return np.asarray((week * 7 + place + MONDAY) * DAY + inside)
        if not self.months:
            return moment + count * self.microseconds
        month, inside = _months(np.array([moment]), self.ends)
        begins, ends = _begins(month + count * self.months), _begins(month + count * self.months + 1)
        found: np.ndarray = ends - inside if self.ends else np.minimum(begins + inside, ends - DAY + inside % DAY)
        return found

    @property
    def step(self) -> str:
        """In words."""
        if self.business:
            return "1 business day"
        if self.months:
            return counted(self.months // 12, "year") if self.months % 12 == 0 else counted(self.months, "month")
        unit = next(name for name, size in UNITS.items() if self.microseconds % size == 0)
        return counted(self.microseconds // UNITS[unit], unit)

    @property
    def season(self) -> int:
        """How many steps make the period that such series usually have: a day, of days a week, else a year; or 1."""
        if self.months:
            return max(12 // self.months, 1)
        if self.business:
            return BUSINESS
        if self.microseconds in {DAY, WEEK}:
            return 7 if self.microseconds == DAY else 52
        return DAY // self.microseconds if DAY % self.microseconds == 0 else 1

    def calendar(self) -> list[str]:
        """Those of PERIODS that are longer than a step."""
        step = self.microseconds or self.months * YEAR // 12
        return [name for name, period in PERIODS.items() if period > step]


def read_moment(value: Any, form: str | None) -> tuple[int, bool]:
    """A moment in microseconds, and whether it names its zone; ValueError of what is no date, or too late to go on."""
    date = read_date(value, form)
    utc = date.tzinfo is not None
    if not 2 <= date.year <= LATEST:
        raise ValueError(f"{value!r} is not a date from the year 2 to {LATEST}")
    if utc:
        date = date.astimezone(datetime.UTC).replace(tzinfo=None)
    return (date - EPOCH) // MICROSECOND, utc


def clock_of(runs: Sequence[np.ndarray], form: str | None, utc: bool) -> Clock:
    """The clock of series whose moments (T,) are each in order: their most frequent step. ValueError without one."""
    apart = np.concatenate([np.diff(run) for run in runs])
    if not len(apart):
        raise ValueError("there is one row alone, and no step from one to the next")
    if apart.min() >= 28 * DAY:
        for ends in (False, True):
            found = [_months(run, ends) for run in runs]
            if len(np.unique(np.concatenate([inside for _, inside in found]))) == 1:
                months = _most_frequent(np.concatenate([np.diff(month) for month, _ in found]))
                return Clock(form=form, utc=utc, months=months, ends=ends)
    step = _most_frequent(apart)
    weeks_apart = any((run[-1] // DAY - MONDAY) // 7 > (run[0] // DAY - MONDAY) // 7 for run in runs if len(run))
    business = step == DAY and weeks_apart and not any(_at_weekends(run).any() for run in runs)
    return Clock(form=form, utc=utc, microseconds=step, business=business)


def ends_of_summer_time(moments: np.ndarray) -> bool:
    """Whether (T,) moments may be those that come twice when clocks are put back: on one Sunday of a year, at night."""
    days = np.unique(moments // DAY)
    years = days.astype("datetime64[D]").astype("datetime64[Y]")
    nightly = (moments % DAY < 4 * UNITS["hour"]).all() and ((days - MONDAY) % 7 == SUNDAY).all()
    return bool(nightly and len(np.unique(years)) == len(days))


def _most_frequent(values: np.ndarray) -> int:
    different, counts = np.unique(values, return_counts=True)
    return int(different[np.argmax(counts)])


def _business_days(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many days from Monday to Friday each moment is after the first Monday, and how far it is into its day."""
    day, inside = np.divmod(moments, DAY)
    week, place = np.divmod(day - MONDAY, 7)
    return week * BUSINESS + place, inside


def _at_weekends(moments: np.ndarray) -> np.ndarray:
    weekends: np.ndarray = (moments // DAY - MONDAY) % 7 >= BUSINESS
    return weekends


def _months(moments: np.ndarray, ends: bool) -> tuple[np.ndarray, np.ndarray]:
    """The month of each moment, counted from January 1970, and how far it is from its beginning, or from its end."""
    month = moments.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
    return month, _begins(month + 1) - moments if ends else moments - _begins(month)


def _begins(month: np.ndarray) -> np.ndarray:
    begins: np.ndarray = month.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)
    return begins


def calendar_of(moments: np.ndarray, periods: Sequence[str]) -> np.ndarray:
    """Sine and cosine of how far each of the moments (T,) is in each of the periods: (T, 2 periods) float32."""
    angles = [2 * np.pi * (moments % PERIODS[name]) / PERIODS[name] for name in periods]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.stack(waves, 1).astype(np.float32) if waves else np.zeros((len(moments), 0), np.float32)
