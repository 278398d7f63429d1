"""The block `preprocess` of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from torchloom.config.base import Block, Count, Fit, Fraction, Place, Seed, ValueRange
from torchloom.config.checks import ArgumentError
from torchloom.config.choices import answering_for
from torchloom.system.addresses import addresses_in


def _once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must name each column once")
    return names


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


Numbers = Mapping[str, Sequence[int]]  # of samples, by split


class AnewConfig(ReaderConfig):
    """The block `preprocess` of data that are prepared anew for each fold, as what is prepared hangs on what is trained
    on: a vocabulary, categories, columns of no use."""

    _fold: Numbers | None = PrivateAttr(None)

    @property
    def fold(self) -> Numbers | None:
        """Which samples are to train, to validate and to test, by their numbers among those that else train and then
        validate; none: as the data are split."""
        return self._fold

    def of_fold(self, numbers: Numbers) -> Self:
        """The block by which the data of a fold are prepared."""
        copy = self.model_copy()
        copy._fold = numbers
        return copy


class PreprocessConfig(ReaderConfig):
    """The block `preprocess` of a data set."""

    validation_fraction: Fraction = Field(0.1, description="share of each class cut from the training data to validate")
    seed: Seed = Field(0, description="draws the validation split")


class OwnFiles(ReaderConfig):
    """What is asked of the files of a user's own, wherever they are."""

    credentials: str | None = Field(
        None,
        min_length=1,
        description="of files at an address such as s3://bucket/folder/ the entry of Kedro's credentials.yml that lets "
        "you in; none: what fsspec finds in the environment",
    )

    @model_validator(mode="after")
    def _elsewhere(self) -> OwnFiles:
        if self.credentials and not addresses_in(vars(self)):
            raise ValueError("must have an address such as s3://bucket/folder/ where there are credentials")
        return self


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


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # of ILSVRC 2012, red, green and blue
On01 = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class ChannelScale(Block):
    """What is taken off the pixels of each channel, and what they are divided by, on the scale [0, 1]."""

    mean: list[On01] = Field(min_length=1, description="of each channel, on [0, 1]")
    std: list[Deviation] = Field(min_length=1, description="of each channel, above 0 and at most 1")

    @model_validator(mode="after")
    def _of_the_same(self) -> ChannelScale:
        if len(self.mean) != len(self.std):
            raise ValueError(f"must have as many in std ({len(self.std)}) as in mean ({len(self.mean)})")
        return self


Normalize = Annotated[
    Annotated[Literal["measured", "imagenet", "half"], Tag("<word>")] | Annotated[ChannelScale, Tag("<block>")],
    Discriminator(lambda given: "<word>" if isinstance(given, str) else "<block>"),
]


class PixelsConfig(Block):
    """How the pixels of images are scaled, which is a part of the model."""

    normalize: Normalize = Field(
        "measured",
        description="what becomes mean 0 and deviation 1 in each channel: measured, on the training pixels; imagenet, "
        "those of ImageNet, which take 3 channels; half, 0.5 and 0.5, so that pixels are on [-1, 1]; or mean and std",
    )

    def channel_scale(self, channels: int) -> ChannelScale | None:
        """That of so many channels, none where it is to be measured; ValueError where it is for others."""
        named = {
            "measured": None,
            "imagenet": ChannelScale(**IMAGENET),
            "half": ChannelScale(mean=[0.5] * channels, std=[0.5] * channels),
        }
        scale = named[self.normalize] if isinstance(self.normalize, str) else self.normalize
        if scale and len(scale.mean) != channels:
            what = self.normalize if isinstance(self.normalize, str) else "mean and std"
            raise ValueError(f"must be for the {channels} of the images, and {what} has {len(scale.mean)} channels")
        return scale


class ImagesPreprocessConfig(PixelsConfig, PreprocessConfig):
    """The block `preprocess` of a data set of labelled images."""


class PictureConfig(PixelsConfig):
    """How a user's pictures become images."""

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
    skip_unreadable: bool = Field(False, description="leave out what cannot be read, instead of ending the run")
    cache: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether the decoded pixels are kept in one file, or decoded again for each batch; auto keeps them "
        "when they fit on the disk",
    )

    @model_validator(mode="after")
    def _of_these_channels(self) -> Self:
        try:
            self.channel_scale(self.channels)
        except ValueError as error:
            given = self.normalize if isinstance(self.normalize, str) else self.normalize.model_dump()
            raise ArgumentError.of("normalize", given, str(error)) from None
        return self


