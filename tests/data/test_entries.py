"""Tables of the catalog, whichever library gives them, also out of databases."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow
import pytest
import sqlalchemy
import yaml

from conftest import kedro_run
from tests.postgres import PASSWORD, postgres
from tests.tables import people, write
from tests.test_extending import block
from torchloom.data.entries import as_rows
from torchloom.errors import InputError

ROWS = [{"age": 30, "town": "Ulm", "income": 2.5}, {"age": 41, "town": None, "income": None}]


def test_tables_of_every_library_have_the_same_rows(tmp_path: Path) -> None:
    frame = pandas.DataFrame(ROWS)
    lazy = polars.DataFrame(ROWS).lazy()
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)
    tables: list[Any] = [
        ROWS,
        pyarrow.Table.from_pylist(ROWS),
        pyarrow.Table.from_pylist(ROWS).to_reader(),
        frame,
        frame.set_index(pandas.Index(["p", "q"])),
        polars.DataFrame(ROWS),
        lazy,
        duckdb.sql(f"select * from '{path}'"),
        pandas.read_csv(path, chunksize=1),
        (part for part in (ROWS[:1], polars.DataFrame(ROWS[1:]))),
    ]
    for table in tables:
        assert as_rows(table) == ROWS, type(table)


def test_a_column_of_words_and_numbers_stays_as_it_is() -> None:
    assert as_rows(pandas.DataFrame({"a": [1, "x"]})) == [{"a": 1}, {"a": "x"}]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"a": 1}, 2], r"^is a list whose entry 1 is 2, and no row"),
        ({"a": 1}, r"^is of the type dict, and no table of pandas, Polars, Arrow, DuckDB or ibis"),
        (pyarrow.table([[1], [2]], ["a", "a"]), r"^has more than one column 'a'\. Rename one"),
        (polars.LazyFrame({"a": [1]}).select("b"), r"^cannot be read as a table \(ColumnNotFoundError: "),
        (iter([1]), r"^is of the type int, and no table"),
    ],
)
def test_what_is_no_table(table: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_rows(table)


# ---- databases, through kedro-datasets -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture
def databases(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Entries of a catalog that give the same rows, each from a place of another kind."""
    monkeypatch.delitem(sys.modules, "ibis")  # which the tests keep out
    path = write(tmp_path / "people.csv", people())
    frame = pandas.read_csv(path)
    with duckdb.connect(str(tmp_path / "people.duckdb")) as connection:
        connection.execute(f"create table people as select * from read_csv('{path}', types = {{'bike': 'varchar'}})")
    frame.to_sql("people", sqlalchemy.create_engine(server), index=False, if_exists="replace")
    guide = yaml.safe_load(block("people_in_duckdb:"))
    guide["people_in_duckdb"]["connection"]["database"] = str(tmp_path / "people.duckdb")
    query = guide["people_at_the_server"]
    return {
        "csv": {"type": "pandas.CSVDataset", "filepath": str(path)},
        "chunks": {"type": "pandas.CSVDataset", "filepath": str(path), "load_args": {"chunksize": 70}},
        "lazy": {"type": "polars.LazyPolarsDataset", "filepath": str(path), "file_format": "csv"},
        "duck": guide["people_in_duckdb"],
        "server": {"type": "pandas.SQLTableDataset", "table_name": "people", "credentials": "my_server"},
        "query": query,
        "parts": {**query, "load_args": {"chunksize": 70}},
    }


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")  # of ibis
def test_rows_out_of_databases_are_those_of_a_file(project: Path, databases: dict[str, Any], server: str) -> None:
    (project / "conf/local/credentials.yml").write_text(yaml.safe_dump({"my_server": {"con": server}}))
    (project / "conf/base/catalog_people.yml").write_text(
        yaml.safe_dump({f"{name}_rows": entry for name, entry in databases.items()})
    )
    blocks = {
        name: {"preprocess": {"reader": "table", "entry": f"{name}_rows", "target": "bike"}} for name in databases
    }
    (project / "conf/base/parameters/people.yml").write_text(yaml.safe_dump(blocks))
    catalog = kedro_run(project, "__default__", env="local", node_names=[f"{name}.preprocess" for name in databases])
    expected = catalog.load("csv_train").arrays["features"]
    for name in databases:
        assert catalog.load(f"{name}_info") == catalog.load("csv_info"), name
        np.testing.assert_array_equal(catalog.load(f"{name}_train").arrays["features"], expected, name)
    kept = [path for path in project.rglob("*") if path.is_file() and path.name != "credentials.yml"]
    assert not [path for path in kept if PASSWORD.replace(" ", "%20").encode() in path.read_bytes()]
