"""A user's own series: when rows are, what is missing, which rows are which split, and what becomes of them."""

import json
import logging
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pydantic import ValidationError

from tests.tables import hours, write
from torchloom.config import AnswerConfig, DataConfig, SeriesPreprocessConfig
from torchloom.config.checks import mistakes
from torchloom.data.mapped import join
from torchloom.data.moments import Clock, calendar_of, clock_of, ends_of_summer_time, read_moment
from torchloom.data.readers.series import find, preprocess, preprocess_entry
from torchloom.data.series import pieces
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import SeriesInfo, read_info
from torchloom.modalities.base import Use

Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]
SHORT: dict[str, Any] = {"window": 24, "horizon": 6, "columns": ["load", "heat"]}


def prepared(path: Path, **settings: Any) -> Prepared:
    config = SeriesPreprocessConfig.model_validate({"files": str(path), **SHORT, **settings})
    return preprocess(find(config), config, Path())


def info_of(known: dict[str, Any]) -> SeriesInfo:
    info = read_info(known)
    assert isinstance(info, SeriesInfo)
    return info


def values_of(rows: list[dict[str, Any]], *names: str) -> np.ndarray:
    return np.array([[row[name] for name in names] for row in rows], dtype=np.float32)


def counts(found: Prepared) -> list[int]:
    return [len(part.arrays["times"]) for part in found[:3]]


def moments(*dates: str) -> np.ndarray:
    return np.array([read_moment(date, None)[0] for date in dates])


# ---- when rows are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dates", "step", "season", "following", "calendar"),
    [
        ("2024-02-28 23:00,2024-02-29 00:00,2024-02-29 02:00,2024-02-29 03:00", "1 hour", 24, "2024-02-29 04:00:00", 3),
        ("2024-01-01 00:15,2024-01-01 00:30,2024-01-01 00:45", "15 minutes", 96, "2024-01-01 01:00:00", 3),
        ("2024-02-27,2024-02-28,2024-02-29", "1 day", 7, "2024-03-01", 2),
        ("2024-01-04,2024-01-05,2024-01-08,2024-01-10,2024-01-11,2024-01-12", "1 business day", 5, "2024-01-15", 2),
        ("1969-12-25 09:30,1969-12-26 09:30,1969-12-29 09:30", "1 business day", 5, "1969-12-30 09:30:00", 2),
        ("2024-01-01,2024-01-02,2024-01-04,2024-01-05", "1 day", 7, "2024-01-06", 2),
        ("2024-01-05,2024-01-06,2024-01-08,2024-01-09", "1 day", 7, "2024-01-10", 2),
        ("2024-01-01,2024-01-08,2024-01-15", "1 week", 52, "2024-01-22", 1),
        ("2023-11-01,2023-12-01,2024-02-01,2024-03-01", "1 month", 12, "2024-04-01", 1),
        ("2023-12-31,2024-01-31,2024-02-29", "1 month", 12, "2024-03-31", 1),
        ("2023-03-31,2023-06-30,2023-09-30", "3 months", 4, "2023-12-31", 1),
        ("1890-01-01,1891-01-01,1892-01-01", "1 year", 1, "1893-01-01", 0),
        ("2024-01-01T00:00+02:00,2024-01-01T02:00+02:00", "2 hours", 12, "2024-01-01 02:00:00+00:00", 3),
    ],
)
def test_steps(dates: str, step: str, season: int, following: str, calendar: int) -> None:
    run = moments(*dates.split(","))
    clock = clock_of([run], None, "+" in dates)
    assert (clock.step, clock.season) == (step, season)
    assert clock.written(int(clock.after(int(run[-1]), [1])[0])) == following
    assert len(clock.calendar()) == calendar
    places = clock.places(run)
    np.testing.assert_array_equal(clock.after(int(run[0]), places), run)
    assert places[0] == 0
    assert (np.diff(places) >= 1).all()


def test_a_date_of_another_form() -> None:
    clock = clock_of(
        [np.array([read_moment(f"{day}.3.2024 06h", "%d.%m.%Y %Hh")[0] for day in (1, 2, 3)])], None, False
    )
    clock = clock.model_copy(update={"form": "%d.%m.%Y %Hh"})
    assert clock.step == "1 day"
    assert clock.written(clock.read("31.03.2024 06h")) == "31.03.2024 06h"
    assert clock.read("2024-03-01 06:00") == clock.read("01.03.2024 06h")
    with pytest.raises(ValueError, match=r"'3/1/2024' is not a date of the form %d\.%m\.%Y %Hh, or such as 2024-01"):
        clock.read("3/1/2024")


