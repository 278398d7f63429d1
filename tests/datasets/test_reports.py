import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from kedro.io import DataCatalog, DatasetError
from matplotlib.figure import Figure

from torchloom.datasets.reports import CSVDataset, FigureDataset, JSONDataset, TableDataset, TextDataset
from torchloom.datasets.sweeps import PlotlyDataset
from torchloom.errors import InputError
from torchloom.records.provenance import fingerprint
from torchloom.system.files import contents

PNG = b"\x89PNG\r\n\x1a\n"


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    report = {"accuracy": 0.5, "classes": ["a", "ü"], "epoch": 3}
    dataset = JSONDataset(filepath=str(tmp_path / "new" / "report.json"))
    dataset.save(report)
    assert dataset.load() == report
    assert json.loads(dataset.preview()) == report


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_figure_that_is_no_number_leaves_the_old_report(tmp_path: Path, value: float) -> None:
    path = tmp_path / "report.json"
    dataset = JSONDataset(filepath=str(path))
    dataset.save({"loss": 1.0})
    with pytest.raises(InputError, match=r"report\.json: holds a figure that is not a finite number"):
        dataset.save({"loss": value})
    assert dataset.load() == {"loss": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_a_figure_is_a_png_and_is_previewed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "curves.png"
    dataset = FigureDataset(filepath=str(path))
    assert not dataset.exists()
    with pytest.raises(InputError, match=r"curves\.png: missing or damaged .* Run the stage that writes it again"):
        dataset.load()
    dataset.save(Figure())
    assert path.read_bytes().startswith(PNG)
    assert dataset.exists()
    assert dataset.load() == path.read_bytes()
    assert len(dataset.preview()) > 100


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        (JSONDataset, "report.json"),
        (FigureDataset, "curves.png"),
        (CSVDataset, "table.csv"),
        (TableDataset, "table.parquet"),
        (TextDataset, "text.txt"),
        (PlotlyDataset, "figure.json"),
    ],
)
def test_what_is_not_there_yet_has_no_preview(tmp_path: Path, dataset: Any, name: str) -> None:
    assert dataset(filepath=str(tmp_path / name)).preview() is None


@pytest.mark.parametrize(
    ("kind", "name", "something", "nothing"),
    [
        (JSONDataset, "report.json", {"a": 1}, {}),
        (FigureDataset, "curves.png", Figure(), b""),
        (CSVDataset, "table.csv", [{"a": 1}], []),
    ],
)
def test_an_optional_report_with_nothing_to_say_is_not_written(
    tmp_path: Path, kind: Any, name: str, something: Any, nothing: Any
) -> None:
    path = tmp_path / name
    dataset = kind(filepath=str(path), optional=True)
    catalog = DataCatalog({"report": dataset})
    dataset.save(something)
    written = dataset.load()
    assert written
    assert fingerprint(catalog, "report") == contents(path)
    dataset.save(nothing)  # where there was something
    assert not path.exists()
    assert dataset.load() == nothing
    assert dataset.exists()  # so that no stage waits for it
    assert dataset.preview() is None
    assert fingerprint(catalog, "report") == "nothing"  # which tells that somebody removes what was written
    with pytest.raises(InputError, match="missing or damaged"):
        kind(filepath=str(path)).load()
    assert fingerprint(DataCatalog({"report": kind(filepath=str(path))}), "report") is None


def test_a_picture_of_nothing_is_refused_where_there_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"curves\.png: there is nothing to draw. Say optional: true of it"):
        FigureDataset(filepath=str(tmp_path / "curves.png")).save(b"")


def test_previews_have_a_part_of_what_is_long(tmp_path: Path) -> None:
    report = JSONDataset(filepath=str(tmp_path / "report.json"))
    report.save({"vocabulary": list(range(20_000)), "text": "x" * 301, "short": [1, 2]})
    assert json.loads(report.preview()) == {
        "vocabulary": [*range(20), "… 20,000 in all"],
        "text": "x" * 300 + " … 301 characters in all",
        "short": [1, 2],
    }
    table = CSVDataset(filepath=str(tmp_path / "table.csv"))
    table.save([{"text": "y" * 1000}])
    assert table.preview()["data"] == [["y" * 300 + " … 1,000 characters in all"]]


