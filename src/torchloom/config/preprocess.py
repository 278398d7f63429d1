"""The block `preprocess` of a data set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from torchloom.config.base import Block, Count, Fit, Fraction, Seed, ValueRange
from torchloom.config.choices import answering_for


class ReaderConfig(Block):
    """The block `preprocess` of a data set, as far as all readers share it."""

    reader: str | None = Field(
        None,
        description="a module of torchloom.data.readers, or the dotted path of one of yours; none: that of the data "
        "set's name, or else that of folders of pictures",
    )
    modality: str | None = Field(
        None, description="of a reader of yours whose inputs are of a kind of yours: the dotted path of its Info"
    )

    @field_validator("modality")
    @classmethod
    def _known(cls, modality: str | None) -> str | None:
        known = answering_for("modality")

        if modality is not None:
            known.check_modality(modality)
        return modality


class PreprocessConfig(ReaderConfig):
    """The block `preprocess` of a data set."""

    validation_fraction: Fraction = Field(0.1, description="share of each class cut from the training data to validate")
    seed: Seed = Field(0, description="draws the validation split")


class SplitFolders(Block):
    """Which folders of pictures are which split, all others being left out; none of them: no folder is."""

    train: str | None = Field(None, min_length=1, description="a folder below `folder` that holds the class folders")
    validation: str | None = Field(None, min_length=1, description="the same; none cuts it from the training data")
    test: str | None = Field(None, min_length=1, description="the same; none cuts it from the training data")

    @model_validator(mode="after")
    def _trains(self) -> SplitFolders:
        if not self.train and (self.validation or self.test):
            raise ValueError("must say which folder is train, too")
        return self


class FolderPreprocessConfig(PreprocessConfig):
    """The block `preprocess` of a folder of pictures, in a subfolder for each class.

    The class folders lie in the folder itself, or in its folders of the splits; a split that has no folder is cut from
    the training data.
    """

    folder: str = Field(min_length=1, description="where the pictures are; looked through with all below it")
    splits: SplitFolders | None = Field(
        None, description="none knows the folders of splits by their usual names; with {} every folder is a class"
    )
    size: list[Count] = Field([64, 64], min_length=2, max_length=2, description="height and width in pixels")
    channels: Literal[1, 3] = Field(3, description="1 makes them grey, 3 coloured")
    fit: Fit = Field(
        "crop", description="how pictures of other proportions fit: cut, with black borders, or out of proportion"
    )
    value_range: ValueRange | None = Field(
        None,
        description="[black, white]: the values that become 0 and 255 in pictures of more than 8 bits a channel; none: "
        "by what the training pictures hold, for values up to 4095 as of 12 bits, for example",
    )
    test_fraction: Fraction = Field(0.1, description="share of each class to test, one or more, without a folder test")
    validation_fraction: Fraction = Field(
        0.1, description="share of each class, of what remains, to validate, without a folder val"
    )
    skip_unreadable: bool = Field(False, description="leave out what cannot be read, instead of ending the run")
    cache: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether the decoded pixels are kept in one file, or decoded again for each batch; auto keeps them "
        "when they fit on the disk",
    )


class TextPreprocessConfig(ReaderConfig):
    """The block `preprocess` of one long text, which is cut in two places: training, validation and test in a row."""

    test_fraction: Fraction = Field(0.1, description="share of the text, at its end, to test")
    validation_fraction: Fraction = Field(0.1, description="share of what remains, at its end, to validate")


class BookPreprocessConfig(TextPreprocessConfig):
    """The block `preprocess` of a running text of one's own; what has no file of a split's name is cut off its end."""

    files: str = Field(min_length=1, description="a text file in UTF-8, or a folder of .txt and .md files")
    tokens: Literal["characters", "subwords"] = Field(
        "characters", description="what it is cut into; subwords are learnt on the training text, and need that extra"
    )
    vocabulary_size: int = Field(8000, ge=300, description="most frequent tokens to know")
    min_count: Count = Field(2, description="tokens that the training text holds less often are unknown")


class DocumentPreprocessConfig(PreprocessConfig):
    """The block `preprocess` of labelled texts."""

    vocabulary_size: int = Field(20_000, ge=3, description="most frequent words to know, with <pad> and <unk>")
    min_count: Count = Field(2, description="words that the training data hold less often are unknown")


class TablePreprocessConfig(ReaderConfig):
    """The block `preprocess` of a table."""

    test_fraction: Fraction = Field(0.2, description="share of the rows to test")
    validation_fraction: Fraction = Field(0.1, description="share of what remains to validate")
    seed: Seed = Field(0, description="draws both")


class TablePlace(ReaderConfig):
    """Where rows of one's own are: in files, or in an entry of the catalog."""

    files: str | None = Field(
        None,
        min_length=1,
        description="a CSV, Parquet or JSON lines file, or a folder of such, which are put together but for files or "
        "folders with the names of splits",
    )
    entry: str | None = Field(
        None,
        min_length=1,
        description="instead of files an entry of the catalog that is a table of pandas, Polars or Arrow, or a list of "
        "rows",
    )
    missing: list[str] = Field(
        [], description="spellings of a gap, beside an empty cell, ?, NA, NaN, null and their kin"
    )

    @model_validator(mode="after")
    def _one_place(self) -> TablePlace:
        if (self.files is None) is (self.entry is None):
            raise ValueError("must say where the rows are: either files or entry")
        return self