def test_zones_are_not_mixed() -> None:
    clock = Clock(microseconds=3_600_000_000, utc=True)
    assert clock.read("2024-07-01T12:00+02:00") == moments("2024-07-01 10:00")[0]
    with pytest.raises(ValueError, match="has no time zone, unlike what it was trained on"):
        clock.read("2024-07-01 12:00")


def test_what_is_not_regular_is_named() -> None:
    clock = Clock(microseconds=3_600_000_000)
    with pytest.raises(
        ValueError, match="2024-01-01 02:10:00 is not a whole number of steps of 1 hour after 2024-01-01 01"
    ):
        clock.places(moments("2024-01-01", "2024-01-01 01:00", "2024-01-01 02:10"))
    with pytest.raises(ValueError, match="2024-03-02 is not a whole number of steps of 1 month after 2024-02-01"):
        Clock(months=1).places(moments("2024-01-01", "2024-02-01", "2024-03-02"))


def test_a_weekend_is_no_business_day() -> None:
    clock = Clock(microseconds=24 * 3_600_000_000, business=True)
    assert clock.places(moments("2024-01-05", "2024-01-08", "2024-01-15")).tolist() == [0, 1, 6]
    for odd in ("2024-01-06", "2024-01-08 09:00"):
        with pytest.raises(
            ValueError, match=f"{odd}.* is not a whole number of steps of 1 business day after 2024-01-05"
        ):
            clock.places(moments("2024-01-05", odd))


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        (["2024-10-27 02:00", "2024-10-27 02:30", "2025-10-26 02:00"], True),
        (["2024-11-03 01:00"], True),
        (["2024-10-28 02:00"], False),
        (["2024-10-27 12:00"], False),
        (["2024-10-27 02:00", "2024-11-03 01:00"], False),
    ],
)
def test_an_hour_that_comes_twice_when_clocks_are_put_back(again: list[str], expected: bool) -> None:
    assert ends_of_summer_time(moments(*again)) is expected


