"""Sweeps over the drawn data: what is refused, what a study holds, and that stopping one costs nothing."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, MemoryDataset
from omegaconf import OmegaConf

from conftest import ROOT, TASKS, TINY, kedro_run, make_project
from processes import KedroProcess
from torchloom import sweeps
from torchloom.config import SweepConfig
from torchloom.config.layers import layered
from torchloom.datasets.sweeps import MARK, EnvironmentDataset
from torchloom.errors import InputError
from torchloom.problems import problem_of
from torchloom.sweeps import nodes
from torchloom.sweeps import outcome as tuned
from torchloom.sweeps import search as sweep
from torchloom.training import loop

TASK = "mnist_mlp"
BLOCK: dict[str, Any] = {
    "task": TASK,
    "trials": 6,
    "space": {
        "train.optimizer.lr": {"low": 0.0003, "high": 0.1, "log": True},
        "train.batch_size": {"low": 32, "high": 128, "step": 32},
        "model.hidden": {"choices": [[4], [16], [16, 16]]},
    },
    "pruner": {"name": "MedianPruner", "n_startup_trials": 2, "n_warmup_steps": 0},
}
ALL = {"name": "BruteForceSampler"}
SMALL = {"data": {"subset": 800}, "train": {"epochs": 4, "threads": 1, "warmup_epochs": 0.5, "device": "cpu"}}


def small_project(folder: Path, block: dict[str, Any] = BLOCK, **tasks: Any) -> Path:
    """A project in which the task is small and the sweep is `block`."""
    project = make_project(folder)
    (project / "conf/base/parameters/sweep.yml").write_text(yaml.safe_dump({"sweep": block}))
    for task, settings in {TASK: SMALL, **tasks}.items():
        path = project / f"conf/sample/parameters/{task}.yml"
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), {task: settings}), path)
    return project


def rows(project: Path) -> list[dict[str, str]]:
    with (project / "data/sample/07_model_output/sweep/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def prepare_from(catalog: DataCatalog) -> Callable[..., dict[str, Any]]:
    """In place of `sweep._prepare`, on data that are prepared: a new process would import all libraries."""

    def inputs(config: SweepConfig, _: Any) -> dict[str, Any]:
        names = [name for name in sweep.train_node(TASKS[config.task]).inputs if not name.startswith("params:")]
        return {name: catalog.get(name) for name in names}

    return inputs


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project in which the sweep has run."""
    project = small_project(tmp_path_factory.mktemp("swept") / "project")
    catalog = kedro_run(project, TASK, to_nodes=[f"{TASK}.build_dataloaders"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        with patch.context() as inner:
            inner.setattr(sweep, "_prepare", prepare_from(catalog))
            kedro_run(project, "sweep")
        yield project


@pytest.fixture(scope="module")
def prepared(swept: Path) -> tuple[dict[str, Any], DataCatalog]:
    """The parameters and the catalog of that project."""
    bootstrap_project(swept)
    with KedroSession.create(swept, env="sample") as session:
        context = session.load_context()
        return context.config_loader["parameters"], context.catalog


@pytest.fixture
def search(
    prepared: tuple[dict[str, Any], DataCatalog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[dict[str, Any]]]:
    """`sweep.search` in a study of this test's own, on data that are prepared; keys of the block can be changed."""
    parameters, catalog = prepared
    monkeypatch.setattr(sweep, "_prepare", prepare_from(catalog))

    def run(folder: str = "study", settings: dict[str, Any] | None = None, **changes: Any) -> list[dict[str, Any]]:
        config = SweepConfig(**{**BLOCK, **changes})
        blocks = sweep.put(parameters[config.task], settings or {})
        return sweep.search(config, {**parameters, config.task: blocks}, tmp_path / folder)

    return run


def without_times(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in {"seconds", "trial"}} for row in trials]


# ---- a whole run ---------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("sweep")
def test_a_sweep_tries_what_it_is_told_to(swept: Path) -> None:
    trials = rows(swept)
    assert [row["trial"] for row in trials] == [str(number) for number in range(6)]
    states = [row["state"] for row in trials]
    assert states[:2] == ["complete", "complete"]
    assert "pruned" in states
    assert {row["epochs"] for row in trials if row["state"] == "complete"} == {"4"}
    assert max(int(row["epochs"]) for row in trials if row["state"] == "pruned") < 4
    assert all(0.0003 <= float(row["train.optimizer.lr"]) <= 0.1 for row in trials)
    assert {row["train.batch_size"] for row in trials} <= {"32", "64", "96", "128"}
    assert {row["model.hidden"] for row in trials} <= {"[4]", "[16]", "[16, 16]"}
    assert len({row["train.optimizer.lr"] for row in trials}) == 6


@pytest.mark.xdist_group("sweep")
def test_the_tuned_environment_trains_to_the_best_value(swept: Path) -> None:
    best = max((row for row in rows(swept) if row["state"] == "complete"), key=lambda row: float(row["val_accuracy"]))
    written = yaml.safe_load((swept / f"conf/tuned/parameters/{TASK}.yml").read_text())[TASK]
    assert written["train"]["optimizer"]["lr"] == float(best["train.optimizer.lr"])
    assert written["train"]["batch_size"] == int(best["train.batch_size"])
    assert written["model"]["hidden"] == json.loads(best["model.hidden"])
    assert written["train"]["epochs"] == 4
    catalog = kedro_run(swept, TASK, env="tuned", to_nodes=[f"{TASK}.train"])
    history = catalog.load(f"{TASK}.history")
    assert max(row["val_accuracy"] for row in history) == float(best["val_accuracy"])
    assert sorted(path.name for path in (swept / "data").iterdir()) == ["sample"]


@pytest.mark.xdist_group("sweep")
def test_the_figures_show_every_trial(swept: Path, prepared: tuple[dict[str, Any], DataCatalog]) -> None:
    _, catalog = prepared
    finished = [row for row in rows(swept) if row["state"] == "complete"]
    points = catalog.load("sweep.optimization_history").data[0]
    assert sorted(points["y"]) == sorted(float(row["val_accuracy"]) for row in finished)
    (bars,) = catalog.load("sweep.importances").data
    assert sorted(bars["y"]) == sorted(BLOCK["space"])
    assert sum(bars["x"]) == pytest.approx(1)
    assert len(catalog.load("sweep.slices").data) == 3
    text = json.dumps(catalog.load("sweep.parallel_coordinates").to_dict())
    assert all(key in text for key in BLOCK["space"])


def test_figures_of_a_single_trial_are_there_too() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert [type(figure).__name__ for figure in tuned.figures(study)] == ["Figure"] * 4


# ---- the study -----------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("sweep")
def test_a_sweep_that_is_stopped_tries_the_same_as_one_that_is_not(
    search: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = search("undisturbed", trials=4)
    watch, seen = loop.improves, []

    def stop(*arguments: Any) -> bool:
        seen.append(1)
        if len(seen) == 7:  # in the midst of a trial
            raise KeyboardInterrupt
        return watch(*arguments)

    monkeypatch.setattr(loop, "improves", stop)
    with pytest.raises(KeyboardInterrupt):
        search("stopped", trials=4)
    study = optuna.load_study(study_name=undisturbed[0]["study"], storage=f"sqlite:///{tmp_path}/stopped/study.db")
    assert [trial.state.name for trial in study.trials].count("RUNNING") == 1
    assert 1 < len(study.trials) < 4
    trials = search("stopped", trials=4)
    assert without_times(trials) == without_times(undisturbed)
    more = search("stopped", trials=5)
    assert more[:4] == trials
    assert len({row["trial"] for row in more}) == 5


@pytest.mark.xdist_group("sweep")
def test_another_recipe_is_another_study(search: Callable[..., Any]) -> None:
    few: dict[str, Any] = {"trials": 1}
    (first,) = search(**few)
    assert search(**few, settings={"train.threads": 1, "train.save_minutes": 1.0})[0] == first
    assert search(**few, settings={"train.optimizer.lr": 0.5})[0] == first  # which the sweep draws
    assert search(**few, sampler={"name": "RandomSampler"}, seed=7, workers=1)[0] == first
    others = [
        search(**few, settings={"train.epochs": 3}),
        search(**few, space={**BLOCK["space"], "train.batch_size": {"low": 32, "high": 64}}),
        search(**few, settings={"data.subset": 700}),
    ]
    assert len({first["study"], *(trial["study"] for (trial,) in others)}) == 4
    assert search(**few)[0] == first


@pytest.mark.xdist_group("sweep")
def test_the_seed_decides_what_is_tried(search: Callable[..., Any]) -> None:
    one, same, other = (search(str(number), trials=1, seed=seed) for number, seed in enumerate((3, 3, 4)))
    assert without_times(one) == without_times(same)
    assert one[0]["train.optimizer.lr"] != other[0]["train.optimizer.lr"]


@pytest.mark.xdist_group("sweep")
def test_what_diverges_has_failed_and_the_sweep_goes_on(search: Callable[..., Any]) -> None:
    space = {"train.optimizer.lr": {"choices": [0.01, 1e30]}}
    optimizer = {"train.optimizer": {"name": "SGD", "lr": 0.1}}
    trials = search(trials=2, space=space, sampler=ALL, settings=optimizer)
    assert sorted((row["train.optimizer.lr"], row["state"]) for row in trials) == [(0.01, "complete"), (1e30, "fail")]
    assert "the loss became" in next(row["reason"] for row in trials if row["state"] == "fail")
    space = {"train.optimizer.lr": {"choices": [1e29, 1e30]}}
    with pytest.raises(InputError, match=r"of 2 trials .* none has finished: pruned: 0; the loss became"):
        search(trials=2, space=space, settings=optimizer)


@pytest.mark.xdist_group("sweep")
def test_values_that_do_not_go_together_have_failed(search: Callable[..., Any]) -> None:
    space = {"train.epochs": {"choices": [1, 4]}, "train.warmup_epochs": {"choices": [0.5, 2.0]}}
    trials = search(trials=9, space=space, sampler=ALL)
    assert len(trials) == len(search(trials=9, space=space, sampler=ALL)) == 4  # there are no others
    failed = [row for row in trials if row["state"] == "fail"]
    assert [(row["train.epochs"], row["train.warmup_epochs"]) for row in failed] == [(1, 2.0)]
    assert "warmup_epochs: given 2.0; must be less than epochs 1" in failed[0]["reason"]


@pytest.mark.xdist_group("sweep")
def test_a_mistake_that_is_not_in_the_values_ends_the_sweep_and_costs_no_trial(
    search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise InputError("train.safetensors: has changed")

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "train", broken)
        with pytest.raises(InputError, match=r"as its trial with train.optimizer.lr=.* has changed"):
            search(trials=2)
    assert [row["state"] for row in search(trials=2)] == ["complete", "complete"]


@pytest.mark.xdist_group("sweep")
def test_a_loss_is_minimised_on_a_split_that_the_task_would_train_on(
    swept: Path, search: Callable[..., Any], tmp_path: Path
) -> None:
    task = "linear_regression"
    catalog = kedro_run(swept, task, to_nodes=[f"{task}.build_dataloaders"])
    plan = catalog.load(f"{task}.dataloaders")
    assert (plan.length("validation"), plan.data.include_validation) == (0, True)
    space = {"train.epochs": {"choices": [1, 10]}}
    trials = search(task=task, trials=2, space=space, sampler=ALL, settings={"train.threads": 1})
    assert [row["state"] for row in trials] == ["complete", "complete"]
    losses = {row["train.epochs"]: row["val_loss"] for row in trials}
    assert losses[10] < losses[1]
    study = optuna.load_study(study_name=trials[0]["study"], storage=f"sqlite:///{tmp_path}/study/study.db")
    assert study.best_value == losses[10]


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parameters() -> dict[str, Any]:
    loader = OmegaConfigLoader(
        str(ROOT / "conf"), base_env="base", default_run_env="base", merge_strategy={"parameters": "soft"}
    )
    found: dict[str, Any] = loader["parameters"]
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "mnist_mpl"}, r"sweep\.task: given 'mnist_mpl'; unknown task to train \(did you mean mnist_mlp\?\)"),
        ({"task": "mnist_lenet_quantized"}, r"sweep\.task: given 'mnist_lenet_quantized'; unknown task to train"),
        ({"sampler": {"name": "TPE"}}, r"sweep\.sampler\.name: given 'TPE'; must be a sampler of .* TPESampler"),
        ({"sampler": {"name": "TPESampler", "sed": 1}}, r"sweep\.sampler: .*sed: unknown key \(did you mean seed\?\)"),
        ({"pruner": {"name": "MedianPrune"}}, r"sweep\.pruner\.name: .* \(did you mean MedianPruner\?\)"),
        ({"pruner": {"name": "MedianPruner", "n_warmup_steps": -1}}, r"sweep\.pruner: .* cannot be made: .*-1"),
        ({"space": {"train.epoch": {"low": 1, "high": 2}}}, r"sweep\.space\.train\.epoch\.low: .* mean epochs\?"),
        ({"space": {"trian.epochs": {"low": 1, "high": 2}}}, r"sweep\.space\.trian\.epochs: .* data, model, train of"),
        ({"space": {"train": {"low": 1, "high": 2}}}, r"sweep\.space\.train: must be a key in the blocks"),
        (
            {"space": {"train.batch_size": {"low": 0, "high": 64}}},
            r"sweep\.space\.train\.batch_size\.low: mnist_mlp\.train\.batch_size: given 0; must be greater than or eq",
        ),
        (
            {"space": {"data.augment.mixup": {"low": 0.0, "high": -1.0}}},
            r"must have a low that is less than high",
        ),
        (
            {"space": {"train.batch_size": {"low": 1.0, "high": 64.0}}},
            r"batch_size\.high: mnist_mlp\.train\.batch_size: given 64\.0; must be a valid integer",
        ),
        (
            {"space": {"train.optimizer.name": {"choices": ["SGD", "Addam"]}}},
            r"space\.train\.optimizer\.name\.choices\.1: mnist_mlp\.train\.optimizer\.name: given 'Addam'; must be",
        ),
        (
            {"space": {"train.optimizer.lrr": {"low": 0.1, "high": 0.2}}},
            r"sweep\.space\.train\.optimizer\.lrr\.low: mnist_mlp\.train\.optimizer\.lrr: unknown key",
        ),
        ({"space": {"model.width": {"low": 1, "high": 2}}}, r"sweep\.space\.model\.width\.low: .*unknown key"),
        (
            {"space": {"model.hidden.0": {"low": 0, "high": 2}}},
            r"sweep\.space\.model\.hidden\.0\.low: .*model\.hidden\.0: given 0",
        ),
        ({"space": {"model.hidden.9": {"low": 1, "high": 2}}}, r"sweep\.space\.model\.hidden\.9: \[.*\] has no 9"),
        ({"space": {"train.epochs.0": {"low": 1, "high": 2}}}, r"sweep\.space\.train\.epochs\.0: \d+ has no keys"),
        ({"space": {"train.monitor": {"choices": ["loss", "accuracy"]}}}, r"train\.monitor: cannot be drawn"),
        ({"space": {"data.include_validation": {"choices": [True, False]}}}, r"include_validation: cannot be drawn"),
        (
            {"task": "wonderland_lstm", "space": {"train.loss.label_smoothing": {"low": 0.0, "high": 0.5}}},
            r"train\.loss\.label_smoothing: cannot be drawn: .*train\.monitor: loss",
        ),
        ({"task": "cifar_resnet_pruned"}, r"sweep\.space\.model\.hidden: must be a key in the blocks train of cifar"),
    ],
)
def test_a_sweep_with_a_mistake_is_refused(parameters: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ValueError), match=message):
        sweep.check(SweepConfig(**{**BLOCK, **changes}), parameters)