class FolderPreprocessConfig(OwnFiles, PictureConfig, PreprocessConfig):
    """The block `preprocess` of a folder of pictures, in a subfolder for each class.

    The class folders lie in the folder itself, or in its folders of the splits; a split that has no folder is cut from
    the training data.
    """

    folder: Place = Field(description="where the pictures are, a path or an address; looked through with all below it")
    splits: SplitFolders | None = Field(
        None, description="none knows the folders of splits by their usual names; with {} every folder is a class"
    )
    test_fraction: Fraction = Field(0.1, description="share of each class to test, one or more, without a folder test")
    validation_fraction: Fraction = Field(
        0.1, description="share of each class, of what remains, to validate, without a folder val"
    )


class ArraysPreprocessConfig(OwnFiles, ImagesPreprocessConfig):
    """The block `preprocess` of pictures in arrays of NumPy, (N, H, W) or (N, H, W, C) uint8, with a class for each.

    What has no arrays with the name of a split, such as x_test and y_test, is cut from the training data.
    """

    files: Place = Field(
        description="an .npz file, or a folder of .npz and .npy files: a path, or an address such as s3://bucket/x.npz"
    )
    pictures: str | None = Field(
        None,
        min_length=1,
        description="what the array of pictures is called, without its split; none: the only one",
    )
    target: str | None = Field(
        None,
        min_length=1,
        description="what the array of classes is called, without its split; none: the only one",
    )
    test_fraction: Fraction = Field(0.1, description="share of each class to test, one or more, without arrays to test")


class TextPreprocessConfig(ReaderConfig):
    """The block `preprocess` of one long text, which is cut in two places: training, validation and test in a row."""

    test_fraction: Fraction = Field(0.1, description="share of the text, at its end, to test")
    validation_fraction: Fraction = Field(0.1, description="share of what remains, at its end, to validate")


class BookPreprocessConfig(OwnFiles, TextPreprocessConfig):
    """The block `preprocess` of a running text of one's own; what has no file of a split's name is cut off its end."""

    files: Place = Field(description="a text file in UTF-8, or a folder of .txt and .md files: a path or an address")
    tokens: Literal["characters", "words", "subwords"] = Field(
        "characters",
        description="what it is cut into; words are in lower case, with . , ! ? as such and no other marks; subwords "
        "are learnt on the training text, and need that extra",
    )
    vocabulary_size: int = Field(8000, ge=300, description="most frequent tokens to know")
    min_count: Count = Field(2, description="tokens that the training text holds less often are unknown")


class DocumentPreprocessConfig(PreprocessConfig, AnewConfig):
    """The block `preprocess` of labelled texts."""

    vocabulary_size: int = Field(20_000, ge=3, description="most frequent words to know, with <pad> and <unk>")
    min_count: Count = Field(2, description="words that the training data hold less often are unknown")


class CBFPreprocessConfig(PreprocessConfig, AnewConfig):
    """The block `preprocess` of series with a cylinder, a bell or a funnel."""


class DatesPreprocessConfig(PreprocessConfig, AnewConfig):
    """The block `preprocess` of dates to be written as ISO 8601 has them."""


class TablePreprocessConfig(ReaderConfig):
    """The block `preprocess` of a table."""

    test_fraction: Fraction = Field(0.2, description="share of the rows to test")
    validation_fraction: Fraction = Field(0.1, description="share of what remains to validate")
    seed: Seed = Field(0, description="draws both")


Cell = str | bool | int | float  # of a table, as YAML has it
Name = Annotated[str, Field(min_length=1)]
Target = Name | Annotated[list[Name], Field(min_length=1), AfterValidator(_once)]


