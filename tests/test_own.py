"""What users bring by its dotted path: a package of their own, on the path as an installed one would be."""

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from kedro.io import DataCatalog
from starlette.testclient import TestClient

from conftest import ROOT, kedro_run, make_project
from tests.exported import KINDS, checkpoint
from torchloom.config import MetricConfig, OptimizerConfig, ServeConfig, own
from torchloom.data.targets import Classes
from torchloom.errors import InputError
from torchloom.inference.model import open_model
from torchloom.inference.serving import HOST, create_app
from torchloom.modalities import read_info
from torchloom.models import build_network
from torchloom.problems import problem_of
from torchloom.problems.classification.config import ClassificationTrainConfig, ClassifierConfig
from torchloom.problems.evaluation import own_metrics
from torchloom.problems.losses import created_loss
from torchloom.records import provenance
from torchloom.runner import SkipUnchanged
from torchloom.training.callbacks import calling_back

GUESTS = ROOT / "tests/outside"
TASK: dict[str, Any] = {
    "task": {"problem": "classification", "data": "mnist"},
    "data": {"subset": 1000},
    "model": {"name": "guests.networks.wide", "width": 16},
    "train": {
        "epochs": 3,
        "batch_size": 50,
        "threads": 1,
        "loss": {"name": "guests.learning.FocalLoss", "gamma": 1.0},
        "optimizer": {"name": "guests.learning.SignSGD", "lr": 0.002},
        "scheduler": {"name": "guests.learning.Staircase", "factor": 0.5},
    },
    "evaluate": {},
    "export": {},
}


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which can be imported."""
    folder = tmp_path / "site" / "guests"
    shutil.copytree(GUESTS / "guests", folder)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(own, "_named", set())
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "guests"]:
        del sys.modules[name]
    provenance._path.cache_clear()
    provenance._module.cache_clear()


@pytest.fixture
def run(guests: Path, tmp_path: Path) -> Callable[..., DataCatalog]:
    """`guest`, a task all of whose choices are the package's."""
    project = make_project(tmp_path / "project")
    (project / "conf/base/parameters/guest.yml").write_text(yaml.safe_dump({"guest": TASK}))
    return lambda **options: kedro_run(project, "guest", **options)


def test_a_task_of_ones_own_code_trains_is_evaluated_exported_and_reported(run: Callable[..., DataCatalog]) -> None:
    catalog = run()
    assert catalog.load("guest.metrics")["accuracy"] > 0.6
    assert "calibration_error" in catalog.load("guest.metrics")  # as the loss says that softmax makes probabilities
    assert [row["learning_rate"] for row in catalog.load("guest.history")] == [0.002, 0.001, 0.0005]
    assert catalog.load("guest.export_report")["greatest_difference"] < 1e-3
    trained = catalog.load("guest.checkpoint")
    images = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8)
    model = trained.build()
    logits = model(images).detach()
    mean, std = (torch.tensor(getattr(trained.info, name)) for name in ("mean", "std"))
    w = {name.removeprefix("network."): weight for name, weight in trained.weights.items()}
    hidden = ((images / 255 - mean) / std).flatten(1) @ w["1.weight"].T + w["1.bias"]
    np.testing.assert_allclose(logits, (2 * hidden).relu() @ w["3.weight"].T + w["3.bias"], rtol=1e-4, atol=1e-4)
    assert "guests.networks.wide" in catalog.load("guest.report")


def test_when_it_changes_what_it_made_is_stale(run: Callable[..., DataCatalog], guests: Path, tmp_path: Path) -> None:
    def ran() -> list[str]:
        before = {path: path.stat().st_mtime_ns for path in records.glob("*.json")}
        run(runner=SkipUnchanged(), to_nodes=["guest.train"])
        return sorted(path.stem for path in records.glob("*.json") if path.stat().st_mtime_ns != before.get(path))

    records = tmp_path / "project/data/sample/records/nodes"
    assert "guest.train" in ran()
    assert ran() == []
    layers = guests / "layers.py"
    layers.write_text(layers.read_text().replace("self.factor * x", "x * self.factor"))
    provenance._module.cache_clear()
    assert ran() == ["guest.train"]