def test_the_calendar_is_a_place_on_circles() -> None:
    found = calendar_of(moments("2024-01-01 06:00", "2024-01-08 06:00", "2024-01-08 18:00"), ["day", "week"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[:, 0], [1, 1, -1], atol=1e-6)
    assert abs(found[2, 2:] - found[1, 2:]).max() > 0.1


# ---- what is missing -----------------------------------------------------------------------------------------------


def test_gaps_are_filled_from_the_past_alone() -> None:
    nan = np.nan
    clock = Clock(microseconds=3_600_000_000)
    place = np.array([0, 1, 4, 5, 6, 7, 12, 13])
    values = np.array([nan, 1, 2, nan, nan, nan, 5, 6], np.float32)[:, None]
    found = pieces(moments("2024-01-01")[0] + place * 3_600_000_000, values, clock, 2)
    assert [piece.values[:, 0].tolist() for piece in found][1] == [5, 6]
    np.testing.assert_array_equal(found[0].values[:, 0], [nan, 1, 1, 1, 2, 2, 2, nan])
    assert found[0].filled[:, 0].tolist() == [False, False, True, True, False, True, True, False]
    (whole,) = found[0].whole()
    assert whole.values[:, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert [clock.written(int(piece.moments[0])) for piece in found] == ["2024-01-01 00:00:00", "2024-01-01 12:00:00"]


def test_what_is_missing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = hours(300)
    rows[9]["load"] = rows[10]["load"] = "?"
    shuffled = [*rows[20:200], *rows[:20], *rows[206:], *rows[203:205]]
    with caplog.at_level(logging.INFO):
        train, validation, test, known = prepared(write(tmp_path / "hours.csv", shuffled), longest_gap=2)
    assert "rows were not in the order of time" in caplog.messages
    assert "297 rows, 1 hour apart, from 2024-01-01 00:00:00 to 2024-01-13 11:00:00" in caplog.messages
    told = "4 values are missing and filled with the last ones before, to forecast from, not to judge by"
    assert told in caplog.messages
    assert {"train: 213 rows, 171 windows", "validation: 24 rows, 8 windows", "test: 60 rows, 55 windows"} <= {
        *caplog.messages
    }
    assert "longer gaps cut it into 2 pieces, and no window reaches across" in caplog.messages
    load = np.asarray(train.arrays["series"])[:, 0]
    assert load[9] == load[10] == np.float32(rows[8]["load"])
    assert known["windows"]["test"] == len(test.arrays["times"])
    assert len(validation.arrays["times"]) > 0


def test_no_window_reaches_across_a_longer_gap(tmp_path: Path) -> None:
    rows = hours(300)
    del rows[100:110]
    train = prepared(write(tmp_path / "hours.csv", rows))[0]
    series, starts = (np.asarray(train.arrays[name]) for name in ("series", "starts"))
    assert starts[0] == 0
    assert starts[-1] == len(series)
    there = {row["time"]: values for row, values in zip(rows, values_of(rows, "load", "heat"), strict=True)}
    for start, time in zip(starts[:-1], np.asarray(train.arrays["times"]), strict=True):
        first = datetime(1970, 1, 1) + timedelta(microseconds=int(time)) - timedelta(hours=24)
        expected = [there[str(first + timedelta(hours=step))] for step in range(30)]
        np.testing.assert_array_equal(series[start : start + 30], expected)


def test_rows_that_are_there_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = hours(300)
    same = prepared(write(tmp_path / "same.csv", [*rows[:50], *rows[40:]]))
    times = "2024-01-02 16:00:00, 2024-01-02 17:00:00, 2024-01-02 18:00:00 and 7 others"
    assert f"10 rows are there more than once, with the same values: {times}; one of each is kept" in caplog.messages
    np.testing.assert_array_equal(
        same[0].arrays["series"], prepared(write(tmp_path / "b.csv", rows))[0].arrays["series"]
    )
    other = write(tmp_path / "other.csv", [*rows, {**rows[7], "load": 1}])
    with pytest.raises(
        InputError, match=r"other\.csv: 2024-01-01 07:00:00 is there more than once.* preprocess\.series, a col"
    ):
        prepared(other)


def test_the_end_of_summer_time_is_told(tmp_path: Path) -> None:
    rows = hours(300)
    for place, row in enumerate(rows):  # as clocks show it: an hour twice, and then on from there
        row["time"] = str(datetime(2024, 10, 20) + timedelta(hours=place - (place > 170)))
    with pytest.raises(
        InputError, match=r"2024-10-27 02:00:00 is there more than once, with other values, as an hour is"
    ):
        prepared(write(tmp_path / "hours.csv", rows))


def business_days(count: int) -> list[dict[str, Any]]:
    days = [datetime(2024, 1, 1) + timedelta(days=place) for place in range(count)]
    return [{**row, "time": str(day.date())} for row, day in zip(hours(count), days, strict=True) if day.weekday() < 5]


def test_no_weekend_is_filled_among_business_days(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = business_days(280)
    train, _, _, known = prepared(write(tmp_path / "days.csv", rows))
    assert (info_of(known).clock.step, known["clock"]["business"]) == ("1 business day", True)
    assert "filled" not in caplog.text
    assert "filled" not in train.arrays
    np.testing.assert_array_equal(train.arrays["series"], values_of(rows[:144], "load", "heat"))
    window = info_of(known).reader(AnswerConfig(models=""))(rows[:40])
    ahead = [info_of(known).clock.written(int(moment)) for moment in window.ahead]
    assert ahead == [row["time"] for row in rows[40:46]]
    with pytest.raises(InputError, match="2024-01-06 is not a whole number of steps of 1 business day"):
        info_of(known).reader(AnswerConfig(models=""))([*rows, {**rows[0], "time": "2024-01-06"}])


def test_what_is_filled_is_in_windows_and_not_in_what_follows(tmp_path: Path) -> None:
    rows = hours(400)
    rows[30]["load"] = rows[31]["load"] = rows[330]["heat"] = ""
    del rows[200]
    train, _, _, known = prepared(write(tmp_path / "hours.csv", rows), known=["plan"])
    assert int(np.asarray(train.arrays["filled"]).sum()) == 4
    use = Use(DataConfig(), 0, False, torch.device("cpu"), (0, 1))
    batches = info_of(known).batches({name: torch.as_tensor(array) for name, array in train.arrays.items()}, use)
    series, ahead, truth = batches[torch.tensor([4, 10, 50])]
    assert series[1, 20:22, 0].tolist() == [np.float32(rows[29]["load"])] * 2
    assert not series.isnan().any()
    assert not ahead.isnan().any()
    expected = values_of([{**row, "load": row["load"] or np.nan} for row in rows[28:34]], "load", "heat")
    np.testing.assert_array_equal(truth[0], expected)
    assert not truth[1:].isnan().any()
    batches.streamed = True
    np.testing.assert_array_equal(batches[torch.tensor([4])][-1][0], expected)


def test_gaps_in_what_is_known_ahead_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = hours(400)
    rows[30]["plan"] = rows[50]["plan"] = ""
    train, _, _, known = prepared(write(tmp_path / "hours.csv", rows), known=["plan"])
    assert "2 values of what is known ahead are missing and filled with the last ones before" in caplog.messages
    assert "to judge by" not in caplog.text
    assert "filled" not in train.arrays
    asked: list[dict[str, Any]] = [*hours(30), *({**row, "load": "", "heat": ""} for row in hours(36)[30:])]
    asked[33]["plan"] = ""
    info = info_of(known)
    read = info.reader(AnswerConfig(models=""))
    assert info.remarks([read(asked)]) == ["1 value missing, and filled with the last before"]


# ---- which rows are which split ------------------------------------------------------------------------------------


def test_rows_are_split_by_time(tmp_path: Path) -> None:
    rows = hours(400)
    found = prepared(write(tmp_path / "hours.csv", rows))
    assert counts(found) == [288 - 30 + 1, 32 - 6 + 1, 80 - 6 + 1]
    values = values_of(rows, "load", "heat")
    for part, (begin, end) in zip(found[:3], [(0, 288), (288 - 24, 320), (320 - 24, 400)], strict=True):
        np.testing.assert_array_equal(part.arrays["series"], values[begin:end])
        assert part.arrays["series"].dtype == np.float32
    info = info_of(found[3])
    np.testing.assert_allclose(info.mean, values[:288].astype(np.float64).mean(0))
    np.testing.assert_allclose(info.std, values[:288].astype(np.float64).std(0))
    assert (info.time, info.channels, info.clock.step) == ("time", ["load", "heat"], "1 hour")
    assert info.clock.written(int(found[2].arrays["times"][0])) == rows[320]["time"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train": 200, "validation": 50, "test": 60}, [171, 45, 55]),
        ({"train": "2024-01-09 08:00", "validation": 50}, [171, 45, 145]),
        ({"train": 200, "validation": "2024-01-11", "test": "2024-01-13"}, [171, 35, 43]),
        ({"train": 200, "validation": 0}, [171, 0, 195]),
        ({"validation_fraction": 0.0}, [291, 0, 75]),
    ],
)
def test_which_rows_are_which_split(tmp_path: Path, settings: dict[str, Any], expected: list[int]) -> None:
    assert counts(prepared(write(tmp_path / "hours.csv", hours(400)), **settings)) == expected


def test_nothing_is_learnt_from_later_rows(tmp_path: Path) -> None:
    """Other rows to validate and to test change nothing of the training arrays, nor of what is known."""
    rows = hours(400)
    other = [
        row if place < 288 else {**row, "load": row["load"] * 3 - 5, "heat": 7.5} for place, row in enumerate(rows)
    ]
    one, two = (prepared(write(tmp_path / name, part)) for name, part in {"a.csv": rows, "b.csv": other}.items())
    assert one[3] == two[3]
    for name, array in one[0].arrays.items():
        np.testing.assert_array_equal(array, two[0].arrays[name])
    assert np.abs(one[2].arrays["series"][24:] - two[2].arrays["series"][24:]).min() > 0.1


def test_columns_of_words_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "state": "up" if place % 2 else "down"} for place, row in enumerate(hours(300))]
    known = prepared(write(tmp_path / "hours.csv", rows), columns=[])[3]
    assert known["channels"] == ["load", "heat", "plan"]
    assert "the column 'station' is 'north' in every row: it is left out" in caplog.messages
    assert "the column 'state' holds no numbers: it is left out" in caplog.messages