@pytest.mark.parametrize("missing", ["optuna", "plotly"])
def test_without_its_extra_a_sweep_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delattr(sweeps, "search")
    monkeypatch.delitem(sys.modules, "torchloom.sweeps.search")
    with pytest.raises(
        InputError, match=rf"^a sweep needs {missing}, .* uv sync --extra sweep, .*pip install 'torchloom\[sweep\]'"
    ):
        nodes.search({}, SweepConfig(**BLOCK), Path())


def test_the_sweep_of_the_project_is_right(parameters: dict[str, Any]) -> None:
    sweep.check(SweepConfig(**parameters["sweep"]), parameters)


def test_classes_can_be_drawn_with_a_loss_of_another_kind(parameters: dict[str, Any]) -> None:
    space = {
        "train.loss.label_smoothing": {"low": 0.0, "high": 0.5},
        "train.early_stopping.patience": {"low": 1, "high": 3},
    }
    sweep.check(SweepConfig(**{**BLOCK, "space": space}), parameters)


def test_the_parts_of_a_loss_can_be_drawn(parameters: dict[str, Any]) -> None:
    plus = [{"name": "FocalLoss", "times": 1.0}]
    task = sweep.put(parameters["mnist_mlp"], {"train.loss": {"name": "CrossEntropyLoss", "plus": plus}})
    changed = {**parameters, "mnist_mlp": task}
    space = {"train.loss.plus.0.times": {"low": 0.1, "high": 1.0}, "train.loss.plus.0.gamma": {"choices": [1.0, 2.0]}}
    sweep.check(SweepConfig(**{**BLOCK, "space": space}), changed)
    drawn = sweep.put(task, {"train.loss.plus.0.times": 0.5})
    assert drawn["train"]["loss"]["plus"] == [{"name": "FocalLoss", "times": 0.5}]
    space["train.loss.plus.0.times"]["low"] = 0.0
    with pytest.raises(InputError, match=r"times\.low: mnist_mlp\.train\.loss\.plus\.0\.times: given 0\.0; must be gr"):
        sweep.check(SweepConfig(**{**BLOCK, "space": space}), changed)


