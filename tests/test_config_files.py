"""What an environment and a command make of parameters below them; files that are wrong or count for nothing."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import BadParameter, Command, Context, Option

from conftest import ROOT
from torchloom.config import ModelConfig, TrainConfig
from torchloom.config.checks import mistakes
from torchloom.config.loader import ConfigLoader
from torchloom.errors import InputError
from torchloom.run_options import parameters
from torchloom.settings import CONFIG_LOADER_ARGS

MLP = {"name": "mlp", "hidden": [512], "dropout": 0.2}
ADAM = {"name": "AdamW", "lr": 0.001, "weight_decay": 0.05}
BASE = {
    "mine": {"task": {"problem": "classification"}, "model": MLP, "train": {"epochs": 9, "optimizer": ADAM}},
    "data_of_mine": {"preprocess": {"pictures": {"name": "first", "size": 3}}},
    "sweep": {
        "task": "mine",
        "space": {"train.epochs": {"low": 1, "high": 9, "log": True}, "model.depth": {"choices": [1, 2]}},
        "pruner": {"name": "MedianPruner", "n_warmup_steps": 3},
    },
    "theirs": {"person": {"name": "Ada", "age": 36}},
}
Loader = Callable[..., ConfigLoader]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """A loader of a project whose environment `mine` has these files beside those of base."""
    monkeypatch.setattr(ConfigLoader, "newest", ConfigLoader.newest)

    def made(files: dict[str, Any] | None = None, command: dict[str, Any] | None = None) -> ConfigLoader:
        for name, content in {"base/parameters/all.yml": BASE, "mine/globals.yml": {}, **(files or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
        return ConfigLoader(str(tmp_path), env="mine", runtime_params=command or {}, **CONFIG_LOADER_ARGS)

    return made


def test_the_arguments_of_another_choice_are_not_inherited(load: Loader) -> None:
    sgd = {"name": "SGD", "lr": 0.1}
    above = {"mine": {"train": {"optimizer": sgd}, "model": {"dropout": 0.5}}}
    found = load({"mine/parameters/a.yml": above})["parameters"]["mine"]
    assert found["train"] == {"epochs": 9, "optimizer": sgd}
    assert found["model"] == {**MLP, "dropout": 0.5}


def test_nor_those_of_an_environment_by_a_command(load: Loader) -> None:
    above = {"mine": {"train": {"optimizer": {"lr": 0.1, "eps": 1e-6}}, "model": {"dropout": 0.5}}}
    command = {"mine": {"train": {"optimizer": {"name": "SGD"}}, "model": {"name": "mlp"}}}
    found = load({"mine/parameters/a.yml": above}, command)["parameters"]["mine"]
    assert found["train"]["optimizer"] == {"name": "SGD"}
    assert found["model"] == {**MLP, "dropout": 0.5}


def test_what_an_environment_chose_is_kept_when_a_command_names_it_again(load: Loader) -> None:
    above = {"mine": {"train": {"optimizer": {"name": "SGD", "lr": 0.1}}}}
    command = {"mine": {"train": {"optimizer": {"name": "SGD", "momentum": 0.9}}}}
    found = load({"mine/parameters/a.yml": above}, command)["parameters"]["mine"]
    assert found["train"]["optimizer"] == {"name": "SGD", "lr": 0.1, "momentum": 0.9}


def test_a_range_becomes_choices_and_choices_a_range(load: Loader) -> None:
    space = {"train.epochs": {"choices": [5]}, "model.depth": {"low": 1, "high": 4}}
    above = {"sweep": {"space": space, "pruner": {"name": "NopPruner"}}}
    found = load({"mine/parameters/a.yml": above})["parameters"]["sweep"]
    assert found == {"task": "mine", "space": space, "pruner": {"name": "NopPruner"}}


def test_blocks_of_a_users_own_pipelines_are_merged_key_by_key(load: Loader) -> None:
    above = {"theirs": {"person": {"name": "Mary"}}, "data_of_mine": {"preprocess": {"pictures": {"name": "other"}}}}
    found = load({"mine/parameters/a.yml": above})["parameters"]
    assert found["theirs"] == {"person": {"name": "Mary", "age": 36}}
    assert found["data_of_mine"]["preprocess"] == {"pictures": {"name": "other"}}


def test_where_an_inherited_key_stands(tmp_path: Path, load: Loader) -> None:
    above = {"mine": {"train": {"batch_size": 8}}, "sweep": {"space": {"train.epochs": {"low": 2}}}}
    loader = load({"mine/parameters/a.yml": above}, {"mine": {"model": {"dropout": 0.1}}})
    assert loader["parameters"]["mine"]["train"]["batch_size"] == 8
    base = tmp_path / "base/parameters/all.yml"
    assert loader.inherited("mine.train.epochs") == loader.inherited("sweep.space.train.epochs.high") == base
    for own in ("mine.train.batch_size", "mine.model.dropout", "sweep.space.train.epochs.low", "mine.train.seed"):
        assert loader.inherited(own) is None


UNREADABLE = {  # what stands in the file, and what is said of it
    "a list": (b"- a\n", "is a list; must be a mapping"),
    "a tab": (b"x:\n\ty: 1\n", "line 2 is indented by a tab; YAML wants spaces"),
    "a key twice": (b"x: 1\nx: 2\n", "line 2 gives the key x once more"),
    "two documents": (b"x: 1\n---\ny: 2\n", "line 2 begins a second document"),
    "another encoding": (b"x: 1\ny: \xe4\n", "line 2 is not in UTF-8"),
    "a list left open": (b"x: [1\n", "line 2 is no YAML"),
}


@pytest.mark.parametrize("place", ["mine/parameters/a.yml", "mine/globals.yml", "base/parameters/b.yml"])
@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, load: Loader, case: str, place: str) -> None:
    content, says = UNREADABLE[case]
    with pytest.raises(InputError) as caught:
        load({place: content})["parameters"]
    assert str(tmp_path / place) in caught.value.message
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_what_credentials_hold_is_not_shown(load: Loader) -> None:
    with pytest.raises(InputError) as caught:
        load({"mine/credentials.yml": b"place:\n  key: s3cret\n other: [\n"})["credentials"]
    assert "credentials.yml: line 3" in caught.value.message
    assert "s3cret" not in caught.value.message


GLOBALS = {
    "date: data/mine": r"date: unknown key \(did you mean data\?\); allowed are data, results",
    "data:": "data: given None; must be a folder, or an address",
    "data: [a]": r"data: given \['a'\]; must be a folder, or an address",
    "data: $HOME/mine": r"data: given '\$HOME/mine'; variables of the environment are not read here",
}


@pytest.mark.parametrize("text", GLOBALS)
def test_globals_are_checked(tmp_path: Path, load: Loader, text: str) -> None:
    with pytest.raises(InputError, match=GLOBALS[text]) as caught:
        load({"mine/globals.yml": text.encode()}).check_files()
    assert str(tmp_path / "mine/globals.yml") in caught.value.message


def test_a_variable_that_kedro_reads_in_credentials_only(load: Loader) -> None:
    with pytest.raises(InputError, match=r"^globals\.yml: .*oc\.env at data"):
        load({"mine/globals.yml": b"data: ${oc.env:HOME}/mine"})


def test_globals_that_a_catalog_of_the_users_reads(load: Loader) -> None:
    entry = {"table": {"type": "pandas.CSVDataset", "filepath": "${globals:country}/table.csv"}}
    loader = load({"mine/globals.yml": {"country": "de"}, "mine/catalog.yml": entry})
    loader.check_files()
    assert loader["catalog"]["table"]["filepath"] == "de/table.csv"


def test_a_tilde_is_the_users_folder(load: Loader) -> None:
    loader = load({"mine/globals.yml": {"data": "~/mine"}, "mine/parameters/a.yml": {"a": "${globals:data}"}})
    assert loader["parameters"]["a"] == str(Path.home() / "mine")


def test_files_that_count_for_nothing_are_named(tmp_path: Path, load: Loader, caplog: pytest.LogCaptureFixture) -> None:
    files: dict[str, Any] = {name: {"mine": {}} for name in ("mine/mine.yml", "base/deep/own.json")}
    read = (
        "mine/parameters.yml",
        "mine/deep/parameters_a.yml",
        "mine/catalog_b.yml",
        "mine/logging.yml",
        "mine/.x.yml",
    )
    with caplog.at_level(logging.WARNING):
        load({**files, **{name: {} for name in read}}).check_files()
    named = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert named == [str(tmp_path / name) for name in ("base/deep/own.json", "mine/mine.yml")]


def test_the_projects_own_files_are_all_read(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConfigLoader, "newest", ConfigLoader.newest)
    for folder in sorted(path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        with caplog.at_level(logging.WARNING):
            ConfigLoader(str(ROOT / "conf"), env=folder.name, **CONFIG_LOADER_ARGS).check_files()
    assert not caplog.records


# ---- what YAML reads otherwise than people do ----------------------------------------------------------------------

NUMBERS = {  # as written, and as read
    **{"1e-3": 0.001, "1E5": 1e5, ".5": 0.5, "1_000": 1000, "007": 7, "00": 0, "-08.5": -8.5, "0x10": 16},
    **{"'012'": "012", "'1:30'": "1:30", "2020-01-01": "2020-01-01", "08": "08", "1:75": "1:75", "a:1:30": "a:1:30"},
}


@pytest.mark.parametrize("written", NUMBERS)
def test_what_is_read_as_it_is_written(load: Loader, written: str) -> None:
    assert load({"mine/parameters/a.yml": f"a: [{written}]".encode()})["parameters"]["a"] == [NUMBERS[written]]
    assert parameters(Context(Command("run")), Option(["--params"]), f"a.b={written}") == {"a": {"b": NUMBERS[written]}}


@pytest.mark.parametrize(("written", "read"), [("012", 10), ("-0777", -511), ("1:30", 90), ("12:30:45", 45045)])
def test_numbers_with_other_bases_are_refused(tmp_path: Path, load: Loader, written: str, read: int) -> None:
    says = f"{written} would be read as {read}. Write '{written}' for a text, or {read}"
    with pytest.raises(InputError) as caught:
        load({"mine/parameters/a.yml": f"b: 1\na: [2, {written}]".encode()})["parameters"]
    assert caught.value.message == f"{tmp_path / 'mine/parameters/a.yml'}: line 2: {says}"
    with pytest.raises(BadParameter) as refused:
        parameters(Context(Command("run")), Option(["--params"]), f"b=1,a.b={written}")
    assert refused.value.message == f"a.b={written}: {says}"


YES = ". A text is written in quotes: without them yes, no, on and off are true and false"


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("model: {name: on}", "mine.model.name: given True; must be a valid string" + YES),
        ("model: {name: 7}", "mine.model.name: given 7; must be a valid string. A text is written in quotes: without"),
        ("train: {no: 3}", "given False; Keys should be strings" + YES),
        ("off: 3", "mine.False: unknown key; allowed are model, train" + YES),
    ],
)
def test_what_is_no_text_without_quotes(block: str, says: str) -> None:
    expected: dict[str, Any] = {"mine.model": ModelConfig, "mine.train": TrainConfig}
    found = mistakes({"mine": yaml.safe_load(block)}, expected, set())
    assert [line for line in found if says in line]


def test_a_name_that_is_no_text() -> None:
    (line,) = mistakes({False: {"x": 1}}, {}, {"mine"})  # type: ignore[dict-item]
    assert line.startswith(f"False: unknown key; allowed are mine{YES}")