def test_what_is_known_ahead(tmp_path: Path) -> None:
    rows = hours(400)
    path = write(tmp_path / "hours.csv", rows)
    train, _, test, known = prepared(path, known=["plan"], calendar=True)
    info = info_of(known)
    assert info.inputs == ("series", "known")
    assert info.calendar == ["day", "week", "year"]
    plan = values_of(rows, "plan")[:, 0]
    np.testing.assert_array_equal(np.asarray(test.arrays["known"])[:, 0], plan[320 - 24 :])
    np.testing.assert_allclose(np.asarray(test.arrays["known"])[16, 1:3], [0, 1], atol=1e-6)  # 2024-01-14 00:00
    assert info.known_mean == pytest.approx([plan[:288].mean()])
    use = Use(DataConfig(), 0, False, torch.device("cpu"), (0, 1))
    batches = info.batches({name: torch.as_tensor(array) for name, array in train.arrays.items()}, use)
    series, ahead, truth = batches[torch.tensor([0, 7])]
    assert [part.shape for part in (series, ahead, truth)] == [(2, 24, 2), (2, 30, 7), (2, 6, 2)]
    np.testing.assert_array_equal(series[1], values_of(rows, "load", "heat")[7:31])
    np.testing.assert_array_equal(truth[1], values_of(rows, "load", "heat")[31:37])
    np.testing.assert_array_equal(ahead[1, :, 0], plan[7:37])
    batches.streamed = True
    assert all(
        torch.equal(one, two) for one, two in zip(batches[torch.tensor([0, 7])], (series, ahead, truth), strict=True)
    )