def test_what_it_uses_counts_wherever_it_lies(guests: Path) -> None:
    """Another package of the user's own that no version stands for; and a module beside a folder of its name."""
    site = guests.parent
    (guests / "lent.py").write_text(
        "from tools import scale\n\n\ndef build(shape, outputs):\n    return scale(outputs)\n"
    )
    (guests / "lent").mkdir()
    (site / "tools.py").write_text(
        "import json\n\n\ndef scale(x):\n    return json.dumps(x)\n\n\ndef other(x):\n    return x\n"
    )
    own.chosen("guests.lent", (), "a network")
    code, packages = provenance.code_of(build_network, names=["guests.lent"])
    assert {"guests.lent", "tools"} <= code.keys()
    assert "json" not in packages
    for old, new, same in (("return x\n", "return -x\n", True), ("dumps(x)", "dumps([x])", False)):
        (site / "tools.py").write_text((site / "tools.py").read_text().replace(old, new))
        provenance._module.cache_clear()
        again, _ = provenance.code_of(build_network, names=["guests.lent"])
        assert (again == code) is same
    del sys.modules["tools"]


def test_a_reader_of_ones_own_brings_data(guests: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "plain").mkdir()
    for number in range(80):
        name, low = ("dark", 0) if number % 4 < 2 else ("light", 100)
        pixels = generator.integers(low, low + 120, (8, 8))
        np.savetxt(tmp_path / f"plain/{name}_{number:02d}.txt", pixels, fmt="%d")
    data = {"preprocess": {"reader": "guests.readers", "folder": str(tmp_path / "plain")}}
    train = {"epochs": 3, "batch_size": 8, "threads": 1, "optimizer": {"name": "Adam", "lr": 0.01}}
    task = {**TASK, "task": {"problem": "classification", "data": "plain"}, "data": {}, "train": train}
    project = make_project(tmp_path / "project")
    (project / "conf/base/parameters/plain.yml").write_text(yaml.safe_dump({"plain": data, "plain_wide": task}))
    catalog = kedro_run(project, "plain_wide", to_nodes=["plain_wide.evaluate"])
    assert catalog.load("plain_info")["shape"] == [1, 8, 8]
    assert catalog.load("plain_wide.metrics")["accuracy"] > 0.9
    data["preprocess"]["folders"] = data["preprocess"].pop("folder")
    (project / "conf/base/parameters/plain.yml").write_text(yaml.safe_dump({"plain": data, "plain_wide": task}))
    with pytest.raises(InputError, match=r"plain\.preprocess\.folders: unknown key \(did you mean folder\?\)"):
        kedro_run(project, "plain_wide")


def draw_pulses(folder: Path, count: int = 400, length: int = 48) -> None:
    """Sequences with up to five pulses of height 9 in some noise."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for _ in range(count):
        pulses = int(generator.integers(0, 6))
        sequence = generator.normal(0, 0.3, length)
        for place in generator.choice(np.arange(2, length - 2, 6), pulses, replace=False):
            sequence[place : place + 3] += [4, 9, 4]
        lines.append(" ".join(f"{value:.3f}" for value in sequence) + f";{pulses}")
    (folder / "drawn.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def pulses(guests: Path, tmp_path: Path) -> Path:
    """A project with `pulses_counter`, whose reader, modality, problem, network and metrics are the package's."""
    project = make_project(tmp_path / "project")
    block = (guests / "pulses.yml").read_text().replace("folder: pulses", f"folder: {project / 'pulses'}")
    (project / "conf/base/parameters/pulses.yml").write_text(block)
    draw_pulses(project / "pulses")
    return project


