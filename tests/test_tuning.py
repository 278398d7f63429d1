"""`kedro tune`, as a user calls it."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kedro.framework.startup import bootstrap_project
from PIL import Image

from conftest import keep_what_does_not_change, make_project
from torchloom.cli import tune
from torchloom.training import batch_size, range_test
from torchloom.tuning import Tuned

TASK = "linear_regression"

pytestmark = pytest.mark.xdist_group("tuning")  # in one process, for the sake of what the tests share


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("tuning") / "project")


@pytest.fixture
def here(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keep_what_does_not_change()
    monkeypatch.chdir(shared)
    monkeypatch.setattr(batch_size, "SPENT", 0.01)
    bootstrap_project(shared)
    return shared


def tuned(*arguments: str) -> Result:
    return CliRunner().invoke(tune, [*arguments, "--env", "sample"], catch_exceptions=False)


def files(project: Path) -> dict[str, bytes]:
    data = project / "data/sample"
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def rows(project: Path, name: str, task: str = TASK) -> list[dict[str, Any]]:
    with (project / f"data/sample/08_reporting/{task}/{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_rate_that_is_suggested_and_nothing_else_is_left(here: Path) -> None:
    tuned("lr", TASK, "--steps", "20")  # prepares the data
    before = files(here)
    plain = "linear_regression.train.optimizer.momentum=0.0"
    result = tuned("lr", TASK, "--params", plain, "--start", "1e-5", "--end", "100", "--steps", "70")
    assert result.exit_code == 0, result.output
    (line,) = re.findall(r"  (kedro run .*)", result.output)
    start, rate = line.rsplit("=", 1)
    assert start == (f"kedro run --env sample --pipelines {TASK} --params {plain},linear_regression.train.optimizer.lr")
    assert 0.01 < float(rate) < 0.5  # of these data 2 / λ is 0.50
    assert "the loss diverged at" in result.output
    after = files(here)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {f"08_reporting/{TASK}/lr_range.csv", f"08_reporting/{TASK}/lr_range.png"}
    assert not [name for name in after if name.startswith(("05_model_input", "06_models"))]
    table = rows(here, "lr_range")
    assert list(table[0]) == ["step", "learning_rate", "loss", "smooth_loss"]
    assert [float(table[0]["learning_rate"]), len(table) < 70] == [1e-5, True]
    with Image.open(here / f"data/sample/08_reporting/{TASK}/lr_range.png") as picture:
        assert picture.size[0] > 300


def test_the_sizes_of_batches_in_a_table(here: Path) -> None:
    result = tuned("batch", TASK, "--most", "40")
    assert result.exit_code == 0, result.output
    table = rows(here, "batch_sizes")
    assert [int(row["batch_size"]) for row in table] == [2, 4, 8, 16, 32, 40]
    enough = [row for row in table if 10 * int(row["batch_size"]) <= 354]  # steps of an epoch are left
    best = max(float(row["samples_per_second"]) for row in enough)
    first = next(row for row in enough if float(row["samples_per_second"]) >= 0.95 * best - 1)
    size = int(first["batch_size"])
    assert f"  kedro run --env sample --pipelines {TASK} --params {TASK}.train.batch_size={size}\n" in result.output
    assert f"train.optimizer.lr={0.2 * size / 354:.2g}" in result.output  # of SGD in proportion
    assert "40: the largest that was to be tried, and fits" in result.output


RATES = {2: 40, 4: 60, 8: 94, 12: 100, 16: 120, 32: 130, 64: 140, 100: 145}  # samples per second by size


def paced(trial: Any, size: int, before: Any) -> batch_size.Tried:
    return batch_size.Tried(size, RATES[size], size / RATES[size], 1e6)


@pytest.mark.parametrize(
    ("most", "setting", "words"),
    [
        (
            "64",  # 35 are the most that leave ten steps
            "64",
            [
                "64: the fastest",
                "32: suggested, at 93 % of that speed, the fewest samples at 95 % of the fastest that leaves ten steps",
                "32: slower, at 93 % of the speed of 64, which it is now; an epoch has 11 steps, now 5 steps",
            ],
        ),
        ("32", "12", ["32: the fastest", "32: suggested, the fewest samples at 95 % of that speed or more"]),
        (
            "32",
            "4,linear_regression.train.accumulate=3",
            [
                "32: the fastest",
                "6: suggested, close to 8: at 72 % of that speed, the fewest samples at 95 % of the fastest that has",
            ],
        ),
    ],
)
def test_the_words_say_how_fast_what_is_suggested_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, most: str, setting: str, words: list[str]
) -> None:
    monkeypatch.setattr(batch_size.Trial, "__call__", paced)
    given = f"{TASK}.train.batch_size={setting}"
    lines = tuned("batch", TASK, "--most", most, "--params", given).output.splitlines()
    first = lines.index("32: the fastest" if most == "32" else "64: the fastest")
    assert [line[: len(said)] for line, said in zip(lines[first:], words, strict=False)] == words
    assert any("slower" in line for line in lines) == any("slower" in line for line in words)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        (
            "scheduler.name=OneCycleLR,linear_regression.train.scheduler.max_lr=0.4",
            "of a step: train.scheduler.max_lr=0.1",
        ),
        (
            "optimizer.name=Muon,linear_regression.train.optimizer.lr=0.1",
            "a hint: no rule is known of Muon's rate, or see",
        ),
        ("optimizer.name=Adam,linear_regression.train.optimizer.lr=0.1", "Adam's rate goes by the square root with"),
    ],
)
def test_the_hint_is_of_the_rate_that_counts(
    here: Path, monkeypatch: pytest.MonkeyPatch, setting: str, hint: str
) -> None:
    monkeypatch.setattr(batch_size.Trial, "__call__", paced)
    given = f"{TASK}.train.batch_size=128,{TASK}.train.{setting}"
    assert hint in tuned("batch", TASK, "--most", "32", "--params", given).output


def test_what_makes_up_a_step_stays_as_it_was(here: Path) -> None:
    """Where batches are accumulated, others are such that a step has as many samples."""
    given = ",".join(f"{TASK}.train.{setting}" for setting in ("batch_size=12", "accumulate=5"))
    result = tuned("batch", TASK, "--most", "50", "--params", given)
    (line,) = re.findall(r"  (kedro run .*)", result.output)
    found = {key: int(value) for key, value in re.findall(r"train\.(batch_size|accumulate)=(\d+)", line)}
    assert found["batch_size"] * found["accumulate"] == 60
    assert "hint" not in result.output


def test_what_finds_its_size_itself_keeps_what_it_accumulates(here: Path) -> None:
    """And has ten steps an epoch."""
    given = ",".join(f"{TASK}.train.{setting}" for setting in ("batch_size=auto", "accumulate=5"))
    result = tuned("batch", TASK, "--most", "50", "--params", given)
    (line,) = re.findall(r"  (kedro run .*)", result.output)
    assert re.findall(r"train\.accumulate=(\d+)", line) == ["5"]
    size = int(re.findall(r"train\.batch_size=(\d+)", line)[-1])
    assert size * 5 * 10 <= 354


def test_ctrl_c_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned("lr", TASK, "--steps", "20")
    before = files(here)
    taken = []

    def step(*_: Any) -> float:
        taken.append(1)
        if len(taken) == 5:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(range_test, "_step", step)
    result = tuned("lr", TASK)
    assert result.exit_code == 1
    assert result.output.endswith("\nAborted!\n")
    assert len(taken) == 5
    assert files(here) == before


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("linear_regresion", r"linear_regresion: .*linear_regression"),
        ("mnist_lenet_quantized", r"mnist_lenet_quantized: quantization is not one training .*; tune mnist_lenet"),
        ("mnist_lenet_federated", r"federation is not one training .*; tune mnist_lenet"),
        ("cifar_resnet_pruned", r"cifar_resnet\.\w+: is not there yet\. Make it first: kedro run --env sample --pipel"),
    ],
)
def test_what_cannot_be_tuned_is_said(here: Path, task: str, message: str) -> None:
    for command in ("lr", "batch"):
        result = CliRunner().invoke(tune, [command, task, "--env", "sample"])
        assert result.exit_code == 1
        assert re.search(message, result.output), result.output


def test_the_rate_of_a_contest_is_found_without_its_judge(here: Path) -> None:
    result = tuned("lr", "mnist_gan", "--steps", "10", "--params", "mnist_gan.model.width=4")
    assert result.exit_code == 0, result.output
    assert len(rows(here, "lr_range", "mnist_gan")) == 10
    assert not (here / "data/sample/06_models/mnist_lenet").exists()


def test_the_rates_of_groups_are_found_with_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is suggested trains all groups as they were tried, at a quarter of it that of the discriminator."""
    monkeypatch.setattr(range_test.RangeTest, "suggestion", lambda _: 0.0012)
    given = "mnist_gan.model.width=4,mnist_gan.train.ema=null,mnist_gan.train.optimizer.lr=0.002"
    result = tuned("lr", "mnist_gan", "--steps", "10", "--params", given)
    said, block, command = re.search(r"(these .*):\n\n(.*)\n\n  (kedro [^\n]*)\n", result.output, re.DOTALL).groups()  # type: ignore[union-attr]
    assert said == "these lines go into conf/sample/parameters/mnist_gan.yml"
    params = "mnist_gan.model.width=4,mnist_gan.train.ema=null"
    assert command == f"kedro run --env sample --pipelines mnist_gan --params {params}"
    file = here / "conf/sample/parameters/mnist_gan.yml"
    before = file.read_bytes()
    try:
        file.write_text(block)
        config = Tuned("mnist_gan", "sample", {}).job.config
    finally:
        file.write_bytes(before)
    assert config.optimizer.arguments == {"lr": 0.0012, "betas": [0.5, 0.999]}
    (group,) = config.optimizer.groups
    assert [group.parameters, group.arguments] == [["*.discriminator.*"], {"lr": 0.0003}]


def test_wrong_options(here: Path) -> None:
    numbers = ["--start", "0"], ["--steps", "3"], ["--end", "x"], ["--end", "inf"], ["--start", "nan"]
    for wrong in (*numbers, ["--start", "1", "--end", "0.1"]):
        assert CliRunner().invoke(tune, ["lr", TASK, *wrong]).exit_code == 2
    result = tuned("lr", TASK, "--params", f"{TASK}.train.optimizer.lrr=3")
    assert result.exit_code == 1
    assert f"{TASK}.train.optimizer.lrr" in result.output


def test_params_that_are_no_yaml(here: Path) -> None:
    result = CliRunner().invoke(tune, ["lr", TASK, "--params", f"{TASK}.train.freeze=[network.*"])
    assert result.exit_code == 2
    assert "'--params': a value is no YAML" in result.output
    assert "[network.*" in result.output