@pytest.mark.xdist_group("sweep")
@pytest.mark.parametrize(
    ("workers", "own", "threads"),
    [(1, None, 6), (2, None, 3), (4, None, 1), (8, None, 1), (2, 5, 5)],
)
def test_workers_share_the_cores(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch, workers: int, own: int | None, threads: int
) -> None:
    """Of a machine of six, unless the task says how many it takes."""
    monkeypatch.setattr(sweep, "usable_cores", lambda: 6)
    config = SweepConfig(**{**BLOCK, "workers": workers})
    blocks = sweep.put(parameters[config.task], {"train.threads": own})
    shared = sweep._shared(sweep.Sweep(config, {**parameters, config.task: blocks}, Path("study"), {}))
    assert shared.parameters[config.task]["train"]["threads"] == threads


@pytest.mark.xdist_group("sweep")
def test_keys_for_other_data_are_refused(search: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"^sweep\.space\.data\.window: is for text, but these data are images"):
        search(space={"data.window": {"low": 16, "high": 64}})


@pytest.mark.xdist_group("sweep")
def test_without_a_validation_split_there_is_nothing_to_compare_by(
    search: Callable[..., Any], prepared: tuple[dict[str, Any], DataCatalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{TASK}.dataloaders"
    plan = prepared[1].load(name)
    without = plan.model_copy(update={"splits": {**plan.splits, "validation": []}})
    monkeypatch.setattr(sweep, "_prepare", lambda *_: {name: MemoryDataset(without)})
    with pytest.raises(InputError, match=r"a validation split, which the data of mnist_mlp do not have"):
        search()


@pytest.mark.xdist_group("sweep")
def test_a_damaged_study_is_named(search: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/study.db").write_bytes(b"no database " * 1000)
    with pytest.raises(InputError, match=r"study\.db: cannot be used \(file is not a database\)"):
        search("damaged")


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("v9.9.9.a", "a newer Optuna than .*, which is installed. Update it: pip install -U optuna; or move the file"),
        ("v2.6.0.a", "an older Optuna than .*: optuna storage upgrade --storage sqlite:///"),
    ],
)
def test_a_study_of_another_optuna_is_named(tmp_path: Path, revision: str, says: str) -> None:
    sweep.open_study(tmp_path, "one", "minimize")
    with closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.execute("update alembic_version set version_num = ?", [revision])
        database.commit()
    with pytest.raises(InputError, match=rf"study\.db: is of {says}"):
        sweep.open_study(tmp_path, "one")


@pytest.mark.parametrize("lock", ["exclusive", "immediate"])
def test_a_study_that_another_process_holds_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(sweep, "WAIT", 0.1)
    study = sweep.open_study(tmp_path, "one", "minimize")
    with closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.execute(f"begin {lock}")
        said = r"study\.db: cannot be used \(database is locked\)\. Another process holds it: end that, and repeat"
        with pytest.raises(InputError, match=said), sweep._stored(tmp_path):
            study.ask()
        with pytest.raises(InputError, match=said), sweep._stored(tmp_path):
            sweep.open_study(tmp_path, "two", "minimize")


# ---- the environment -----------------------------------------------------------------------------------------------


def test_nothing_of_base_comes_back_in_the_tuned_environment(parameters: dict[str, Any]) -> None:
    sgd = {"name": "SGD", "lr": 0.1, "momentum": 0.9}
    drawn = {"data.augment": {}, "train.optimizer": sgd, "train.scheduler": None}
    space = {key: {"choices": [value]} for key, value in drawn.items()}
    labels = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in drawn.items()}
    kinds = {key: optuna.distributions.CategoricalDistribution([label]) for key, label in labels.items()}
    best = optuna.trial.create_trial(value=0.9, params=labels, distributions=kinds)
    config = SweepConfig.model_validate({"task": "mnist_mlp", "space": space})
    files = tuned.environment_files(config, parameters, best, ROOT / "conf")
    written = yaml.safe_load(files["parameters/mnist_mlp.yml"])["mnist_mlp"]
    merged = layered(parameters["mnist_mlp"], written)
    assert parameters["mnist_mlp"]["data"]["augment"] == {"crop_padding": 1}
    assert merged["data"]["augment"] == {"crop_padding": 0}
    assert merged["train"]["optimizer"] == sgd
    assert merged["train"]["scheduler"] is None