def test_a_drawing_that_fails_leaves_the_old_picture(tmp_path: Path) -> None:
    class Broken(Figure):
        def draw(self, renderer: Any) -> None:
            raise RuntimeError("no more ink")

    path = tmp_path / "curves.png"
    dataset = FigureDataset(filepath=str(path))
    dataset.save(Figure())
    before = path.read_bytes()
    with pytest.raises(Exception, match="no more ink"):
        dataset.save(Broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---- tables --------------------------------------------------------------------------------------------------------

HARD = ["a, b", 'she said "no"', "two\nlines", "dos\r\nlines", "old\rmac", " kept ", "", "映画 é ü", "'=1+1'"]


def test_a_table_comes_back_as_strings(tmp_path: Path) -> None:
    rows = [{"number": number, "the text": text, "share": 0.5} for number, text in enumerate(HARD)]
    dataset = CSVDataset(filepath=str(tmp_path / "new" / "table.csv"))
    assert not dataset.exists()
    dataset.save(rows)
    assert dataset.exists()
    assert dataset.load() == [{name: str(value) for name, value in row.items()} for row in rows]
    assert dataset._filepath.read_bytes().startswith(b'number,the text,share\r\n0,"a, b",0.5\r\n')


def test_a_table_of_one_column_keeps_its_empty_rows(tmp_path: Path) -> None:
    dataset = CSVDataset(filepath=str(tmp_path / "table.csv"))
    dataset.save([{"text": ""}, {"text": "a"}, {"text": ""}])
    assert dataset.load() == [{"text": ""}, {"text": "a"}, {"text": ""}]


def test_a_table_holds_long_texts(tmp_path: Path) -> None:
    dataset = CSVDataset(filepath=str(tmp_path / "table.csv"))
    dataset.save([{"text": "a" * (1 << 20)}])
    assert dataset.load() == [{"text": "a" * (1 << 20)}]


def test_an_empty_table(tmp_path: Path) -> None:
    dataset = CSVDataset(filepath=str(tmp_path / "table.csv"))
    dataset.save([])
    assert dataset.exists()
    assert dataset.load() == []
    assert dataset.preview() == {"index": [], "columns": [], "data": []}


@pytest.mark.parametrize(("nrows", "shown"), [(0, 0), (3, 3), (20, 9), (None, 9)])
def test_the_preview_of_a_table_has_only_so_many_rows(tmp_path: Path, nrows: int | None, shown: int) -> None:
    dataset = CSVDataset(filepath=str(tmp_path / "table.csv"))
    dataset.save([{"number": number, "text": text} for number, text in enumerate(HARD)])
    preview = dataset.preview() if nrows is None else dataset.preview(nrows)
    assert preview == {
        "index": list(range(shown)),
        "columns": ["number", "text"] if shown else [],
        "data": [[str(number), text] for number, text in enumerate(HARD[:shown])],
    }
    assert json.dumps(preview)


def test_kedro_viz_shows_a_table_and_a_text_as_what_they_are(tmp_path: Path) -> None:
    nodes = pytest.importorskip("kedro_viz.models.flowchart.nodes", reason="the extra 'viz' is not installed")
    node_metadata = pytest.importorskip("kedro_viz.models.flowchart.node_metadata")
    dataset = CSVDataset(filepath=str(tmp_path / "table.csv"), metadata={"kedro-viz": {"preview_args": {"nrows": 2}}})
    dataset.save([{"text": text} for text in HARD])
    node = nodes.DataNode(id="1", name="table", tags=set(), modular_pipelines=set(), kedro_obj=dataset)
    shown = node_metadata.DataNodeMetadata(data_node=node)
    assert shown.preview_type == "TablePreview"
    assert shown.preview == {"index": [0, 1], "columns": ["text"], "data": [["a, b"], ['she said "no"']]}
    text = TextDataset(filepath=str(tmp_path / "text.txt"))
    text.save("Alice was beginning")
    node = nodes.DataNode(id="2", name="text", tags=set(), modular_pipelines=set(), kedro_obj=text)
    shown = node_metadata.DataNodeMetadata(data_node=node)
    assert (shown.preview_type, shown.preview) == ("TextPreview", "Alice was beginning")


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    dataset = CSVDataset(filepath=str(path))
    dataset.save([{"a": 1}])
    with pytest.raises(DatasetError, match="fields not in fieldnames"):
        dataset.save([{"a": 2}, {"a": 3, "b": 4}])
    assert dataset.load() == [{"a": "1"}]
    assert list(tmp_path.iterdir()) == [path]


# ---- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "one\ntwo\n", "dos\r\nlines\r\n", "old\rmac", "映画 é ü \x00 \u2028 \x85", "\ufeffbom"]
)
def test_a_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    dataset = TextDataset(filepath=str(tmp_path / "new" / "text.txt"))
    assert not dataset.exists()
    dataset.save(text)
    assert dataset.exists()
    assert dataset._filepath.read_bytes() == text.encode()
    assert dataset.load() == text


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    dataset = TextDataset(filepath=str(path))
    dataset.save("old")
    with pytest.raises(DatasetError, match="surrogates not allowed"):
        dataset.save("new " * 100_000 + "\ud800")
    assert dataset.load() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---- large tables --------------------------------------------------------------------------------------------------

FILES = pyarrow.table(
    {"file": HARD, "share": pyarrow.array([0.5] * (len(HARD) - 1) + [None], pyarrow.float32()), "class": ["a"] * 9}
)


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_a_large_table_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    dataset = TableDataset(filepath=str(tmp_path / "new" / name))
    assert not dataset.exists()
    dataset.save(FILES)
    assert dataset.exists()
    assert dataset.load().to_pylist() == FILES.to_pylist()
    assert dataset.load().schema.names == FILES.schema.names
    preview = dataset.preview(3)
    assert preview == {
        "index": [0, 1, 2],
        "columns": ["file", "share", "class"],
        "data": [[name, 0.5, "a"] for name in HARD[:3]],
    }
    assert json.dumps(preview)
    assert [path.name for path in dataset._filepath.parent.iterdir()] == [name]


def test_a_large_table_as_csv_is_what_others_read(tmp_path: Path) -> None:
    dataset = TableDataset(filepath=str(tmp_path / "table.csv"))
    dataset.save(FILES)
    assert [row["file"] for row in CSVDataset(filepath=str(dataset._filepath)).load()] == HARD


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_a_large_table_without_rows(tmp_path: Path, name: str) -> None:
    dataset = TableDataset(filepath=str(tmp_path / name))
    dataset.save(FILES.slice(0, 0))
    assert dataset.load().to_pylist() == []
    assert dataset.load().schema.names == ["file", "share", "class"]
    assert dataset.preview() == {"index": [], "columns": ["file", "share", "class"], "data": []}


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
@pytest.mark.parametrize("data", [None, b"", b"PAR1 and no more"], ids=["missing", "empty", "damaged"])
def test_a_large_table_that_cannot_be_read(tmp_path: Path, name: str, data: bytes | None) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    if data and path.suffix == ".csv":
        path.write_bytes(b"a,b\n1,2\n3\n")
    with pytest.raises(InputError, match=rf"{name}: missing or damaged .* Run the stage that writes it again"):
        TableDataset(filepath=str(path)).load()
