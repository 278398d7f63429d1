"""The stages of a prediction: find the files, put them through the exported model.

They run on ONNX Runtime; PyTorch is needed only to export a checkpoint that has not been exported.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from torchloom.config import PredictConfig
from torchloom.data.picture_formats import SUFFIXES
from torchloom.data.stored import told_of_room
from torchloom.datasets.folders import CONTENT, NAME
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.remote import Remote
from torchloom.errors import InputError, printable, telling
from torchloom.problems.base import TOLD
from torchloom.system.files import temporary_folder
from torchloom.system.progress import step_bar
from torchloom.system.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyarrow import Table

    from torchloom.inference.model import Model
    from torchloom.modalities import Info
else:
    Figure = Table = Any  # Kedro resolves the annotations of the stages; these take long to import

logger = logging.getLogger(__name__)

SHOWN = 5  # unreadable files in the log
PICTURES = "pictures"  # the folder of answers that are pictures
JUDGED = 1 << 20  # samples whose answers are held to what the files say, at most


def find(config: PredictConfig, remote: Remote | None = None) -> tuple[Listing, Listing]:
    """Where the model and the files to look at are, which are brought from an address; InputError when one of both is
    not there."""
    if config.files is None:
        raise InputError(
            "predict: say what is to be answered: predict.files=<a file or a folder>, or predict.entry=<an entry of "
            "the catalog>"
        )
    model = find_model(config)
    config = remote.brought(config) if remote else config
    assert config.files
    files = scan(Path(config.files), "predict.files")
    files.say_links()
    return model, files


def find_model(config: PredictConfig) -> Listing:
    """Where the model is; InputError when it is not there."""
    from torchloom.inference import model

    return scan(model.find_model(config.model, Path(config.models), "predict.model"), "predict.model")


def predict_entry(
    model: Listing, table: Any, config: PredictConfig, remote: Remote, scratch: Path
) -> tuple[Table, Table, Figure, Table, dict[str, float], Table]:
    """As `predict`, of each row of a table that the catalog holds: it lies in a temporary file in the folder `scratch`
    meanwhile, and is read as all files are."""
    from torchloom.data.entries import keep

    with temporary_folder(scratch) as folder:
        with telling(f"predict.entry {config.entry}"), told_of_room(scratch):
            path = keep(table, Path(folder, "rows.arrow").resolve())
        files = replace(scan(path, "predict.entry"), entry=config.entry)
        return predict(model, files, remote.brought(config), scratch)


def predict(
    model: Listing, files: Listing, config: PredictConfig, scratch: Path | None = None
) -> tuple[Table, Table, Figure, Table, dict[str, float], Table]:
    """As `ask`; InputError where there is no answer at all."""
    answers, *others = ask(model, files, config, scratch)
    if not len(answers):
        unreadable = others[2]
        first = (
            "it has no rows"
            if not len(unreadable)
            else "{file}: {reason}".format(**unreadable.slice(0, 1).to_pylist()[0])
        )
        more = f"; and {len(unreadable) - 1:,} more" if len(unreadable) > 1 else ""
        raise InputError(f"{_place(files)}: nothing of it can be answered by {config.model}: {printable(first)}{more}")
    return (answers, *others)


def ask(
    model: Listing, files: Listing, config: PredictConfig, scratch: Path | None = None
) -> tuple[Table, Table, Figure, Table, dict[str, float], Table]:
    """What the model makes of each file, or of each line of one file.

    Returns the table twice, to be kept as CSV and as Parquet, with the columns that the model's problem gives, and what
    is true where samples come with the target; where it answers with lists, there is a row for each of their entries.
    Then a picture of the first ones, or of how the answers are spread, the table of what could not be read and why, and
    how good the answers are beside that truth; nothing where there is none. At last the pictures that are answers, as a
    FolderDataset takes them. The tables lie in temporary files in the folder `scratch`: memory may not hold them.
    """
    import pyarrow

    from torchloom.inference.kept import Kept
    from torchloom.inference.model import open_model
    from torchloom.inference.reading import read_ahead
    from torchloom.system.fonts import naming

    loaded = open_model(next(model.paths), config.threads).told(config)
    if files.entry:
        loaded.info.check_rows()
    if config.holdout and not loaded.info.holds_back:
        raise InputError("predict.holdout: is for models that forecast series; leave it out")
    info, problem = loaded.info, loaded.problem
    read = info.reader(config)
    columns, answer = loaded.answering(config)
    place = "file" if "file" not in columns.names else "source file"  # of what the target may be called
    true = problem.truth([], info)
    named = _named_apart(true, [place, *columns.names])
    types = [(named[name], column.type) for name, column in true.items()]
    schema = pyarrow.schema([(place, pyarrow.string()), *types, *columns])
    reasons = pyarrow.schema(dict.fromkeys(("file", "reason"), pyarrow.string()))
    shown: list[tuple[str, Any, dict[str, Any]]] = []  # name, what the model saw, its answer and what is TOLD of it
    told = Told()
    with step_bar() as bar, Kept(schema, scratch) as answers, Kept(reasons, scratch) as unreadable:
        task = bar.add_task("predict", total=sum(1 for _ in info.samples_in(files, read)), status="")
        for batch in read_ahead(info.samples_in(files, read), config.batch_size):
            if batch.failures:
                failed = dict(zip(reasons.names, zip(*batch.failures, strict=True), strict=True))
                unreadable.add(pyarrow.record_batch(failed, schema=reasons))
            if batch.names:
                values = told.add(list(map(partial(_told, info), batch.values, batch.rows)))
                beside = {named[name]: column for name, column in problem.truth(values, info).items()}
                rows = pyarrow.record_batch({place: batch.names, **beside, **answer(batch.values)}, schema=schema)
                answers.add(rows)
                some = rows.slice(0, config.pictures - len(shown))
                first = some.drop_columns([*loaded.features]).to_pylist()
                first = [{**row, TOLD: value} for row, value in zip(first, values, strict=False)]
                shown += zip(batch.names, batch.values, first, strict=False)
            bar.update(task, advance=len(batch.names + batch.failures), status=f"{unreadable.count} unreadable")
        answered, failures = answers.table(), unreadable.table()
    _report(files, len(answered), failures)
    given = answered if told.known else answered.drop_columns([*named.values()])
    table, pictures = apart(unrolled(given), problem.pictures)
    with naming(info.drawn_names()):
        sheet = problem.sheet(loaded, shown) if info.pictured else _spread(loaded, config, answered)
    return table, table, sheet, failures, _judged(loaded, answered, told), pictures


def _spread(model: Model, config: PredictConfig, answered: Table) -> Figure:
    """What there is to look at where the samples themselves are no more than the table."""
    from torchloom.system.figures import spread_of

    columns, _ = model.problem.answering(model, config)  # without what is odd about the samples
    return spread_of(answered.select(columns.names))


class Told:
    """What the files say of the samples, by their places: of all that say something, or of more than JUDGED every
    second, fourth, … of them."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.values: list[Any] = []
        self.samples = self.known = self.odd = 0
        self.step = 1
        self.wrong: ValueError | None = None  # the first reason why one cannot be that

    def add(self, values: list[Any]) -> list[Any]:
        """The same, with None in place of what cannot be that."""
        for value in values:
            if isinstance(value, ValueError):
                self.wrong, self.odd = self.wrong or value, self.odd + 1
            elif value is not None:
                if self.known % self.step == 0:
                    self.places.append(self.samples)
                    self.values.append(value)
                self.known += 1
            self.samples += 1
        while len(self.places) > JUDGED:
            self.places, self.values, self.step = self.places[::2], self.values[::2], 2 * self.step
        return [None if isinstance(value, ValueError) else value for value in values]