class RowsPreprocessConfig(TablePlace, TablePreprocessConfig):
    """The block `preprocess` of rows in files of one's own, or in an entry of the catalog."""

    target: str = Field(min_length=1, description="the column that is to be told from the others")
    target_type: Literal["classes", "number"] | None = Field(
        None, description="what the target is; none: classes where it has words, or two different values"
    )


class TableFilesPreprocessConfig(RowsPreprocessConfig):
    """The block `preprocess` of a table in files of one's own.

    Whatever is found out of its columns is found out on the training rows. Rows without a target are left out.
    """

    columns: dict[str, Literal["number", "category", "date", "out"]] = Field(
        {}, description="what columns are, where that is not what they look like; out leaves one out"
    )
    most_categories: Count = Field(100, description="of a column; the rarer ones are as those that are new")


class TextFilesPreprocessConfig(RowsPreprocessConfig):
    """The block `preprocess` of labelled texts of one's own: a column of a table, or files in a folder for each class.

    The vocabulary is that of the training texts. Texts without a target, or without a token, are left out.
    """

    target: str | None = Field(  # type: ignore[assignment]
        None, min_length=1, description="the column that is to be told from the text; of class folders none"
    )
    text: str | None = Field(
        None, min_length=1, description="the column with the text; none: the one that looks like it, if it is one"
    )
    splits: SplitFolders | None = Field(
        None, description="of class folders; none knows those of splits by their usual names"
    )
    tokens: Literal["words", "characters", "subwords"] = Field(
        "words",
        description="what a text is cut into; in scripts without spaces, such as Chinese, Japanese and Thai, each "
        "character is a word. subwords are learnt on the training texts, and need the extra subwords",
    )
    lower_case: bool = Field(True, description="whether upper and lower case are the same")
    vocabulary_size: int = Field(20_000, ge=300, description="most frequent tokens to know, with <pad> and <unk>")
    min_count: Count = Field(2, description="tokens that the training texts hold less often are unknown")


End = Annotated[int | str, Field(union_mode="left_to_right")]


class SeriesPreprocessConfig(TablePlace):
    """The block `preprocess` of a table whose rows are steps of a series: what comes next in its columns.

    Rows are split by time: the first ones train, the last ones test. A window of rows is what a forecast is made from;
    those of validation and test may begin in rows before, with what is forecast within.
    """

    time: str | None = Field(
        None, min_length=1, description="the column that says when a row is; none: the only one with dates"
    )
    time_format: str | None = Field(
        None,
        min_length=1,
        description="how it is written, as %d.%m.%Y %H:%M has it; none: 2024-01-31 18:30 and its kin",
    )
    columns: list[str] = Field(
        [], description="what is forecast, from its own past; none: all other columns of numbers"
    )
    known: list[str] = Field([], description="columns of numbers that are known for the rows ahead, too, as of a plan")
    calendar: bool = Field(
        False,
        description="whether the time of the day, of the week and of the year are known ahead, as far as rows differ",
    )
    series: str | None = Field(
        None, min_length=1, description="the column that says which of several series of the same kind a row is of"
    )
    window: Count = Field(description="rows that a forecast is made from")
    horizon: Count = Field(description="rows that are forecast")
    longest_gap: int = Field(
        4,
        ge=0,
        description="so many missing values or rows on end are filled with the last value before; at more the series "
        "is cut, and no window reaches across",
    )
    train: End | None = Field(
        None, description="the first so many rows, or those before a date; none: by the fractions, from the end"
    )
    validation: End | None = Field(None, description="so many rows after these, or those before a date; with train")
    test: End | None = Field(None, description="so many rows after these, or those before a date; none: all")
    test_fraction: Fraction = Field(0.2, description="share of the rows, at the end, to test")
    validation_fraction: Fraction = Field(0.1, description="share of what remains, at its end, to validate")

    @model_validator(mode="after")
    def _whole(self) -> SeriesPreprocessConfig:
        if (self.train is None) is not (self.validation is None) or (self.train is None and self.test is not None):
            raise ValueError("must have train and validation together, and test only with them")
        for given in (self.train, self.validation, self.test):
            if isinstance(given, int) and given < 0:
                raise ValueError(f"must have no {given} rows in a split")
        named = [*self.columns, *self.known, *filter(None, [self.time, self.series])]
        twice = [name for name in named if named.count(name) > 1]
        if twice:
            raise ValueError(
                f"must name each column once in columns, known, time and series, and not {twice[0]!r} twice"
            )
        return self


class LabelledSeriesPreprocessConfig(RowsPreprocessConfig):
    """The block `preprocess` of a table of many series, with what is to be told of each.

    A row is a series, and its columns of numbers are the steps; or with `series` a row is a step. A missing value is
    filled with the one before.
    """

    series: str | None = Field(
        None, min_length=1, description="the column that says which series a row is a step of; none: a row is a series"
    )
    time: str | None = Field(
        None,
        min_length=1,
        description="dates or numbers that the steps are ordered by; none: as they are",
    )
    columns: list[str] = Field([], description="the steps in order, or what is known of each; none: columns of numbers")
    length: Count | None = Field(
        None,
        description="steps that count: the last ones of longer series; before shorter ones their first again; none: "
        "those of the longest one to train",
    )

    @model_validator(mode="after")
    def _in_rows(self) -> LabelledSeriesPreprocessConfig:
        if self.time and not self.series:
            raise ValueError("must say by series which rows belong together, where there is a time")
        return self