@pytest.fixture
def counted(pulses: Path) -> DataCatalog:
    return kedro_run(pulses, "pulses_counter")


def test_a_modality_and_a_problem_of_ones_own_go_all_the_way(
    counted: DataCatalog, pulses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = counted.load("pulses_counter.metrics")
    assert metrics["mae"] < 0.5  # of their mean: 1.5
    assert metrics["exact"] > 0.5
    assert abs(metrics["bias"]) < 0.1  # of the mean; a metric of one's own
    assert 0.5 < metrics["worst"] < 3
    assert counted.load("pulses_counter.export_report")["greatest_difference"] < 1e-3
    page, card = (counted.load(f"pulses_counter.{name}") for name in ("report", "model_card"))
    assert "Sequence counting: the network guests.networks.counter" in page
    assert "The first test sequences, with the counts that are off" in page
    assert "pipeline_tag" not in card  # the hub knows no such problem
    assert "| worst |" in card
    example = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(pulses / "data/sample/06_models/pulses_counter")
    exec(example, {})
    assert "Sequence counting of sequences." in card
    described = onnx.load_from_string(counted.load("pulses_counter.onnx")).metadata_props
    known = {entry.key: entry.value for entry in described}
    assert known["problem"] == '"guests.counting.Counting"'
    assert known["modality"] == '"guests.sequences.SequenceInfo"'
    assert json.loads(known["length"]) == 48

    lines = [line.partition(";") for line in (pulses / "pulses/drawn.txt").read_text().splitlines()[:40]]
    (tmp_path / "mine.txt").write_text("\n".join(line for line, *_ in lines) + "\n1 2 3\nno numbers\n")
    asked = {"predict": {"model": "pulses_counter", "files": str(tmp_path / "mine.txt")}}
    answers = kedro_run(pulses, "predict", params=asked)
    found = answers.load("predict.predictions_parquet")["count"].to_numpy()
    assert np.abs(found - [int(count) for *_, count in lines]).mean() < 0.5
    reasons = answers.load("predict.unreadable").to_pylist()
    assert reasons == [
        {"file": "mine.txt:41", "reason": "holds 3 numbers, not 48"},
        {"file": "mine.txt:42", "reason": "holds something else than numbers"},
    ]
    model = open_model(pulses / "data/sample/06_models/pulses_counter/model.onnx")
    client = TestClient(create_app(model, "pulses_counter", ServeConfig(models="")), base_url=f"http://{HOST}")
    takes = client.get("/").json()
    assert (takes["problem"], takes["takes"]) == ("guests.counting.Counting", 'JSON: {"sequences": [...]}')
    sequence = [float(value) for value in lines[0][0].split()]
    (answer,) = client.post("/predict", json={"sequences": [sequence]}).json()
    assert answer["count"] == pytest.approx(found[0], rel=1e-4)
    refused = client.post("/predict", json={"sequences": [[1, 2]]})
    assert (refused.status_code, refused.json()["detail"]) == (422, "sequences[0]: holds 2 numbers, not 48")
    assert "list of lists" in client.post("/predict", json={"sequences": ["a"]}).json()["detail"]


@pytest.mark.long
def test_a_training_of_ones_own_problem_goes_on_with_the_same_bits(counted: DataCatalog, pulses: Path) -> None:
    whole = counted.load("pulses_counter.checkpoint")

    def interrupt(row: dict[str, float]) -> None:
        if row["epoch"] == 20:
            raise KeyboardInterrupt

    often = {"pulses_counter": {"train": {"save_minutes": 1e-9}}}
    with calling_back(interrupt), pytest.raises(KeyboardInterrupt):
        kedro_run(pulses, "pulses_counter", params=often, to_nodes=["pulses_counter.train"])
    catalog = kedro_run(pulses, "pulses_counter", params=often, to_nodes=["pulses_counter.train"])
    assert len(catalog.load("pulses_counter.history")) == 100
    resumed = catalog.load("pulses_counter.checkpoint").weights
    assert resumed.keys() == whole.weights.keys()
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.weights.items())