def test_columns_that_are_not_forecast(tmp_path: Path) -> None:
    """They are in windows, and in nothing that follows, also where they go on after what is forecast."""
    rows = hours(400)
    train, _, _, known = prepared(write(tmp_path / "hours.csv", rows), columns=["load"], past=["heat"], known=["plan"])
    info = info_of(known)
    assert (info.channels, info.past, info.sizes()) == (["load"], ["heat"], {"window": 24, "channels": 2})
    values = values_of(rows, "load", "heat")
    np.testing.assert_allclose([*info.mean, *info.past_mean], values[:288].astype(np.float64).mean(0))
    use = Use(DataConfig(), 0, False, torch.device("cpu"), (0, 1))
    batches = info.batches({name: torch.as_tensor(array) for name, array in train.arrays.items()}, use)
    series, _, truth = batches[torch.tensor([7])]
    np.testing.assert_array_equal(series[0], values[7:31])
    np.testing.assert_array_equal(truth[0], values[31:37, :1])
    asked = [{**row, "load": row["load"] if place < 30 else ""} for place, row in enumerate(rows[:36])]
    window = info.reader(AnswerConfig(models=""))(asked)
    assert info.clock.written(int(window.ahead[0])) == rows[30]["time"]
    np.testing.assert_array_equal(window.series, values[6:30])
    with pytest.raises(InputError, match="lacks 'heat'"):
        info.reader(AnswerConfig(models=""))(
            [{"time": row["time"], "load": row["load"], "plan": 0} for row in rows[:40]]
        )


def test_training_and_validation_are_strung_together(tmp_path: Path) -> None:
    """As data.include_validation does: the windows are those of both, and none lies across."""
    rows = hours(400)
    train, validation, _, known = prepared(write(tmp_path / "hours.csv", rows))
    files = [{name: torch.as_tensor(array) for name, array in part.arrays.items()} for part in (train, validation)]
    use = Use(DataConfig(), 0, False, torch.device("cpu"), (0, 1))
    batches = info_of(known).batches(join(files), use)
    values = values_of(rows, "load", "heat")
    assert len(batches) == 259 + 27
    for number, start in ((258, 258), (259, 264), (285, 290)):
        series, truth = batches[torch.tensor([number])]
        np.testing.assert_array_equal(torch.cat([series, truth], 1)[0], values[start : start + 30])


def test_several_series_in_one_table(tmp_path: Path) -> None:
    rows = [
        {**row, "station": name} for name in ("north", "south") for row in hours(200, seed=len(name) + ord(name[0]))
    ]
    mixed = [row for pair in zip(rows[:200], rows[200:], strict=True) for row in pair]
    found = prepared(write(tmp_path / "hours.csv", mixed), series="station", train=140, validation=20)
    assert counts(found) == [2 * 111, 2 * 15, 2 * 35]
    series = np.asarray(found[0].arrays["series"])
    np.testing.assert_array_equal(series[:140], values_of(rows[:140], "load", "heat"))
    np.testing.assert_array_equal(series[140:], values_of(rows[200:340], "load", "heat"))
    assert np.asarray(found[0].arrays["starts"])[[110, 111]].tolist() == [110, 140]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder", "entry"])