def test_a_file_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "parameters/mine.yml"
    own.parent.mkdir()
    own.write_text("# my own settings\nmine: {train: {epochs: 99}}\n")
    dataset = EnvironmentDataset(filepath=str(tmp_path))
    with pytest.raises(InputError, match=r"parameters/mine\.yml: is not of a sweep"):
        dataset.save({"globals.yml": f"{MARK}\ndata: data\n", "parameters/mine.yml": f"{MARK}\nmine: {{}}\n"})
    assert own.read_text().startswith("# my own settings")
    assert dataset.load() == {}


def test_the_environment_holds_what_belongs_together(tmp_path: Path) -> None:
    dataset = EnvironmentDataset(filepath=str(tmp_path))
    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters/own.yml").write_text("own: {}")
    first = {"parameters/a.yml": f"{MARK} of a\na: {{}}\n", "globals.yml": f"{MARK} of a\ndata: data/sample\n"}
    second = {"parameters/b.yml": f"{MARK} of b\nb: {{}}\n", "globals.yml": f"{MARK} of b\ndata: data/sample\n"}
    third = {"parameters/c.yml": f"{MARK} of c\nc: {{}}\n"}
    dataset.save(first)
    dataset.save(second)
    assert dataset.load() == {**first, **second}
    before = dataset.fingerprint()
    dataset.save(third)
    assert dataset.load() == third
    assert dataset.fingerprint() != before
    assert (tmp_path / "parameters/own.yml").read_text() == "own: {}"