def test_what_is_monitored_is_better_in_the_direction_that_the_problem_says(pulses: Path) -> None:
    few = {"pulses_counter": {"train": {"monitor": "exact", "epochs": 30}}}
    catalog = kedro_run(pulses, "pulses_counter", params=few, to_nodes=["pulses_counter.train"])
    exact = [row["val_exact"] for row in catalog.load("pulses_counter.history")]
    assert min(exact) < max(exact)
    assert exact[int(catalog.load("pulses_counter.checkpoint").training["epoch"]) - 1] == max(exact)


@pytest.mark.long
def test_code_of_ones_own_problem_and_modality_counts(counted: DataCatalog, pulses: Path, guests: Path) -> None:
    def again(file: str, before: str, after: str) -> set[str]:
        source = (guests / file).read_text()
        assert before in source
        (guests / file).write_text(source.replace(before, after))
        provenance._module.cache_clear()
        stages = SkipUnchanged()
        kedro_run(pulses, "pulses_counter", runner=stages, to_nodes=["pulses_counter.evaluate"])
        return {path.stem for path in records.glob("*.json") if path.stat().st_mtime_ns > now}

    records = pulses / "data/sample/records/nodes"
    now = max(path.stat().st_mtime_ns for path in records.glob("*.json"))
    assert again("counting.py", "(found.round() == counts).double()", "(counts == found.round()).double()") == {
        "pulses_counter.evaluate"
    }
    now = max(path.stat().st_mtime_ns for path in records.glob("*.json"))
    assert again("counting.py", '(found - counts).abs().mean(), "exact"', '(counts - found).abs().mean(), "exact"') == {
        "pulses_counter.train",
        "pulses_counter.evaluate",  # of what that has left
    }
    now = max(path.stat().st_mtime_ns for path in records.glob("*.json"))
    assert again("counting.py", "found = (outputs - targets).mean()", "found = -(targets - outputs).mean()") == {
        "pulses_counter.evaluate"  # a metric
    }
    now = max(path.stat().st_mtime_ns for path in records.glob("*.json"))
    assert "pulses_counter.train" in again("sequences.py", "sequences / self.highest", "sequences * (1 / self.highest)")


@pytest.mark.long
def test_a_path_that_only_a_file_names_is_not_imported_for_a_problem(
    counted: DataCatalog, pulses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "_named", set())
    with pytest.raises(InputError, match=r"guests\.\w+\.\w+: is code that a file names and these parameters do not"):
        open_model(pulses / "data/sample/06_models/pulses_counter/model.onnx")