def test_the_same_in_other_files(tmp_path: Path, kind: str) -> None:
    rows = hours(300)
    plain = prepared(write(tmp_path / "plain/hours.csv", rows))
    frame, path = (
        pandas.DataFrame(rows).assign(time=lambda table: pandas.to_datetime(table["time"])),
        tmp_path / "other",
    )
    if kind == "jsonl":
        path = path.with_suffix(".jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        path = path.with_suffix(".parquet")
        frame.to_parquet(path)
    elif kind == "folder":
        write(path / "b.csv", rows[:100])
        write(path / "a.csv", rows[100:])
    entry = SeriesPreprocessConfig.model_validate({"entry": "loads", **SHORT})
    found = preprocess_entry(frame, entry) if kind == "entry" else prepared(path)
    assert found[3] == plain[3]
    for one, other in zip(found[:3], plain[:3], strict=True):
        for name, array in other.arrays.items():
            np.testing.assert_array_equal(one.arrays[name], array)


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            {},
            {"columns": ["loads"]},
            r"'loads': there is no such column .did you mean 'load'..; there are time, load, heat",
        ),
        ({}, {"known": ["plans"]}, r"preprocess\.known 'plans': there is no such column"),
        ({}, {"past": ["plans"]}, r"preprocess\.past 'plans': there is no such column"),
        ({}, {"time": "when"}, r"preprocess\.time 'when': there is no such column"),
        ({}, {"series": "stations"}, r"preprocess\.series 'stations': there is no such column"),
        ({}, {"window": 300}, r"the train rows have no window of 300 \+ 6 rows without a longer gap"),
        ({}, {"train": 270, "validation": 3}, r"the validation rows have no window"),
        ({}, {"train": "2024-01-10", "validation": "2024-01-09"}, r"must end one after the other"),
        ({}, {"train": "soon", "validation": 5}, r"preprocess\.train: 'soon' is not a date"),
        ({"time": "then"}, {"time": "time"}, r"hours\.csv: row 6: time: 'then' is not a date such as 2024-01-31"),
        ({"time": ""}, {}, r"row 6: time: is missing"),
        ({"time": "9999-12-31 23:00"}, {}, r"row 6: time: '9999-12-31 23:00' is not a date from the year 2 to 9000"),
        ({"time": "2024-01-01 05:30"}, {}, r"2024-01-01 05:30:00 is not a whole number of steps of 1 hour after"),
        ({"time": "2024-01-01T05:00Z"}, {}, r"some cells of 'time' name a time zone, and others do not"),
        ({"load": "high"}, {}, r"row 6: load: 'high' is not a number"),
        ({"load": "high"}, {"columns": []}, r"the column 'load' holds numbers, but also high\. If these are gaps"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    rows = hours(280)
    rows[5] |= change
    with pytest.raises(InputError, match=message):
        prepared(write(tmp_path / "hours.csv", rows), **settings)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, r"hours\.csv: there is one row alone, and no step from one to the next$"),
        (2, r"hours\.csv: the train rows have no window of 24 \+ 6 rows"),
    ],
)
def test_few_rows_are_refused(tmp_path: Path, count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(write(tmp_path / "hours.csv", hours(count)))


def test_the_column_of_dates_is_found_or_asked_for(tmp_path: Path) -> None:
    rows = hours(300)
    with pytest.raises(InputError, match=r"time, until hold dates\. Say which column is preprocess\.time"):
        prepared(write(tmp_path / "two.csv", [{**row, "until": row["time"]} for row in rows]))
    american = [{**row, "time": f"{row['time'][5:7]}/{row['time'][8:10]}/2024 {row['time'][11:13]}"} for row in rows]
    path = write(tmp_path / "american.csv", american)
    with pytest.raises(
        InputError, match=r"no column holds dates .*If they are written otherwise, say preprocess\.date_fo"
    ):
        prepared(path)
    known = prepared(path, date_format="%m/%d/%Y %H")[3]
    assert known["clock"]["form"] == "%m/%d/%Y %H"
    assert known["windows"] == prepared(write(tmp_path / "hours.csv", rows))[3]["windows"]


def test_years_are_dates_in_their_column_alone(tmp_path: Path) -> None:
    rows = [{"year": 1900 + year, "births": 1800 + year} for year in range(120)]
    path = write(tmp_path / "years.csv", rows)
    settings = {"columns": ["births"], "time": "year", "date_format": "%Y", "window": 8, "horizon": 2}
    known = prepared(path, **settings)[3]
    assert known["clock"]["months"] == 12
    assert known["mean"] == [pytest.approx(1800 + (120 - 24 - 10 - 1) / 2)]
    window = info_of(known).reader(AnswerConfig(models=""))(rows)
    assert window.series[-1].tolist() == [1919]


def test_files_with_the_names_of_splits_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "hours/train.csv", hours(200))
    write(tmp_path / "hours/test.csv", hours(20))
    with pytest.raises(InputError, match="has files with the names of splits, but series are split by time"):
        prepared(tmp_path / "hours")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 100}, "must have train and validation together"),
        ({"test": 100}, "must have train and validation together"),
        ({"known": ["load"]}, "must name each column once .* not 'load' twice"),
        ({"files": None}, "must say where the rows are: either files or entry"),
        ({"train": -1, "validation": 5}, "must have no -1 rows in a split"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"each_file": True, "series": "station"}, "must have files, and no series, where each_file is one"),
    ],
)
def test_parameters_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SeriesPreprocessConfig.model_validate({"files": "hours.csv", **SHORT, **settings})