# ---- runs that are stopped -----------------------------------------------------------------------------------------


class Attempt:
    """A `kedro run --pipelines sweep` in a process of its own; `log` is what it says."""

    def __init__(self, project: Path, *options: str) -> None:
        self.output = project / f"output{len(list(project.glob('output*')))}.txt"
        command = ["run", "--env", "sample", "--pipelines", "sweep", *options]
        self.process = KedroProcess(project, *command, output=self.output, errors=self.output)

    @property
    def log(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, said: str) -> None:
        while said not in self.log:
            assert self.process.poll() is None, self.log
            time.sleep(0.02)

    def family(self) -> list[int]:
        """The processes of its session."""
        found = subprocess.run(["pgrep", "-s", str(self.process.pid)], capture_output=True, text=True).stdout
        return [int(pid) for pid in found.split()]

    def assert_gone(self) -> None:
        end = time.monotonic() + 60
        while self.family() and time.monotonic() < end:
            time.sleep(0.05)
        assert self.family() == []

    def finish(self) -> None:
        assert self.process.wait(300) == 0, self.log


# long enough to be caught in the middle, and none is pruned
LONGER = {TASK: {**SMALL, "train": {**SMALL["train"], "epochs": 100}}}
FEW = {**BLOCK, "trials": 5, "pruner": {"name": "NopPruner"}}