class SplitByConfig(Block):
    """What rows go into which split by, where that is not left to chance."""

    column: str | None = Field(
        None, min_length=1, description="the column that says it, by the values that follow, or by names of splits"
    )
    test: list[Cell] = Field([], description="values of `column` whose rows are to test")
    validation: list[Cell] = Field(
        [], description="values of `column` whose rows are to validate; none: drawn from the rest"
    )
    group: str | None = Field(
        None, min_length=1, description="a column of which no value is in two splits, such as a patient's number"
    )
    time: str | None = Field(
        None,
        min_length=1,
        description="a column of dates or numbers: the latest rows test, those before validate",
    )

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [name for name in (self.column, self.group, self.time) if name]

    @property
    def apart(self) -> set[str]:
        """Those that tell a model nothing of other rows."""
        return {name for name in (self.column, self.group) if name}

    @model_validator(mode="after")
    def _one_way(self) -> SplitByConfig:
        if len(self.names) > 1:
            raise ValueError("must be one of column, group and time")
        if (self.test or self.validation) and not self.column:
            raise ValueError("must say of which column the values are")
        if self.validation and not self.test:
            raise ValueError("must say which values are to test, too")
        if twice := [value for value in self.test if value in self.validation]:
            raise ValueError(f"has {twice[0]!r} both to test and to validate")
        return self


class TablePlace(OwnFiles):
    """Where rows of one's own are: in files, or in an entry of the catalog."""

    files: Place | None = Field(
        None,
        description="a CSV, Parquet, Arrow or JSON lines file, or a folder of such, which are put together but for "
        "files or folders with the names of splits: a path, or an address such as s3://bucket/rows.csv",
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
    decimal: Literal[".", ","] = Field(
        ".",
        description="the mark before the decimals of numbers that are texts; with a comma, points or spaces may stand "
        "between thousands",
    )
    date_format: str | None = Field(
        None,
        min_length=1,
        description="how dates are written, beside 2024-01-31 and 2024-01-31 18:30: in the codes of strptime, such as "
        "%d.%m.%Y or %m/%d/%Y %H:%M",
    )

    @property
    def place(self) -> str:
        """Where the rows are, for messages."""
        return self.files or f"preprocess.entry {self.entry}"

    @model_validator(mode="after")
    def _one_place(self) -> TablePlace:
        if (self.files is None) is (self.entry is None):
            raise ValueError("must say where the rows are: either files or entry")
        return self


class RowsPreprocessConfig(TablePlace, TablePreprocessConfig):
    """The block `preprocess` of rows in files of one's own, or in an entry of the catalog."""

    target: Target = Field(
        description="the column that is to be told from the others; or several: numbers, or labels that are yes or no"
    )
    target_type: Literal["classes", "number", "labels"] | None = Field(
        None,
        description="what the target is; none: labels where there is a separator, a cell is a list, or several columns "
        "are yes or no; else classes where it has words, or two different values",
    )
    separator: str | None = Field(
        None, min_length=1, description="what stands between the labels in a cell of the target, such as ;"
    )
    target_scale: Literal["linear", "robust", "log"] | None = Field(
        None,
        description="the scale on which a number is learnt: log is that of log(1 + number); robust is linear among "
        "most numbers and logarithmic far beyond; none: robust where a few lie far beyond all others, else linear",
    )
    missing: list[str] = Field(
        [],
        description="spellings of a gap, beside an empty cell and ?, and, but in a target of words, NA, NaN, null and "
        "their kin",
    )
    split_by: SplitByConfig | None = Field(
        None, description="none: by chance, of each class the same share, but for files that are named as splits"
    )

    @property
    def targets(self) -> list[str]:
        """The columns of the target."""
        return [self.target] if isinstance(self.target, str) else self.target or []

    @model_validator(mode="after")
    def _one_target(self) -> RowsPreprocessConfig:
        if len(self.targets) > 1 and (self.separator or self.target_type == "classes"):
            raise ValueError("must name one column as target where it has a separator, or is classes")
        if self.separator and self.target_type not in {None, "labels"}:
            raise ValueError(f"must be without a separator where target_type is {self.target_type}")
        return self


class PicturesPreprocessConfig(PictureConfig, RowsPreprocessConfig):
    """The block `preprocess` of pictures that a table names, with what is to be told of them, or of a folder with
    pictures in one folder and their masks, by the same names, in another."""

    target: Target | None = Field(  # type: ignore[assignment]
        None,
        description="the column that is to be told from the picture, or several, as of a table; where there are masks "
        "none",
    )
    folder: Place | None = Field(
        None, description="where the paths in the table begin, a path or an address; none: in the folder of the table"
    )
    picture: str | None = Field(
        None,
        min_length=1,
        description="the column with the paths of the pictures, or the folder that they are in; none: the one that "
        "looks like it",
    )
    mask: str | None = Field(
        None,
        min_length=1,
        description="the column with the paths of the masks, or the folder that they are in; none: of a folder the one "
        "that looks like it, and of a table none where there is a target",
    )
    classes: dict[str, int | Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]] = Field(
        {}, description="of masks the value of each class, a grey level, a place in a palette or a colour as '#ff0000'"
    )
    ignore: list[int | Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]] = Field(
        [], description="of masks the values that are of no class, neither learnt nor judged"
    )


