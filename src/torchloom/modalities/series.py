"""Series: windows of numbers (B, window, channels) float32 in their own units, which the model itself scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from torchloom.config import AnswerConfig, Count
from torchloom.data.columns import Encoder, written
from torchloom.data.moments import Clock, calendar_of
from torchloom.data.series import in_order, of_length, pieces, read_rows_in_order, there_again, values_in, values_of
from torchloom.data.tables import check_columns
from torchloom.data.targets import Horizon
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info, Use
from torchloom.modalities.files import ROWS, Sample, cells_of, rows_of, series_of, tables_of
from torchloom.system.words import counted, listed

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.data.batches import Gathered
    from torchloom.datasets.listing import Listing
    from torchloom.training.loaders import LoaderPlan

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Window:
    """What a forecast is made from: `series` (window, channels) float32 and `known` (window + horizon, K) float32.

    `past` (window,) and `ahead` (horizon,) are the moments of both parts, `filled` how many values were missing, and
    `name` which series it is, where there are several. `truth` (horizon, channels) float32 is what was held back, NaN
    where nothing was measured.
    """

    name: str
    series: np.ndarray
    known: np.ndarray
    past: np.ndarray
    ahead: np.ndarray
    filled: int
    truth: np.ndarray | None = None


class SeriesInfo(Info):
    """Columns of a table by time, the `channels`, with mean and standard deviation of each over the training rows.

    `past` are columns that they are forecast from, too, and that are not forecast. `known` are columns that are known
    for the steps ahead, too, and `calendar` periods, in which the place of each step is known. `series` is the column
    that says which of several series a row is of.
    """

    kind: Literal["series"] = "series"
    time: str
    clock: Clock
    channels: list[str]
    past: list[str] = Field([])
    known: list[str] = Field([])
    calendar: list[str] = Field([])
    series: str | None = None
    window: Count
    longest_gap: int = Field(ge=0)
    missing: list[str] = Field([])
    mean: list[float]
    std: list[float]
    past_mean: list[float] = Field([])
    past_std: list[float] = Field([])
    _holdout: bool = PrivateAttr(False)
    known_mean: list[float] = Field([])
    known_std: list[float] = Field([])

    size_names: ClassVar = ("window", "channels")
    content: ClassVar = "times"
    tag: ClassVar = "time-series"
    unit: ClassVar = "window"
    samples: ClassVar = "windows"
    field: ClassVar = "series"
    item: ClassVar = list
    holds_back: ClassVar = True
    card: ClassVar = "templates/series.md"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = [(self.mean, self.std), (self.past_mean, self.past_std), (self.known_mean, self.known_std)]
        named = [self.channels, self.past, self.known]
        if [{len(mean), len(std)} for mean, std in given] != [{len(names)} for names in named]:
            raise ValueError("channels, and what is said of them, do not belong together")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("series", "known") if self.known_width else ("series",)

    @property
    def axes(self) -> Axes:  # type: ignore[override]
        return {name: {0: "batch"} for name in self.inputs}

    @property
    def seen(self) -> list[str]:
        """The columns that a window has."""
        return [*self.channels, *self.past]

    @property
    def known_width(self) -> int:
        """How many numbers are known of each step, ahead, too."""
        return len(self.known) + 2 * len(self.calendar)

    @property
    def steps(self) -> int:
        """How many are forecast."""
        return self.target.steps if isinstance(self.target, Horizon) else 0

    def sizes(self) -> dict[str, Any]:
        return {"window": self.window, "channels": len(self.seen)}

    def meanings(self) -> dict[str, Any]:
        return {"channels": self.seen}

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.sequences import SeriesWindows

        lengths = self.window, self.steps, len(self.channels)
        more = arrays.get("known"), arrays.get("filled")
        return SeriesWindows(arrays["series"], arrays["starts"][:-1], *lengths, *more, use.device)

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.modules import StandardizedSeries

        rest = 2 * len(self.calendar)
        known = [*self.known_mean, *[0.0] * rest], [*self.known_std, *[1.0] * rest]
        series = [*self.mean, *self.past_mean], [*self.std, *self.past_std]
        return StandardizedSeries(network, series, *([known] if self.known_width else []))

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        found = {"series": torch.tensor([*self.mean, *self.past_mean]).repeat(batch, self.window, 1)}
        if self.known_width:
            found["known"] = torch.zeros(batch, self.window + self.steps, self.known_width)
        return found

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        yield from super().drawn_names()
        yield "column", self.channels

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "columns", ", ".join(self.channels)
        if self.past:
            yield "columns that are not forecast", ", ".join(self.past)
        if self.known or self.calendar:
            yield "known ahead", ", ".join([*self.known, *(f"time of the {name}" for name in self.calendar)])
        yield "step", self.clock.step
        yield "window", f"{self.window} steps"

    # ---- for exported models ---------------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        of = "the columns of `channels` and of `past`" if self.past else "the channels"
        inside = {"input": f"{of} in their own units, by time", "inside_the_graph": "(x - mean) / std"}
        if self.known_width:
            inside["known"] = (
                "of the steps of the window and of those ahead the columns of `known`, then sine and cosine of 2 pi t "
                "/ period for each of `calendar`, with t in microseconds since 1970, a year having 365.2425 days"
            )
        return {**super().described(), "preprocessing": inside}

    def shapes(self) -> dict[str, list[int]]:
        shapes = {"series": [self.window, len(self.seen)]}
        return {**shapes, "known": [self.window + self.steps, self.known_width]} if self.known_width else shapes

    def told(self, config: AnswerConfig) -> Self:
        asked = self.model_copy()
        asked._holdout = getattr(config, "holdout", False)
        return asked

    def said_of(self, sample: Window, row: Row | None) -> list[list[float]] | None:
        return None if sample.truth is None else sample.truth.tolist()

    def reader(self, config: AnswerConfig) -> Callable[[Sequence[Row]], Window]:
        return self.last_window

    def last_window(self, rows: Sequence[Row]) -> Window:
        """The window at the end of a table's rows: that of the last ones with something of what is forecast.

        What is known of the steps ahead stands in rows after these. With a holdout it is the window before as many of
        the last rows as are forecast, and these are the truth. InputError names what is missing.
        """
        if not all(isinstance(row, Mapping) for row in rows) or not rows:
            raise InputError("must be rows of a table, an object with the columns by name for each")
        rows = list(map(self.plain, rows))
        known = {name for row in rows for name in row}
        check_columns([self.time, *self.seen, *self.known], dict.fromkeys(known))
        gaps = Encoder([], self.missing).gaps
        names = [*self.seen, *self.known]
        moments, values, _ = read_rows_in_order(rows, self.time, names, self.clock.read, gaps)
        same, other = there_again(moments, values)  # of equal ones one is kept, as in training
        if other.any():
            raise InputError(f"{self.clock.written(int(moments[other][0]))} is there more than once, with other values")
        moments, values = moments[~same], values[~same]
        width = len(self.seen)
        there = np.flatnonzero(~np.isnan(values[:, : len(self.channels)]).all(1))
        if not len(there):
            raise InputError(f"has no value in {', '.join(self.channels)}")
        end = int(moments[there[-1]])
        try:
            found = pieces(moments, values, self.clock, self.longest_gap)
        except ValueError as error:
            raise InputError(str(error)) from None
        (piece,) = (each for each in found if each.moments[0] <= end <= each.moments[-1])
        last = int(np.searchsorted(piece.moments, end)) + 1
        truth = None
        if self._holdout:
            last -= self.steps
            end = int(self.clock.after(end, [-self.steps])[0])
            measured = np.where(piece.filled, np.float32(np.nan), piece.values)
            truth = measured[max(last, 0) : last + self.steps, : len(self.channels)]
        past = piece.part(max(last - self.window, 0), max(last, 0))
        self._check_past(past.values, end)
        ahead = self.clock.after(end, range(1, self.steps + 1))
        shown = piece.values[last - self.window : last + self.steps, width:]
        filled = int(past.filled.sum() + piece.filled[last : last + self.steps, width:].sum())
        if self.known and (len(shown) < self.window + self.steps or np.isnan(shown).any()):
            raise InputError(
                f"needs {', '.join(self.known)} in rows for the {counted(self.steps, 'step')} ahead, from "
                f"{self.clock.written(int(ahead[0]))} to {self.clock.written(int(ahead[-1]))}"
            )
        waves = calendar_of(np.concatenate([past.moments, ahead]), self.calendar)
        known_ahead = np.concatenate([shown, waves], axis=1) if self.known else waves
        name = written(rows[0].get(self.series, "")) if self.series else ""
        return Window(name, past.values[:, :width], known_ahead, past.moments, ahead, filled, truth)

    def _check_past(self, values: np.ndarray, end: int) -> None:
        gaps = np.flatnonzero(np.isnan(values).any(1))
        length = len(values) - (int(gaps[-1]) + 1 if len(gaps) else 0)
        if length < self.window:
            raise InputError(
                f"needs {self.window} rows, {self.clock.step} apart, up to {self.clock.written(end)}, and has "
                f"{length} without a gap of more than {self.longest_gap}"
            )

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        return tables_of(files, read, self.series)

    def remarks(self, samples: list[Window]) -> list[str] | None:
        """How many values were missing."""
        return [
            f"{counted(each.filled, 'value')} missing, and filled with the last before" if each.filled else ""
            for each in samples
        ]

    def batch(self, samples: list[Window]) -> dict[str, np.ndarray]:
        return {name: np.stack([getattr(each, name) for each in samples]) for name in self.inputs}

    def said(self) -> dict[str, Any]:
        ahead = {"known": [self.time, *self.known]} if self.known else {}
        return {"columns": [self.time, *self.seen], "window": self.window, "step": self.clock.step, **ahead}


class LabelledSeriesInfo(Info):
    """Many series of `length` steps, with mean and standard deviation of each channel over those to train.

    Without `series` a row of a user's table is one, its `steps` are columns, and there is one channel; else a row is a
    step, that column says of which, `time` orders them, and the channels are columns. Or a cell of the column `array`,
    or an entry of the array of that name, is one: (T,), (T, channels), or with `channels_first` (channels, T).
    """

    kind: Literal["labelled_series"] = "labelled_series"
    channels: list[str]
    steps: list[str] = Field([])
    array: str | None = None
    channels_first: bool = False
    series: str | None = None
    time: str | None = None
    length: Count
    missing: list[str] = Field([])
    mean: list[float]
    std: list[float]

    inputs: ClassVar = ("series",)
    axes: ClassVar[Axes] = {"series": {0: "batch"}}
    size_names: ClassVar = ("window", "channels")
    content: ClassVar = "series"
    tag: ClassVar = "time-series"
    unit: ClassVar = "series"
    samples: ClassVar = "series"
    card: ClassVar = "templates/labelled_series.md"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if {len(self.mean), len(self.std)} != {len(self.channels)} or sum(
            map(bool, (self.steps, self.series, self.array))
        ) != 1:
            raise ValueError("channels, and what is said of them, do not belong together")
        return self

    @property
    def field(self) -> str:  # type: ignore[override]
        return "series" if self.series else "rows"

    @property
    def item(self) -> type:  # type: ignore[override]
        return list if self.series else dict

    def sizes(self) -> dict[str, Any]:
        return {"window": self.length, "channels": len(self.channels)}

    def meanings(self) -> dict[str, Any]:
        return {"channels": self.channels}

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.sequences import TableBatches

        return TableBatches(arrays["series"], arrays[self.counted], use.device)

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.modules import StandardizedSeries

        return StandardizedSeries(network, (self.mean, self.std))

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"series": torch.tensor(self.mean).repeat(batch, self.length, 1)}

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], captions: Sequence[tuple[str, bool]]) -> Figure:
        from torchloom.system.figures import colour_of

        series = loaders.chosen("test", numbers)[0].numpy()
        return self._curves(list(series), [(caption, colour_of(right)) for caption, right in captions])

    def _curves(self, series: Sequence[np.ndarray], captions: Sequence[tuple[str, str]]) -> Figure:
        """A single channel is drawn as it is; several, whose units may differ, with mean 0 and deviation 1."""
        from torchloom.system.figures import curves

        if len(self.channels) == 1:
            return curves(series, self.channels, captions, self.channels[0])
        return curves([(each - self.mean) / self.std for each in series], self.channels, captions, "standardised")

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        yield from super().drawn_names()
        yield "channel", self.channels

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "channels", ", ".join(self.channels)
        yield "steps", self.length

    def described(self) -> dict[str, Any]:
        inside = {"input": "the channels in their own units, step by step", "inside_the_graph": "(x - mean) / std"}
        return {**super().described(), "preprocessing": inside}

    def shapes(self) -> dict[str, list[int]]:
        return {"series": [self.length, len(self.channels)]}

    def reader(self, config: AnswerConfig) -> Callable[[Any], np.ndarray]:
        return self.cell if self.array else self.whole if self.series else self.row

    def row(self, row: Row) -> np.ndarray:
        """(length, 1) of a row that is a series."""
        check_columns(self.steps, row)
        return of_length(values_of([self.plain(row)], self.steps, self.missing).T, self.length, self.channels)

    def cell(self, row: Row) -> np.ndarray:
        """(length, channels) of a row of which one cell is a series."""
        assert self.array
        check_columns([self.array], row)
        values = values_in(row[self.array], self.array, self.channels_first)
        if values.shape[1] != len(self.channels):
            raise InputError(f"{self.array}: has {counted(values.shape[1], 'channel')}, and not {len(self.channels)}")
        return of_length(values, self.length, self.channels)

    def whole(self, rows: Sequence[Row]) -> np.ndarray:
        """(length, channels) of rows that are steps of one series."""
        if not all(isinstance(row, Mapping) for row in rows) or not rows:
            raise InputError("must be rows of a table, an object with the columns by name for each")
        check_columns([*self.channels, *filter(None, [self.time])], dict.fromkeys(name for row in rows for name in row))
        values = values_of(in_order(list(map(self.plain, rows)), self.time), self.channels, self.missing)
        return of_length(values, self.length, self.channels)

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        if self.array:
            return cells_of(files, read, self.array, 3 if len(self.channels) > 1 else 2, self.target)
        return series_of(files, read, self.series) if self.series else rows_of(files, read)

    def said_of(self, sample: np.ndarray, row: Row | None) -> Any:
        """Of the rows of a series those say something that have the target, and all the same."""
        if not row or ROWS not in row:
            return super().said_of(sample, row)
        told: list[Any] = []
        for each in row[ROWS]:
            if (said := super().said_of(sample, each)) is not None and said not in told:
                told.append(said)
        if len(told) > 1:
            name = written(row[ROWS][0].get(self.series, ""))
            raise ValueError(f"series {name} has several: {listed(sorted(map(str, told)), 3)}")
        return told[0] if told else None

    def batch(self, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"series": np.stack(samples)}

    def sheet(self, shown: list[tuple[str, Any, str]]) -> Figure:
        from torchloom.system.figures import coloured

        named = [(f"{name}: {caption}", coloured(caption)[1]) for name, _, caption in shown]
        return self._curves([sample for _, sample, _ in shown], named)

    def said(self) -> dict[str, Any]:
        columns = [self.array] if self.array else self.steps or self.channels
        return {"columns": columns, "channels": self.channels, "length": self.length}