def test_a_callback_of_ones_own_sees_steps_and_ends_a_training(run: Callable[..., DataCatalog]) -> None:
    chosen = [{"name": "guests.learning.Watch", "epochs": 2}]
    catalog = run(params={"guest": {"train": {"callbacks": chosen, "accumulate": 2}}}, to_nodes=["guest.train"])
    history = catalog.load("guest.history")
    assert [row["epoch"] for row in history] == [1, 2]  # of 3
    norms = sys.modules["guests.learning"].Watch.norms
    assert [step for step, *_ in norms] == list(range(1, 21))  # 1,000 samples in batches of 50, two of them a step
    assert all(norm > 0 for *_, norm in norms)
    assert history[0]["train_loss"] == pytest.approx(np.mean([loss for _, loss, _ in norms[:10]]), rel=0.2)
    with pytest.raises(InputError, match=r"guest\.train\.callbacks\.0\.epoch: unknown key \(did you mean epochs\?\)"):
        run(params={"guest": {"train": {"callbacks": [{"name": "guests.learning.Watch", "epoch": 2}]}}})
    with pytest.raises(InputError, match="has neither on_step nor on_epoch, which are all that is called"):
        run(params={"guest": {"train": {"callbacks": [{"name": "guests.learning.Idle"}]}}})
    with pytest.raises(InputError, match=r"must lead to a class below torchloom\.training\.callbacks\.Callback"):
        run(params={"guest": {"train": {"callbacks": [{"name": "guests.learning.Plain"}]}}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("guests.counting.fails", r"evaluate\.metrics: guests\.counting\.fails fails in line \d+ of \S+: RuntimeError"),
        ("guests.counting.lost", r"evaluate\.metrics: guests\.counting\.lost is (inf|nan), which no report can hold"),
    ],
)
def test_a_metric_that_gives_no_number_is_named(guests: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        own_metrics([MetricConfig(name=name)], torch.ones(3), torch.ones(3), {})


def test_what_is_no_metric_is_refused(guests: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a metric by its dotted path"):
        MetricConfig(name="accuracy")
    with pytest.raises(ValueError, match=r"must lead to a function of outputs and targets"):
        MetricConfig(name="guests.counting")
    with pytest.raises(ValueError, match=r"arguments do not fit bias"):
        MetricConfig(name="guests.counting.bias", relativ=True)
    with pytest.raises(InputError, match=r"there is a metric worst already"):
        own_metrics([MetricConfig(name="guests.counting.worst")], torch.ones(3), torch.ones(3), {"worst"})


def test_a_class_of_ones_own_needs_no_constructor(guests: Path) -> None:
    assert (
        ClassificationTrainConfig.model_validate(
            {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "loss": {"name": "guests.learning.Bare"}}
        ).loss.arguments
        == {}
    )


@pytest.mark.long
def test_several_processes_train_it(run: Callable[..., DataCatalog]) -> None:
    alone, together = (run(params={"distributed": {"processes": n}}, to_nodes=["guest.train"]) for n in (1, 2))
    losses = [[row["train_loss"] for row in catalog.load("guest.history")] for catalog in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


MISTAKES = {  # the block, the key and the message, which names the line where there is one
    "MistakenLoss": (r"train\.loss", r" fails in line \d+ of \S+learning\.py: ValueError: Expected input batch_size"),
    "MistakenOptimizer": (r"train\.optimizer", r" fails in line \d+ of \S+learning\.py: KeyError: 'sum'"),
    "MistakenScheduler": (r"train\.scheduler", r" fails in line \d+ of \S+learning\.py: KeyError: 2"),
    "too_wide": (r"model\.name", ": gives 11 outputs for each sample, and was asked for 10$"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_code_of_ones_own_are_named(
    run: Callable[..., DataCatalog], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, message = MISTAKES[name]
    path = f"guests.networks.{name}" if name.islower() else f"guests.learning.{name}"
    block, _, inner = key.partition(r"\.")
    task = {block: {inner: path if name.islower() else {"name": path}}}
    with pytest.raises(InputError, match=rf"{key}.*{re.escape(path)}{message}") as caught:
        run(params={"guest": task}, to_nodes=["guest.train"])
    if "Error" in message:
        assert caught.value.__cause__ is not None
    assert not re.search(message, caplog.text)  # it is told once


LATER: dict[str, tuple[str, str, str, str]] = {  # where it is named, the stage, the line and what comes of it
    "OddLoss": ("train.loss", "guest.train", "return slope", "IndexError: list index out of range"),
    "FlatLoss": ("train.loss", "guest.train: the gradient of what is yours", "", "RuntimeError: element 0 of tensors"),
    "network": ("model", "guest.train", "raise ValueError", "ValueError: too many\nrows\n  line "),
    "AtStep": ("train.callbacks", "guest.train", "self.nothing", "AttributeError: 'AtStep' object has no attribute"),
    "AtEpoch": ("train.callbacks", "guest.train", 'row["nothing"]', "KeyError: 'nothing'"),
    "AtFirst": ("train.callbacks", "guest.train", "raise RuntimeError", "RuntimeError: at first"),
    "metric": ("evaluate.metrics", "guest.evaluate.metrics", "outputs[len", "IndexError: index 1000 is out of bounds"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in {"AtEpoch", "AtFirst"} else name for name in LATER]
)
def test_code_of_ones_own_that_fails_later_is_named_with_its_lines(
    guests: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, stage, line, message = LATER[name]
    path, file, project = f"guests.mistakes.{name}", guests / "mistakes.py", make_project(tmp_path / "project")
    recipe = {"epochs": 1, "batch_size": 50, "threads": 1, "optimizer": {"name": "SGD", "lr": 0.1}}
    task = {**TASK, "data": {"subset": 100}, "model": {"name": "mlp", "hidden": [4]}, "train": recipe}
    block, _, inner = key.partition(".")
    named = [{"name": path}] if inner in {"callbacks", "metrics"} else {"name": path}
    task[block] = {**task[block], inner: named} if inner else named
    (project / "conf/base/parameters/guest.yml").write_text(yaml.safe_dump({"guest": task}))
    with pytest.raises(InputError) as caught, caplog.at_level(logging.INFO, logger="torchloom"):
        kedro_run(project, "guest", to_nodes=["guest.evaluate"])
    place = [number for number, each in enumerate(file.read_text().splitlines(), 1) if line and line in each]
    at = f" in line {place[0]} of {file}" if line else ""
    assert caught.value.message.startswith(f"{stage}: {path} fails{at}: {message}")
    assert ("in Network.forward\n" in caught.value.message) is (name == "network")  # the way there
    assert caught.value.__cause__ is not None
    assert "Traceback" not in caplog.text
    assert message not in caplog.text  # it is told once


@pytest.mark.long
def test_several_processes_name_code_of_ones_own_that_fails(
    run: Callable[..., DataCatalog], guests: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = {"data": {"subset": 100}, "train": {"callbacks": [{"name": "guests.mistakes.AtStep"}]}}
    with pytest.raises(InputError, match=rf"train: guests\.mistakes\.AtStep fails in line \d+ of {guests}"):
        run(params={"guest": task, "distributed": {"processes": 2}}, to_nodes=["guest.train"])
    assert "Traceback" not in capfd.readouterr().err


def test_a_loss_of_ones_own_gives_a_mean(guests: Path) -> None:
    own.chosen("guests.learning.MistakenLosses", (), "")
    loss = created_loss("guests.learning.MistakenLosses", {})
    assert loss(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)) == pytest.approx(np.log(2))
    with pytest.raises(InputError, match=r"MistakenLosses gives a tensor of \[50\], and must give one number"):
        loss(torch.zeros(50, 2), torch.zeros(50, dtype=torch.int64))
    with pytest.raises(MemoryError), own.running("train.loss", "guests.learning.MistakenLosses"):
        raise MemoryError
    with pytest.raises(ZeroDivisionError), own.running("train.loss", "CrossEntropyLoss"):
        _ = 1 / 0


def test_each_problem_knows_how_many_outputs_it_asked_for() -> None:
    for kind, right, wrong in (
        ("images", torch.zeros(2, 3), torch.zeros(2, 4)),
        ("images", torch.zeros(2, 5, 3), torch.zeros(2, 3, 1)),
        ("table", torch.zeros(2), torch.zeros(2, 2)),
        ("text", (torch.zeros(2, 7, 10),), (torch.zeros(2, 7, 9),)),
    ):
        problem, *_, info = KINDS[kind]
        problem_of(problem).check_answer(right, info)
        with pytest.raises(InputError, match=r"^gives \d+ outputs? for each sample, and was asked for \d+$"):
            problem_of(problem).check_answer(wrong, info)
    masks = KINDS["images"][-1].model_copy(update={"target": Classes(classes=["a", "b"], array="masks")})
    problem_of("segmentation").check_answer(torch.zeros(2, 2, 6, 8), masks)
    with pytest.raises(InputError, match=r"^gives 1 output for each sample, and was asked for 2$"):
        problem_of("segmentation").check_answer(torch.zeros(2, 1, 6, 8), masks)


@pytest.mark.parametrize(
    ("kind", "block", "message"),
    [
        (ClassifierConfig, {"name": "guests.networks.wide", "with": 3}, r"arguments do not fit wide"),
        (ClassifierConfig, {"name": "guests.networks.wide", "width": "x"}, r"arguments do not fit wide"),
        (
            ClassifierConfig,
            {"name": "guests.networks.wyde"},
            r"leads nowhere: guests\.networks has no 'wyde' \(did you mean guests\.networks\.wide\?\)",
        ),
        (ClassifierConfig, {"name": "guests.networks.zzzzz"}, r"leads nowhere: guests\.networks has no 'zzzzz' \["),
        (ClassifierConfig, {"name": "gests.networks.wide"}, r"leads nowhere"),
        (ClassifierConfig, {"name": "guests.broken.wide"}, r"cannot be imported: No module named 'no_such_package_an"),
        (ClassifierConfig, {"name": "guests.networks"}, r"must lead to a function that builds a network"),
        (
            ClassifierConfig,
            {"name": "guests.networks.of_rows"},
            r"asks for the sizes \(features\), but networks for this problem for \(sizes of the inputs, outputs\)",
        ),
        (
            OptimizerConfig,
            {"name": "guests.learning.FocalLoss"},
            r"must lead to a class below torch\.optim\S*\.Optimizer",
        ),
        (OptimizerConfig, {"name": "guests.learning.SignSGD", "momentum": 0.9}, r"arguments do not fit SignSGD"),
    ],
)
def test_mistakes_are_answered(guests: Path, kind: Any, block: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**block)


def test_a_loss_must_be_a_module(guests: Path) -> None:
    given = {"epochs": 1, "optimizer": {"name": "guests.learning.Plain", "lr": 0.1}}
    assert ClassificationTrainConfig.model_validate(given).optimizer.name == "guests.learning.Plain"
    with pytest.raises(ValueError, match=r"must lead to a class below torch\.nn\S*\.Module"):
        ClassificationTrainConfig.model_validate({**given, "loss": {"name": "guests.learning.NoLoss"}})


def test_a_module_with_a_build_is_a_network(guests: Path) -> None:
    assert ClassifierConfig(name="guests.narrow").arguments == {}


def test_what_only_a_file_names_is_not_imported(guests: Path) -> None:
    foreign = checkpoint("images").model_copy(update={"network": "guests.narrow", "arguments": {}})
    with pytest.raises(InputError, match=re.escape("guests.narrow: is code that a file names and these parameters do")):
        foreign.build()
    assert "guests.narrow" not in sys.modules
    loss = {"parameters": {"loss": {"name": "guests.learning.FocalLoss"}}}
    with pytest.raises(InputError, match=r"guests\.learning\.FocalLoss: is code that a file names"):
        _ = foreign.model_copy(update={"training": loss}).link
    ClassifierConfig(name="guests.narrow")  # now the parameters name it, too
    with pytest.raises(InputError, match=r"do not fit the network guests\.narrow"):
        foreign.build()


def test_a_target_of_ones_own_is_that_of_a_modality_of_ones_own(guests: Path) -> None:
    kind, spans = "guests.sequences.SpannedSequenceInfo", "guests.sequences.Spans"
    own.name_also([kind, spans])
    values = {"kind": kind, "length": 9, "highest": 1.0, "target": {"array": "spans", "unit": "ms"}}
    info = read_info(values)
    assert info.target == own.find(spans)(unit="ms")
    assert info.counted == "spans"
    assert read_info(info.model_dump(mode="json")) == info
    message = r"^the problem classification needs data with classes \(labels\) to learn, .* have spans \(spans\)$"
    with pytest.raises(InputError, match=message):
        problem_of("classification").check_data(info)