class TableFilesPreprocessConfig(RowsPreprocessConfig, AnewConfig):
    """The block `preprocess` of a table in files of one's own.

    Whatever is found out of its columns is found out on the training rows. Rows without a target are left out.
    """

    columns: dict[str, Literal["number", "category", "date", "out"]] = Field(
        {}, description="what columns are, where that is not what they look like; out leaves one out"
    )
    most_categories: Count = Field(100, description="of a column; the rarer ones are as those that are new")


class TextFilesPreprocessConfig(RowsPreprocessConfig, AnewConfig):
    """The block `preprocess` of labelled texts of one's own: a column of a table, or files in a folder for each class.

    The vocabulary is that of the training texts. Texts without a target, or without a token, are left out.
    """

    reads: ClassVar[tuple[str, ...]] = ("tokenizer",)  # the keys that name files beside the data, whose contents count

    target: Target | None = Field(  # type: ignore[assignment]
        None,
        description="the column that is to be told from the text, or several, as of a table; of class folders none",
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
    tokenizer: Place | None = Field(
        None,
        description="instead of tokens of one's own those of an encoder, a folder of the Hugging Face hub with a "
        "tokenizer.json; needs the extra subwords",
    )
    lower_case: bool = Field(True, description="whether upper and lower case are the same")
    vocabulary_size: int = Field(20_000, ge=300, description="most frequent tokens to know, with <pad> and <unk>")
    min_count: Count = Field(2, description="tokens that the training texts hold less often are unknown")

    @model_validator(mode="after")
    def _one_vocabulary(self) -> TextFilesPreprocessConfig:
        learnt = {"tokens", "lower_case", "vocabulary_size", "min_count"} & self.model_fields_set
        if self.tokenizer and learnt:
            raise ValueError(f"must be without {', '.join(sorted(learnt))} where a tokenizer has all that")
        return self


class PairsPreprocessConfig(TextFilesPreprocessConfig):
    """The block `preprocess` of texts of one's own with a text to be written of each, such as a translation: two
    columns of a table.

    Both vocabularies are those of the training texts. Pairs without one of both texts are left out.
    """

    target: str = Field(min_length=1, description="the column with the texts that are to be written")
    target_type: None = Field(None, description="none: it is a text")
    separator: None = Field(None, description="none: it is a text")
    target_scale: None = Field(None, description="none: it is a text")
    splits: None = Field(None, description="none: files of tables are splits by their names")
    text: str | None = Field(
        None, min_length=1, description="the column with the sources; none: the one that looks like it, if it is one"
    )
    tokens: Literal["words", "characters", "subwords"] = Field(
        "characters",
        description="what a source is cut into, see texts; of long ones subwords, which need the extra subwords",
    )
    target_tokens: Literal["words", "characters", "subwords"] | None = Field(
        None,
        description="what is written, token by token; words come in lower case and with . , ! ? alone; none: as tokens",
    )
    lower_case: bool = Field(False, description="whether upper and lower case are the same, in both")
    vocabulary_size: int = Field(
        20_000, ge=300, description="most frequent tokens to know of each, with <pad> and <unk>"
    )
    min_count: Count = Field(1, description="tokens that the training texts hold less often are unknown")
    longest: Count = Field(
        256,
        description="tokens of an answer, at most; of longer texts the beginning is learnt, and what is written ends",
    )


class SoundFilesPreprocessConfig(RowsPreprocessConfig):
    """The block `preprocess` of sounds of one's own, WAV, FLAC, OGG or MP3, each with something to be told of it.

    That is the folder that they lie in, a part of their names, or a column of a table that has their paths in another.
    All are brought to one rate and one channel. Needs the extra sound.
    """

    target: Target | None = Field(  # type: ignore[assignment]
        None, description="the part of the names, or the column or columns, to be told; of class folders none"
    )
    names: str | None = Field(
        None,
        min_length=1,
        description="what the names of the files say, without their ending, as {digit}_{speaker}_{take}: each part is "
        "what a column is, also for split",
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="of a table the column with the paths of the sounds; none: the one that has such",
    )
    folder: Place | None = Field(
        None, description="where the paths in the table begin, a path or an address; none: in the folder of the table"
    )
    splits: SplitFolders | None = Field(
        None, description="of class folders; none knows those of splits by their usual names"
    )
    rate: int | None = Field(
        None,
        ge=1000,
        le=192_000,
        description="samples a second that all get; none: what most of the training files have, at most 16000",
    )
    mels: int = Field(40, ge=8, le=256, description="bands of frequencies that a network sees")
    skip_unreadable: bool = Field(False, description="leave out what cannot be read, instead of ending the run")

    @field_validator("names")
    @classmethod
    def _has_parts(cls, names: str | None) -> str | None:
        parts = parts_of(names or "{any}")
        if not parts or len(set(parts)) < len(parts) or "" in parts or "}{" in (names or ""):
            raise ValueError("must have parts in braces, each of a name of its own and something between them")
        if taken := {"class", "file"} & set(parts):
            raise ValueError(f"cannot call a part {min(taken)}; rename it")
        return names


def parts_of(names: str) -> list[str]:
    """What stands in braces in preprocess.names."""
    return re.findall(r"{(.*?)}", names)


End = Annotated[int | str, Field(union_mode="left_to_right")]


class SeriesPreprocessConfig(TablePlace):
    """The block `preprocess` of a table whose rows are steps of a series: what comes next in its columns.

    Rows are split by time: the first ones train, the last ones test. A window of rows is what a forecast is made from;
    those of validation and test may begin in rows before, with what is forecast within.
    """

    time: str | None = Field(
        None, min_length=1, description="the column that says when a row is; none: the only one with dates"
    )
    columns: list[str] = Field(
        [], description="what is forecast, from the past of all of them; none: all other columns of numbers"
    )
    past: list[str] = Field(
        [], description="columns of numbers that it is forecast from, too, and that are not forecast (past covariates)"
    )
    known: list[str] = Field(
        [], description="columns of numbers that are known for the rows ahead, too, as of a plan (known covariates)"
    )
    calendar: bool = Field(
        False,
        description="whether the time of the day, of the week and of the year are known ahead, as far as rows differ",
    )
    series: str | None = Field(
        None, min_length=1, description="the column that says which of several series of the same kind a row is of"
    )
    each_file: bool = Field(
        False, description="whether each file of the folder is a series, with all others of its kind"
    )
    window: Count = Field(description="rows that a forecast is made from")
    horizon: Count = Field(description="rows that are forecast")
    longest_gap: int = Field(
        4,
        ge=0,
        description="so many missing values or rows on end are filled with the last value before, to forecast from, "
        "but neither learnt nor judged. At more the series is cut, and no window reaches across",
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
        if self.each_file and (self.series or not self.files):
            raise ValueError("must have files, and no series, where each_file is one")
        named = [*self.columns, *self.past, *self.known, *filter(None, [self.time, self.series])]
        twice = [name for name in named if named.count(name) > 1]
        if twice:
            raise ValueError(
                f"must name each column once in columns, past, known, time and series, and not {twice[0]!r} twice"
            )
        return self


class LabelledSeriesPreprocessConfig(RowsPreprocessConfig, AnewConfig):
    """The block `preprocess` of many series in tables or in arrays of NumPy, with what is to be told of each.

    A row is a series, and its columns of numbers are the steps; or with `series` a row is a step; or with `array` a
    cell is a series. A missing value is filled with the one before.
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
    array: str | None = Field(
        None,
        min_length=1,
        description="what holds whole series: in files of NumPy the array (N, steps) or (N, steps, channels), called "
        "without its split, with the target in an array beside it; in tables a column of lists",
    )
    channels_first: bool = Field(False, description="whether the array is (N, channels, steps)")
    length: Count | None = Field(
        None,
        description="steps that count: the last ones of longer series; before shorter ones their first again; none: "
        "those of the longest one to train",
    )

    @model_validator(mode="after")
    def _in_rows(self) -> LabelledSeriesPreprocessConfig:
        if self.time and not self.series:
            raise ValueError("must say by series which rows belong together, where there is a time")
        if self.array and (self.series or self.columns):
            raise ValueError("must have neither series nor columns where an array holds whole series")
        if self.channels_first and not self.array:
            raise ValueError("must name the array whose channels come first")
        return self