def study_of(project: Path) -> optuna.Study:
    storage = f"sqlite:///{project}/data/sample/07_model_output/sweep/study.db"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def in_training(project: Path) -> list[optuna.trial.FrozenTrial]:
    running = study_of(project).get_trials(states=[optuna.trial.TrialState.RUNNING])
    return [trial for trial in running if trial.intermediate_values]


@pytest.mark.long
def test_a_sweep_that_is_killed_goes_on(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", {**FEW, "workers": 2}, **LONGER)
    attempt = Attempt(project)
    attempt.wait_for("1 of 5: ")
    while not in_training(project):
        assert attempt.process.poll() is None, attempt.log
    attempt.process.kill()
    attempt.process.wait()
    attempt.assert_gone()
    states = [trial.state.name for trial in study_of(project).trials]
    unfinished = in_training(project)
    assert 1 <= len(unfinished) <= states.count("RUNNING") <= 2
    again = Attempt(project)
    again.finish()
    assert f": trials done: {len(states) - states.count('RUNNING')} of 5" in again.log
    trials = rows(project)
    assert len(trials) == 5
    assert [trial.state.name for trial in study_of(project).trials].count("FAIL") == states.count("RUNNING")
    for trial in unfinished:
        tried = [row for row in trials if row["train.optimizer.lr"] == str(trial.params["train.optimizer.lr"])]
        assert len(tried) == 1
    again.assert_gone()


@pytest.mark.long
def test_ctrl_c_stops_a_sweep_with_its_workers(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", {**FEW, "workers": 2}, **LONGER)
    attempt = Attempt(project)
    attempt.wait_for("1 of 5: ")
    assert len(attempt.family()) >= 3
    os.killpg(attempt.process.pid, signal.SIGINT)  # as a terminal does
    assert attempt.process.wait(60) != 0
    attempt.assert_gone()
    assert "interrupted. What is finished stays" in attempt.log
    assert "kedro run --env sample --pipelines sweep" in attempt.log.partition("interrupted.")[2]
    assert "Traceback" not in attempt.log
    again = Attempt(project, "--params", "sweep.workers=1")
    again.finish()
    assert len(rows(project)) == 5
    assert (project / f"conf/tuned/parameters/{TASK}.yml").exists()


@pytest.mark.long
def test_what_is_made_of_another_task_can_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"train.prune.amount": {"choices": [0.1, 0.9]}}
    block = {"task": "cifar_resnet_pruned", "trials": 2, "space": space, "sampler": ALL}
    pruned = {"train": {"epochs": 2, "prune": {"epochs": 2}}}
    small = {"cifar_resnet": TINY["cifar_resnet"], "cifar_resnet_pruned": pruned}
    project = small_project(tmp_path / "project", block, **small)
    monkeypatch.chdir(project)
    with pytest.raises(InputError, match=r"cifar_resnet\.\w+: is not there yet\. Make it first: kedro run"):
        kedro_run(project, "sweep")
    kedro_run(project, "cifar_resnet", to_nodes=["cifar_resnet.train"])
    kedro_run(project, "sweep")
    trials = {row["train.prune.amount"]: row for row in rows(project)}
    assert {row["state"] for row in trials.values()} == {"complete"}
    assert float(trials["0.1"]["val_accuracy"]) > float(trials["0.9"]["val_accuracy"])
    catalog = kedro_run(project, "cifar_resnet_pruned", env="tuned", to_nodes=["cifar_resnet_pruned.train"])
    assert catalog.load("cifar_resnet_pruned.history")[-1]["val_accuracy"] == float(trials["0.1"]["val_accuracy"])


@pytest.mark.parametrize(("monitor", "better"), [("mae", "MINIMIZE"), ("r2", "MAXIMIZE")])
def test_a_study_goes_where_more_of_what_is_monitored_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: str, better: str
) -> None:
    optimizer = {"name": "SGD", "lr": 0.1}
    training = problem_of("regression").training(epochs=1, optimizer=optimizer, monitor=monitor)
    monkeypatch.setattr(sweep, "blocks_of", lambda *_: SimpleNamespace(training=training))
    study = sweep._begin(sweep.Sweep(SweepConfig.model_validate(BLOCK), {}, tmp_path, {}, "one"))
    assert study.direction.name == better
    assert study.metric_names == [f"val_{monitor}"]