def test_the_key_that_was_called_otherwise_is_answered_with_its_name() -> None:
    given = {"hours": {"preprocess": {"files": "hours.csv", "window": 24, "horizon": 6, "time_format": "%d.%m.%Y"}}}
    (line,) = mistakes(given, {"hours.preprocess": SeriesPreprocessConfig}, set())
    assert line.startswith("hours.preprocess.time_format: unknown key (did you mean date_format?); allowed are ")


# ---- what is asked of a model --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "must be rows of a table"),
        ([1], "must be rows of a table"),
        ([{"time": "2024-01-01", "load": 1}], "^lacks 'heat', 'plan'$"),
        (
            hours(20),
            r"^needs 24 rows, 1 hour apart, up to 2024-01-01 19:00:00, and has 20 without a gap of more than 4$",
        ),
        (
            [*hours(40)[:10], *hours(40)[16:]],
            "^needs plan in rows for the 6 steps ahead",
        ),
        ([*hours(40)[:17], *hours(40)[23:]], "^needs 24 rows, 1 hour apart, up to 2024-01-02 15:00:00, and has 17"),
        (hours(40), "^needs plan in rows for the 6 steps ahead, from 2024-01-02 16:00:00 to 2024-01-02 21:00:00$"),
        (
            [*hours(40), {**hours(40)[3], "load": 7}],
            "^2024-01-01 03:00:00 is there more than once, with other values$",
        ),
        ([{**row, "load": "", "heat": None} for row in hours(40)], "^has no value in load, heat$"),
        ([*hours(40), {**hours(1)[0], "time": "2024-01-02 16:30"}], "^2024-01-02 16:30:00 is not a whole number"),
        ([*hours(40), {**hours(1)[0], "time": "noon"}], "^row 41: time: 'noon' is not a date"),
        ([*hours(40), {**hours(1)[0], "heat": "hot"}], "^row 41: heat: 'hot' is not a number"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, rows: Any, message: str) -> None:
    info = info_of(prepared(write(tmp_path / "hours.csv", hours(400)), known=["plan"])[3])
    with pytest.raises(InputError, match=message):
        info.reader(AnswerConfig(models=""))(rows)


def test_an_answer_says_what_was_missing(tmp_path: Path) -> None:
    info = info_of(prepared(write(tmp_path / "hours.csv", hours(400)))[3])
    rows: list[dict[str, Any]] = hours(40)
    rows[30]["heat"] = None
    del rows[35]
    read = info.reader(AnswerConfig(models=""))
    assert info.remarks([read(rows), read(hours(40))]) == ["3 values missing, and filled with the last before", ""]
    window, again = read(hours(40)), read([*hours(40)[20:], *hours(40), hours(40)[-1]])  # rows of two exports
    np.testing.assert_array_equal(again.series, window.series)
    np.testing.assert_array_equal(again.ahead, window.ahead)
    assert again.filled == 0
    window = read([*rows, {"time": "2024-01-02 16:00:00"}])  # a row that says nothing of what is forecast
    assert info.clock.written(int(window.ahead[0])) == "2024-01-02 16:00:00"
    assert all(later - earlier == 3_600_000_000 for earlier, later in pairwise([*window.past, *window.ahead]))
