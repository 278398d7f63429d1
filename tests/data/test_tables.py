"""Files of rows as users bring them: packed, quoted, in odd encodings, and far too large."""

import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from torchloom.data import tables
from torchloom.data.tables import opened_table, read_text
from torchloom.errors import InputError


def rows_of(path: Path) -> list[list[Any]]:
    with opened_table(path) as (names, rows):
        return [names, *(cells for _, cells in rows)]


# ---- quotation marks -----------------------------------------------------------------------------------------------


def test_a_lone_quotation_mark_among_tabs_is_a_mark_like_others(tmp_path: Path) -> None:
    lines = ['"Great film\tpos', "Dull\tneg", 'A "must see"\tpos', 'inches: 5"\tneg']
    (tmp_path / "a.tsv").write_text("\n".join(["text\tlabel", *lines, ""]))
    assert rows_of(tmp_path / "a.tsv") == [["text", "label"], *(line.split("\t") for line in lines)]


def test_cells_that_are_quoted_among_tabs_stay_so(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"two\nlines, ""quoted"""\tpos\n"a tab\there"\tneg\n')
    assert rows_of(tmp_path / "a.tsv")[1:] == [['two\nlines, "quoted"', "pos"], ["a tab\there", "neg"]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['1,"Great film', "2,Dull", "3,Good"], r"line 3 is not CSV \(unexpected end of data\)\. A quotation mark"),
        (
            ['"Great film,1', 'Bad "movie" x,2'],
            r"line 3 is not CSV \(',' expected after '\"'\)\. A quotation mark with",
        ),
    ],
)
def test_one_that_takes_rows_together_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["a,b", "x,y", *lines, ""]))
    with pytest.raises(InputError, match=f"^{message}"):
        rows_of(tmp_path / "a.csv")


# ---- what is packed, and other types -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "ROWS.NDJSON.GZ", "my.own.rows.jsonl"])
def test_json_lines_may_be_packed(tmp_path: Path, name: str) -> None:
    written = "".join(json.dumps({"text": f"a, {number}", "label": number}) + "\n" for number in range(3)).encode()
    (tmp_path / name).write_bytes(gzip.compress(written) if name.lower().endswith("gz") else written)
    assert rows_of(tmp_path / name) == [["text", "label"], ["a, 0", 0], ["a, 1", 1], ["a, 2", 2]]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.zip", "rows.jsonl.gz"])
def test_what_unpacks_to_far_too_much_is_not_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST_UNPACKED", 100_000)
    path, content = tmp_path / name, b"a,b\n" + b"x,y\n" * 30_000
    if name == "rows.jsonl.gz":
        content = b'{"a": 1}\n' * 30_001
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("rows.csv", content)
    else:
        path.write_bytes(gzip.compress(content))
    assert path.stat().st_size < 1000
    with pytest.raises(InputError, match=r"^unpacks to more than 100,000 bytes\. If that is right, unpack it before"):
        rows_of(path)
    monkeypatch.setattr(tables, "LARGEST_UNPACKED", 1 << 30)
    assert len(rows_of(path)) in {30_001, 30_002}  # a line of names
    monkeypatch.setattr(tables, "LIKELY_UNPACKED", (1000, 100))
    with pytest.raises(InputError, match=rf"^unpacks to more than {100 * path.stat().st_size:,} bytes"):
        rows_of(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_texts_that_are_not_utf_8(tmp_path: Path, name: str) -> None:
    path, odd = tmp_path / name, "Größe".encode("latin-1")
    if name == "rows.parquet":
        column = pyarrow.array([odd], pyarrow.binary()).view(pyarrow.utf8())
        parquet.write_table(pyarrow.table({"text": column}), path)
    else:
        path.write_bytes(b'{"text": "' + odd + b'"}\n' if name == "rows.jsonl" else b"text\n" + odd + b"\n")
    with pytest.raises(InputError, match=r"^is not a text in UTF-8"):
        rows_of(path)


# ---- what is long --------------------------------------------------------------------------------------------------


def test_long_cells_are_read_whatever_was_imported_before(tmp_path: Path) -> None:
    assert csv.field_size_limit() == 1 << 24
    (tmp_path / "a.csv").write_text(f"text,label\n{'x' * 200_000},a\n")
    assert len(rows_of(tmp_path / "a.csv")[1][0]) == 200_000
    (tmp_path / "a.csv").write_text(f"text,label\nb,c\n{'x' * ((1 << 24) + 1)},a\n")
    with pytest.raises(InputError, match=r"^line 3 is not CSV \(field larger than field limit"):
        rows_of(tmp_path / "a.csv")


def test_a_line_without_an_end_is_no_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 1000)
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"\0" * 5000)
    with pytest.raises(InputError, match=r"^line 2 has 1,000 characters or more: this is no CSV file"):
        rows_of(tmp_path / "a.csv")


def test_a_very_long_text_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST_TEXT", 5)
    (tmp_path / "a.txt").write_text("12345")
    assert read_text(tmp_path / "a.txt") == "12345"
    (tmp_path / "a.txt").write_text("123456")
    with pytest.raises(InputError, match=r"^holds more than 5 characters"):
        read_text(tmp_path / "a.txt")


# ---- JSON lines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson.gz"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1, "b": "x', "Invalid encoding in string."),
        ('{"a": "word", "b": "x"}', r"Column\(/a\) changed from number to string"),
        ("[1, 2]", r"Column\(\) changed from object to array"),
    ],
)
def test_a_row_of_json_is_named_by_its_line(tmp_path: Path, name: str, line: str, reason: str) -> None:
    """Far behind the first of the blocks that Arrow reads, and with empty lines before."""
    lines = [json.dumps({"a": number, "b": f"{number}" * 40}) for number in range(16_000)]
    lines[3], lines[15_000] = "\n", line
    packed = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(packed("\n".join(lines).encode()))
    with pytest.raises(InputError, match=f"^line 15002 cannot be read as a row .{reason}.$"):
        rows_of(tmp_path / name)


def test_a_line_of_json_may_be_longer_than_a_block(tmp_path: Path) -> None:
    rows = [{"text": "a" * size, "day": "2024-01-31"} for size in (1, 3_000_000, 2)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert rows_of(tmp_path / "rows.jsonl") == [["text", "day"], *(list(row.values()) for row in rows)]
