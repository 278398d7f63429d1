"""What is wrong with an entry of a catalog file: one message that names both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.io import DataCatalog

from conftest import kedro
from torchloom.config.loader import ConfigLoader, check_entries
from torchloom.errors import InputError
from torchloom.settings import CONFIG_LOADER_ARGS

Loader = Callable[..., ConfigLoader]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """A loader of a project whose environment `mine` has this entry, and whose base has another of that name."""
    monkeypatch.setattr(ConfigLoader, "newest", ConfigLoader.newest)

    def made(entry: Any) -> ConfigLoader:
        table = {"type": "pandas.CSVDataset", "filepath": "a.csv"}
        for name, content in {"base/catalog.yml": {"table": table}, "mine/catalog_a.yml": {"table": entry}}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(yaml.safe_dump(content))
        (tmp_path / "mine/credentials.yml").write_text("bucket: {key: s3cret}\n")
        return ConfigLoader(str(tmp_path), env="mine", **CONFIG_LOADER_ARGS)

    return made


WRONG: dict[str, tuple[Any, str]] = {
    "no block": (3, "given 3; must be a block with type: …"),
    "no type": ({"filepath": "a.csv"}, "has no type, such as type: pandas.CSVDataset."),
    "no such credentials": (
        {"type": "pandas.CSVDataset", "filepath": "a.csv", "credentials": "bukcet"},
        "credentials: given 'bukcet'; unknown entry of credentials.yml (did you mean bucket?); allowed are bucket",
    ),
    "no such credentials deeper": (
        {
            "type": "partitions.PartitionedDataset",
            "path": "a",
            "dataset": {"type": "pandas.CSVDataset", "credentials": "x"},
        },
        "credentials: given 'x'; unknown entry of credentials.yml; allowed are bucket",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_entries_that_are_none(tmp_path: Path, load: Loader, case: str) -> None:
    entry, says = WRONG[case]
    with pytest.raises(InputError) as caught:
        load(entry)["catalog"]
    assert caught.value.message.startswith(f"{tmp_path / 'mine/catalog_a.yml'}: table: {says}")
    assert "s3cret" not in caught.value.message


UNMADE: dict[str, tuple[dict[str, Any], str]] = {
    "a type mistyped": (
        {"type": "pandas.CSVDatset", "filepath": "a.csv"},
        "type: given 'pandas.CSVDatset'; there is no such class (did you mean pandas.CSVDataset?)",
    ),
    "a type of nowhere": ({"type": "mine.Foo"}, "type: given 'mine.Foo'; there is no such class, or what it needs"),
    "an argument": (
        {"type": "pandas.CSVDataset", "filepth": "a.csv"},
        "CSVDataset.__init__() got an unexpected keyword argument 'filepth'",
    ),
}


@pytest.mark.parametrize("case", UNMADE)
def test_entries_that_cannot_be_made(tmp_path: Path, load: Loader, case: str) -> None:
    entry, says = UNMADE[case]
    loader = load(entry)
    catalog = DataCatalog.from_config(loader["catalog"])
    with pytest.raises(InputError) as caught:
        check_entries(loader, catalog, ["table"])
    assert caught.value.message.startswith(f"{tmp_path / 'mine/catalog_a.yml'}: table: {says}")
    assert "\n" not in caught.value.message


def test_the_command_says_it_without_a_traceback(project: Path) -> None:
    run = ("run", "--env", "sample", "--pipelines", "linear_regression")
    file = project / "conf/sample/catalog_mine.yml"
    file.write_text("linear_regression.metrics:\n  type: json.JSONDatset\n  filepath: a.json\n")
    ended = kedro(project, *run)
    assert ended.returncode == 1
    said = f"Error: {file}: linear_regression.metrics: type: given 'json.JSONDatset'; there is no such class (did"
    assert [line[: len(said)] for line in ended.stderr.strip().split("\n")] == [said]
    file.unlink()
    ended = kedro(project, *run, "--load-versions", "metrics:2020-01-01T00.00.00.000Z")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: --load-versions metrics: must name entries of the catalog")