def _named_apart(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """What columns of the truth are called beside the others."""
    found: dict[str, str] = {}
    for name in names:
        free = name
        while free in {*others, *found.values()}:
            free = f"true {free}"
        found[name] = free
    return found


def _told(info: Info, sample: Any, row: Mapping[str, Any] | None) -> Any:
    """What comes with the sample says of the target, None where nothing does, or the reason why it cannot be that."""
    try:
        return info.said_of(sample, row)
    except ValueError as error:
        return error


def _judged(model: Model, table: Table, told: Told) -> dict[str, float]:
    """How good the answers are whose samples come with the target."""
    if told.odd:
        logger.warning("the target of %s cannot be judged: %s", counted(told.odd, "row"), told.wrong)
    if not told.known:
        return {}
    known = table.take(told.places)
    answers = {name: known[name].to_numpy() for name in table.column_names}
    found = model.problem.judged(answers, told.values, model.info)
    if not found:
        return {}
    some = "" if told.step == 1 else f", by {counted(len(told.places), 'sample')} of these"
    logger.info(
        "beside the target, which %s with%s: %s",
        f"{counted(told.known, 'sample')} {'comes' if told.known == 1 else 'come'}",
        some,
        ", ".join(f"{name} {value:.4f}" for name, value in found.items()),
    )
    return {**found, "samples": len(told.places)}


def apart(table: Table, column: str | None) -> tuple[Table, Table]:
    """The table with the names of files in place of the pictures in a column, and these by their names."""
    import pyarrow

    names = file_names(table[0].to_pylist()) if column else []
    pictures = {NAME: names, CONTENT: table[column] if column else []}
    if column:
        place = table.column_names.index(column)
        table = table.set_column(place, column, pyarrow.array([f"{PICTURES}/{name}" for name in names], "string"))
    return table, pyarrow.table(pictures, pyarrow.schema(dict.fromkeys(pictures, pyarrow.string())))


def file_names(samples: Sequence[str]) -> list[str]:
    """For each sample the name of a PNG file, by its own: photos/a.jpg is photos/a.png; no two have the same."""
    found: dict[str, None] = {}
    paths = list(map(_below, samples))
    folders = {str(folder) for path in paths for folder in path.parents}
    for path in paths:
        stem = str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else str(path)
        names = (f"{name}.png" for name in chain((stem, path), (f"{path}-{number}" for number in count(2))))
        found[next(name for name in names if name not in found and name not in folders)] = None
    return list(found)


def _below(sample: str) -> PurePosixPath:
    parts = [re.sub(r'[\\:*?"<>|]', "_", part) for part in PurePosixPath(sample).parts if part not in {"/", ".."}]
    return PurePosixPath(*parts)


def unrolled(table: Table) -> Table:
    """A row for each entry of the lists in a table; those of a row are equally long."""
    import pyarrow
    import pyarrow.compute as compute

    lists = [field.name for field in table.schema if pyarrow.types.is_list(field.type)]
    if not lists:
        return table
    of = compute.list_parent_indices(table[lists[0]].combine_chunks())
    columns = {
        name: compute.list_flatten(table[name]) if name in lists else table[name].take(of)
        for name in table.column_names
    }
    return pyarrow.table(columns)


def _report(files: Listing, count: int, unreadable: Table) -> None:
    logger.info("%s: %s, %d unreadable", _place(files), counted(count, "prediction"), len(unreadable))
    for row in unreadable.slice(0, SHOWN).to_pylist():
        logger.warning("%s: %s", printable(row["file"]), row["reason"])
    if len(unreadable) > SHOWN:
        logger.warning("and %d more, see the table of what is unreadable", len(unreadable) - SHOWN)


def _place(files: Listing) -> str:
    return printable(str(files.entry or Path(files.folder, *(files.names if files.single else ()))))
