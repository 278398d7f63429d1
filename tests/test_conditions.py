"""What can go wrong around a run: each ends with one message that says what to do, and leaves what was there."""

import gc
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import kedro, kedro_run, make_project
from test_kill import Attempt, new_project, results, states
from tests.stages import evaluate, train, train_regressor
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig, EvaluateConfig
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.pipelines.training.nodes import build_dataloaders
from torchloom.problems.classification.config import (
    ClassificationTrainConfig,
    ClassifierConfig,
    EvaluateClassifierConfig,
)
from torchloom.problems.classification.metrics import classification_metrics
from torchloom.problems.regression.config import RegressionTrainConfig, RegressorConfig
from torchloom.problems.regression.metrics import regression_metrics

# ---- disks ---------------------------------------------------------------------------------------------------------

MIB = 1 << 20
TINY = {"model": {"hidden": [64]}, "train": {"epochs": 1, "batch_size": 64, "warmup_epochs": 0.0, "threads": 1}}


class Disk:
    """A small disk of its own, which is the data folder of a project."""

    def __init__(self, project: Path) -> None:
        self.project, self.folder = project, project / "data"
        self.folder.mkdir()
        self.mount("-t", "tmpfs", "-o", "size=24m", "tmpfs")

    def mount(self, *options: str) -> None:
        done = subprocess.run(["mount", *options, self.folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=False)

    @contextmanager
    def full_but_for(self, room: int) -> Iterator[None]:
        filler = self.folder / "filler"
        status = os.statvfs(self.folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - room)
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self.mount("-o", "remount,ro")
        try:
            yield
        finally:
            self.mount("-o", "remount,rw")

    def refusal(self, node: str, **settings: Any) -> str:
        """The message that the run ends with."""
        with pytest.raises(InputError) as caught:
            self.run(node, **settings)
        return caught.value.message

    def run(self, node: str, **settings: Any) -> None:
        parameters = {"mnist_mlp": {**TINY, "train": {**TINY["train"], **settings}}}
        kedro_run(self.project, "mnist_mlp", params=parameters, node_names=[node])


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    disk = None
    try:
        disk = Disk(make_project(tmp_path_factory.mktemp("disk") / "project"))
        yield disk
    finally:
        if disk:
            disk.unmount()


# In this order: each builds on what the one before has made. The room is enough for the records of a run.
FULL = [
    ("mnist.download", MIB, "01_raw/mnist/train-images-idx3-ubyte", {}),
    ("mnist.preprocess", MIB, "03_primary/mnist/train.safetensors", {}),
    ("mnist.preprocess", MIB, "03_primary/mnist/train.safetensors", {}),  # with the files of the time before
    ("mnist_mlp.build_dataloaders", 0, "records/", {}),
    ("mnist_mlp.train", MIB // 8, "06_models/mnist_mlp/checkpoint.safetensors", {}),
    ("mnist_mlp.train", MIB, "06_models/mnist_mlp/training_states/", {"save_minutes": 1e-9}),
    ("mnist_mlp.evaluate", 16 << 10, "08_reporting/mnist_mlp/confusion_matrix.png", {}),
]


@pytest.mark.long
@pytest.mark.xdist_group("disk")
@pytest.mark.parametrize(("node", "room", "file", "settings"), FULL)
def test_a_full_disk(disk: Disk, node: str, room: int, file: str, settings: dict[str, Any]) -> None:
    before = results(disk.project)
    with disk.full_but_for(room):
        message = disk.refusal(node, **settings)
        assert file in message
        assert "(No space left on device)" in message
        assert "Make room" in message
        after = results(disk.project)
        del after["filler"]
    assert {name: after[name] for name in before} == before
    if node != "mnist_mlp.evaluate":  # whose pictures take their time
        disk.run(node, **settings)
    assert list(disk.folder.rglob(".*.tmp")) == []


@pytest.mark.xdist_group("disk")
def test_a_disk_that_is_only_read(disk: Disk) -> None:
    before = results(disk.project)
    with disk.read_only(), pytest.raises(InputError, match=r"cannot be written \(Read-only file system\).* rights"):
        disk.run("mnist.download")
    assert results(disk.project) == before


@pytest.mark.parametrize("layer", ["01_raw/diabetes", "03_primary/diabetes", "06_models", "records", "records/runs"])
def test_a_file_where_a_folder_should_be(project: Path, layer: str) -> None:
    place = project / "data" / "sample" / layer
    place.parent.mkdir(parents=True)
    place.write_text("in the way")
    with pytest.raises(InputError) as caught:
        kedro_run(project, "linear_regression", to_nodes=["linear_regression.train"])
    assert str(place) in caught.value.message
    assert place.read_text() == "in the way"


@pytest.mark.long
def test_the_command_line_shows_the_message_alone(project: Path) -> None:
    """Also when a catalog entry raises it, which Kedro wraps."""
    place = project / "data/sample/03_primary/diabetes"
    place.parent.mkdir(parents=True)
    place.write_text("in the way")
    done = kedro(
        project, "run", "--env", "sample", "--tags", "diabetes,download,preprocess", "--namespaces", "diabetes"
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"Error: {place}")


@pytest.mark.long
def test_no_shared_memory(tmp_path: Path) -> None:
    """Batches come from a thread, not from processes that would hand them over there."""
    project = new_project(tmp_path / "project", "mnist_mlp")
    script = "mount -t tmpfs -o ro,size=4k tmpfs /dev/shm && exec kedro run --env sample --pipelines mnist_mlp"
    script += " --to-nodes mnist_mlp.train --params mnist_mlp.data.on_device=false"
    environment = {**os.environ, "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=project, env=environment, capture_output=True, text=True
    )
    if "mount: " in done.stderr or "unshare: " in done.stderr:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


# ---- data ----------------------------------------------------------------------------------------------------------

CLASSES = ["ant", "bee", "cat"]


def saved(folder: Path, **arrays: Any) -> Tensors:
    dataset = TensorsDataset(filepath=str(folder / f"{len(list(folder.iterdir()))}.safetensors"))
    dataset.save(Tensors(arrays))
    return dataset.load()


@contextmanager
def memory_left(room: int | None) -> Iterator[None]:
    """This process can take so many bytes more."""
    if room is None:
        yield
        return
    gc.collect()  # tracebacks of tests before hold large tensors, which would make room when they go
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def classify(
    folder: Path, samples: tuple[int, int, int] = (20, 6, 6), side: int = 8, classes: int = 3, **settings: Any
) -> dict[str, Any]:
    """Plan, train and evaluate a classifier of random images; `settings` are of `train`, `data` and `evaluate`.

    With `room`, training and evaluation can take so many bytes more than the process has.
    """
    generator = np.random.default_rng(0)
    splits = [
        saved(
            folder,
            images=generator.integers(0, 256, (count, side, side, 1), dtype=np.uint8),
            labels=np.arange(count) % classes,
        )
        for count in samples
    ]
    info = {
        "kind": "images",
        "target": {"array": "labels", "classes": CLASSES[:classes]},
        "shape": [1, side, side],
        "mean": [0.5],
        "std": [0.25],
    }
    config = {"epochs": 2, "batch_size": 8, "threads": 1, "precision": "fp32", "device": "cpu"}
    config |= {"optimizer": {"name": "SGD", "lr": 0.01}, **settings.get("train", {})}
    training = ClassificationTrainConfig.model_validate(config)
    evaluation = EvaluateClassifierConfig.model_validate(
        {"pictures": 1, "device": "cpu", **settings.get("evaluate", {})}
    )
    plan = build_dataloaders(
        *splits, info, DataConfig.model_validate(settings.get("data", {})), training, evaluation, DebuggingConfig()
    )
    network = ClassifierConfig.model_validate({"name": "mlp", "hidden": [4]})
    with memory_left(settings.get("room")):
        checkpoint, _, history, _ = train(plan, network, training, DistributedConfig(), DebuggingConfig())
        made = evaluate(checkpoint, plan, history, evaluation)
    metrics: dict[str, Any] = made["metrics"]
    return metrics


def regress(folder: Path, rows: tuple[int, int, int] = (20, 6, 6), **settings: Any) -> None:
    generator = np.random.default_rng(0)
    splits = [
        saved(
            folder,
            features=generator.normal(size=(count, 3)).astype(np.float32),
            target=generator.normal(size=count).astype(np.float32),
        )
        for count in rows
    ]
    info = {"kind": "table", "features": CLASSES, "mean": [0.0] * 3, "std": [1.0] * 3}
    info |= {"target": {"array": "target", "name": "y", "mean": 0.0, "std": 1.0}}
    config = {"epochs": 2, "optimizer": {"name": "SGD", "lr": 0.01}, "device": "cpu", **settings.get("train", {})}
    training = RegressionTrainConfig.model_validate(config)
    plan = build_dataloaders(*splits, info, DataConfig(), training, EvaluateConfig(), DebuggingConfig())
    train_regressor(
        plan, RegressorConfig.model_validate({"name": "linear"}), training, DistributedConfig(), DebuggingConfig()
    )


REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "no training data": (classify, {"samples": (0, 6, 6)}, "there are no train data. Change the fractions"),
    "no test data": (classify, {"samples": (20, 6, 0)}, "there are no test data. Change the fractions"),
    "no rows to test": (regress, {"rows": (20, 6, 0)}, "there are no test data. Change the fractions"),
    "one class": (classify, {"classes": 1}, "takes two classes or more, but these data have only ant"),
    "stopping without validation": (
        classify,
        {"samples": (20, 0, 6), "train": {"early_stopping": {"patience": 1}}},
        r"train\.early_stopping needs a validation split \(preprocess\.validation_fraction above 0\)",
    ),
    "whitening of rows": (
        regress,
        {"train": {"whitening": {}}},
        r"train\.whitening: is for images, but these data are table; leave it out",
    ),
    "no such device": (classify, {"train": {"device": "cuda:99"}}, "the device 'cuda:99' is not on this machine"),
    "no such device to evaluate": (
        classify,
        {"evaluate": {"device": "cuda:99"}},
        "the device 'cuda:99' is not on this machine",
    ),
    "a loss without end": (
        classify,
        {"train": {"optimizer": {"name": "SGD", "lr": 1e30}}},
        r"the loss became (nan|inf).* Try a lower train\.optimizer\.lr",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused(tmp_path: Path, case: str) -> None:
    attempt, settings, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        attempt(tmp_path, **settings)


@pytest.mark.parametrize(
    ("samples", "settings"),
    [
        ((1, 1, 1), {}),
        ((20, 0, 6), {}),
        ((5, 1, 6), {"train": {"batch_size": 1000}}),
        ((20, 6, 6), {"train": {"accumulate": 50}, "data": {"subset": 1}}),
    ],
    ids=["one image", "no validation", "a batch beyond the data", "one image of many"],
)
def test_what_is_little_is_enough(tmp_path: Path, samples: tuple[int, int, int], settings: dict[str, Any]) -> None:
    metrics = classify(tmp_path, samples, **settings)
    assert metrics["test_samples"] == samples[2]
    assert all(np.isfinite(value) for value in metrics.values())
    assert ("roc_auc" in metrics) is (samples[2] > 1)


def test_a_class_that_the_test_data_lack_has_no_part_in_the_auc() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.0]])
    metrics, _, _ = classification_metrics(logits, torch.tensor([0, 1, 0]), CLASSES)
    assert metrics["roc_auc"] == 1.0
    metrics, _, _ = classification_metrics(logits, torch.tensor([1, 1, 1]), CLASSES)
    assert "roc_auc" not in metrics
    assert metrics["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("prediction", "r2"), [([5.0, 5.0], 1.0), ([5.0, 6.0], 0.0)])
def test_the_r2_of_targets_that_are_all_alike(prediction: list[float], r2: float) -> None:
    assert regression_metrics(torch.tensor(prediction), torch.tensor([5.0, 5.0]))["r2"] == r2


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux")
@pytest.mark.parametrize(
    ("samples", "settings", "advice"),
    [
        (
            (2000, 0, 30),
            {"train": {"batch_size": 2000, "accumulate": 2}},
            r"Try train\.batch_size=1000 with train\.accumulate=4, .* and a smaller evaluate\.batch_size",
        ),
        ((30, 0, 2001), {"evaluate": {"batch_size": 2001}}, r"Try evaluate\.batch_size=1000"),
    ],
    ids=["training", "evaluation"],
)
def test_too_little_memory(
    tmp_path: Path, samples: tuple[int, int, int], settings: dict[str, Any], advice: str
) -> None:
    """A batch of 2000 images takes 80 MB, and four times as much in 32 bits."""
    with pytest.raises(InputError, match=rf"the memory is not enough \(.*\)\. {advice}"):
        classify(tmp_path, samples, side=200, room=300 * MIB, **settings)


# ---- Ctrl-C --------------------------------------------------------------------------------------------------------


def group_is_gone(attempt: Attempt) -> bool:
    try:
        os.killpg(attempt.process.pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("task", "stage"),
    [
        *(pytest.param("mnist_mlp", stage, marks=pytest.mark.long) for stage in ("train", "export_onnx")),
        pytest.param("wonderland_lstm", "generate", marks=pytest.mark.long),
    ],
)
def test_ctrl_c(tmp_path: Path, task: str, stage: str) -> None:
    project = new_project(tmp_path / "project", task)
    attempt = Attempt(project, task)
    attempt.wait_for_stage(stage)
    if stage == "train":
        attempt.wait_for(states(project, task).files)
    os.killpg(attempt.process.pid, signal.SIGINT)
    assert attempt.process.wait(60) not in {0, None}
    assert group_is_gone(attempt)
    assert "Traceback" not in attempt.log
    command = attempt.log.partition("interrupted. What is finished stays")[2].splitlines()[1]
    assert command == f"kedro run --env sample --pipelines {task}"
    if stage == "train":
        assert f"stopped; the state is saved in {states(project, task).files()[-1]}" in attempt.log
        again = Attempt(project, task, "--to-nodes", f"{task}.train")
        again.finish()
        assert "going on from" in again.log
        assert states(project, task).files() == []


# ---- two runs at once ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_two_runs_of_a_task_take_turns(tmp_path: Path) -> None:
    task = "mnist_mlp"
    project = new_project(tmp_path / "project", task)
    stages = ("--to-nodes", f"{task}.train")
    first, second = Attempt(project, task, *stages), Attempt(project, task, *stages)
    first.finish()
    second.finish()
    logs = [first.log, second.log]
    waiting = [f"waiting: {task} is in use by " in log for log in logs]
    assert sorted(waiting) == [False, True]
    holder = (first, second)[waiting.index(False)].process.pid
    # which has not said yet who it is where both ask in the same moment
    assert re.search(rf"in use by (process {holder} |another run)", logs[waiting.index(True)])
    alone = new_project(tmp_path / "alone", task)
    Attempt(alone, task, *stages).finish()
    assert results(project) == results(alone)


@pytest.mark.long
def test_data_do_not_change_under_a_run(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project", "mnist_mlp", "mnist_autoencoder")
    reader = Attempt(project, "mnist_mlp", "--params", "mnist_mlp.train.epochs=1000")
    reader.wait_for(states(project, "mnist_mlp").files)
    before = results(project)
    writer = Attempt(project, "mnist_autoencoder", "--params", "mnist.preprocess.validation_fraction=0.3")
    assert writer.process.wait(60) == 1
    assert "Traceback" not in writer.log
    message = writer.log.partition("Error: ")[2]
    assert message.startswith("mnist.preprocess would change data that mnist_mlp is being run on, by process ")
    assert f"process {reader.process.pid} " in message
    assert "validation_fraction: 0.1, now 0.3" in message
    after = results(project)
    assert {name: after[name] for name in before} == before
    assert reader.kill() == "train"
