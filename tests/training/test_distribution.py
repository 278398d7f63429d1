"""Several real processes on this machine that train one network together, over gloo."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.stages import CLASSIFICATION
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig
from torchloom.data.batches import Batches, ImageBatches
from torchloom.data.targets import Classes
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo
from torchloom.pipelines.training.nodes import Trained, say_if_one_step, train_network
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import ClassificationTrainConfig, ClassifierConfig
from torchloom.training import distribution
from torchloom.training.callbacks import calling_back
from torchloom.training.debugging import TABLE, TRACE
from torchloom.training.distribution import (
    ALONE,
    Ranks,
    SyncBatchNorm,
    launch,
    processes_here,
    synchronize_batch_norm,
)
from torchloom.training.loaders import LoaderPlan, TensorFile
from torchloom.training.loop import TIMES, Objective
from torchloom.training.state import TrainingStates

OBJECTIVE = partial(classification_objective, "CrossEntropyLoss", {})
RESNET = ClassifierConfig.model_validate({"name": "resnet", "width": 4})
CNN = ClassifierConfig.model_validate({"name": "cnn", "form": "lenet", "dropout": 0.2})


def plan(folder: Path, train: int = 64, validation: int = 21, **data: Any) -> LoaderPlan:
    """Images whose dark row tells the class; the number to validate on cannot be divided evenly."""
    generator = np.random.default_rng(0)
    files = {}
    for split, count in (("train", train), ("validation", validation), ("test", 8)):
        labels = np.arange(count, dtype=np.int64) % 3
        images = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        images[np.arange(count), labels] //= 4
        path = folder / f"{split}.safetensors"
        TensorsDataset(filepath=str(path)).save(Tensors({"images": images, "labels": labels}))
        fingerprint = TensorsDataset(filepath=str(path)).load().fingerprint
        assert fingerprint is not None
        files[split] = [TensorFile(path=path, fingerprint=fingerprint, length=count)]
    info = ImageInfo(target=Classes(classes=["a", "b", "c"]), shape=[3, 8, 8], mean=[0.5] * 3, std=[0.25] * 3)
    return LoaderPlan(splits=files, info=info, data=DataConfig(**data), batch_size=16, evaluate_batch_size=5, seed=0)


def settings(**changes: Any) -> ClassificationTrainConfig:
    optimizer = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
    given = {"epochs": 3, "batch_size": 16, "optimizer": optimizer, "device": "cpu", "precision": "fp32", "threads": 1}
    return ClassificationTrainConfig.model_validate({**given, **changes})


def train(
    loaders: LoaderPlan,
    processes: int,
    states: TrainingStates | None = None,
    objective: partial[Objective] = OBJECTIVE,
    network: ClassifierConfig = RESNET,
    distributed: dict[str, Any] | None = None,
    debugging: dict[str, Any] | None = None,
    **changes: Any,
) -> Trained:
    together = DistributedConfig.model_validate({"processes": processes, "timeout": 60.0, **(distributed or {})})
    shortened = DebuggingConfig.model_validate(debugging or {})
    return train_network(CLASSIFICATION, loaders, network, settings(**changes), together, shortened, objective, states)


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


def assert_equal(one: Trained, other: Trained) -> None:
    assert timeless(one[2]) == timeless(other[2])
    for mine, theirs in zip(one[:2], other[:2], strict=True):
        assert all(torch.equal(weight, theirs.weights[name]) for name, weight in mine.weights.items())


@pytest.mark.long
def test_who_watches_sees_each_epoch_and_the_first_of_them_is_profiled(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    steps = {"wait": 0, "warmup": 1, "active": 2}
    with calling_back(seen.append):
        trained = train(plan(tmp_path), 2, network=CNN, debugging={"profile": steps})
    assert seen == trained.history
    assert set(trained.profile) == {TRACE, TABLE}
    assert b"c10d::allreduce_" in trained.profile[TABLE]


# ---- the same result, however many ---------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 4])
def test_the_losses_do_not_depend_on_their_number(tmp_path: Path, processes: int) -> None:
    """With batch norm over all, losses added up, penalties, clipping, summed gradients, an average, a frozen group."""
    groups = [{"parameters": ["*.head.*"], "epochs": 1}]
    optimizer = {"name": "SGD", "lr": 0.05, "momentum": 0.9, "groups": groups}
    more = {"accumulate": 2, "l2": 1e-3, "gradient_clip": 1.0, "ema": 0.5, "optimizer": optimizer}
    loaders = plan(tmp_path)
    plus = [{"name": "FocalLoss", "weight": [5.0, 1.0, 2.0], "times": 0.5}, {"name": "HingeLoss"}]
    weighted = partial(classification_objective, "CrossEntropyLoss", {"weight": [1.0, 20.0, 3.0], "plus": plus})
    alone, together = (train(loaders, count, objective=weighted, **more) for count in (1, processes))
    for one, other in zip(timeless(alone[2]), timeless(together[2]), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    assert together[0].weights.keys() == alone[0].weights.keys()
    for name, weight in alone[1].weights.items():
        torch.testing.assert_close(together[1].weights[name], weight, rtol=1e-3, atol=1e-4, msg=name)
    assert alone[2][-1]["train_loss"] < alone[2][0]["train_loss"]


OPTIONS: dict[str, dict[str, Any]] = {
    "freeze": {"freeze": [{"parameters": ["*.stages.*"], "epochs": 1}]},
    "recompute": {"recompute": ["*.stages.*"]},
    "swa": {"swa": {"start": 2}},
    "schedule free": {"optimizer": {"name": "ScheduleFreeAdamW", "lr": 0.01}},
}


@pytest.mark.long
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_gives_the_same_in_two_processes(tmp_path: Path, option: str) -> None:
    more = {"accumulate": 2, "gradient_clip": 1.0, **OPTIONS[option]}
    loaders = plan(tmp_path)
    alone, together = (train(loaders, count, **more) for count in (1, 2))
    for one, other in zip(timeless(alone[2]), timeless(together[2]), strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    for name, weight in alone[1].weights.items():
        torch.testing.assert_close(together[1].weights[name], weight, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.long
def test_without_batch_norm_and_without_synchronising_it(tmp_path: Path) -> None:
    loaders = plan(tmp_path)
    free = {"distributed": {"sync_batch_norm": False}}
    cnn = ClassifierConfig.model_validate({"name": "cnn", "form": "lenet"})
    alone, together = train(loaders, 1, network=cnn), train(loaders, 2, network=cnn, **free)
    for one, other in zip(timeless(alone[2]), timeless(together[2]), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    normed, apart = train(loaders, 1), train(loaders, 2, **free)
    assert timeless(apart[2])[0] != pytest.approx(timeless(normed[2])[0], rel=1e-4)  # each has seen half of a batch


def everything_at_once(ranks: Ranks, job: None) -> dict[str, Any]:
    """What one process sees, in one launch for the sake of time."""
    torch.manual_seed(0)
    inputs, plain = torch.randn(6, 4, 5, requires_grad=True), nn.BatchNorm1d(4)
    model = nn.Sequential(nn.BatchNorm1d(4))
    for layer in (plain, model[0]):
        nn.init.constant_(layer.weight, 0.7)
        nn.init.constant_(layer.bias, 0.3)
    synchronize_batch_norm(model)
    mine = inputs.detach()[ranks.rank :: ranks.size].clone().requires_grad_()
    (model(mine).square() * (1 + ranks.rank)).sum().backward()  # type: ignore[no-untyped-call]
    weights = torch.arange(6) % ranks.size + 1.0
    (plain(inputs).square() * weights[:, None, None]).sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad, inputs.grad[ranks.rank :: ranks.size], rtol=1e-4, atol=1e-5)
    for name, parameter in plain.named_parameters():
        totals = sum(ranks.gather(model[0].get_parameter(name).grad))
        torch.testing.assert_close(totals, parameter.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[0].running_var, plain.running_var)
    torch.testing.assert_close(model[0].running_mean, plain.running_mean)
    model.eval()
    plain.eval()
    torch.testing.assert_close(model(inputs), plain(inputs))
    free, bare = SyncBatchNorm(4, affine=False), nn.BatchNorm1d(4, affine=False)
    torch.testing.assert_close(free(mine), bare(inputs)[ranks.rank :: ranks.size], rtol=1e-4, atol=1e-5)
    low = free(mine.bfloat16())
    assert low.dtype is torch.bfloat16
    low.sum().backward()
    buffer = nn.BatchNorm1d(2)
    buffer.running_mean.fill_(ranks.rank)  # type: ignore[operator, union-attr]
    Ranks(ranks.rank, ranks.size, sync_batch_norm=False).share_buffers(buffer)
    return {
        "gathered": ranks.gather(ranks.rank),
        "one": ranks.one(ranks.rank, 1),
        "total": ranks.total({"a": 0.1 * (ranks.rank + 1), **({"b": 2} if ranks.rank else {})}),
        "buffer": buffer.running_mean,
        "threads": torch.get_num_threads(),
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
        "told": os.environ.get("TORCHLOOM_TOLD"),
    }


@pytest.mark.long
def test_what_one_of_them_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLOOM_TOLD", "yes")
    monkeypatch.setenv("RANK", "7")  # as where a scheduler has started this process
    seen = launch(everything_at_once, None, DistributedConfig(processes=2, timeout=60.0), "cpu")
    assert seen["gathered"] == [0, 1]
    assert seen["one"] == 1
    assert seen["total"] == {"a": 0.1 + 0.2, "b": 2}
    assert seen["buffer"].tolist() == [0, 0]
    assert seen["interface"] == "lo"
    assert seen["told"] == "yes"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_alone_all_of_it_is_nothing() -> None:
    network = nn.BatchNorm1d(2)
    ALONE.prepare(nn.Sequential(network))
    assert ALONE.parallel(network) is network
    assert ALONE.gather(3) == [3]
    assert ALONE.one(3) == 3
    assert ALONE.total({"a": 1.5}) == {"a": 1.5}
    assert ALONE.share == (0, 1)


def test_synchronised_batch_norm_keeps_names_parameters_and_buffers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2, momentum=0.3, eps=0.1)))
    parameters, state = list(model.parameters()), model.state_dict()
    synchronize_batch_norm(model)
    layer = model[1][0]  # type: ignore[index]
    assert isinstance(layer, SyncBatchNorm)
    assert (layer.momentum, layer.eps) == (0.3, 0.1)
    assert all(mine is theirs for mine, theirs in zip(model.parameters(), parameters, strict=True))
    assert model.state_dict().keys() == state.keys()


class Both(Ranks):
    """This process, and another machine's that would use a further recipe."""

    def gather(self, value: Any) -> list[Any]:
        return [value, {**value, **OTHER}]


OTHER: dict[str, Any] = {}


def test_machines_that_would_train_otherwise_are_told_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = {"train": {"epochs": 3}, "packages": {"torch": "2.15"}}
    Both(0, 2).check_same(recipe)
    monkeypatch.setitem(OTHER, "packages", {"torch": "2.14"})
    Both(0, 2).check_same(recipe)
    assert "process 1 has another version: packages.torch: '2.15', now '2.14' there" in caplog.text
    monkeypatch.setitem(OTHER, "train", {"epochs": 4})
    with pytest.raises(
        InputError, match=r"processes 0 and 1 would not train the same:\n  train.epochs: 3, now 4 there"
    ):
        Both(0, 2).check_same(recipe)


# ---- each its part -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("length", "size", "seed"), [(24, 6, 0), (20, 6, 0), (20, 6, None), (1, 6, None), (4, 6, 0)])
def test_their_parts_make_up_each_batch(length: int, size: int, seed: int | None, count: int) -> None:
    whole = list(Batches(length, size, seed))
    parts = [list(Batches(length, size, seed, share=(number, count))) for number in range(count)]
    for step, batch in enumerate(whole):
        found = torch.cat([part[step] for part in parts if step < len(part)])
        assert sorted(found.tolist()) == sorted(batch.tolist())
    assert all(len(Batches(length, size, seed, share=(n, count))) == len(whole) for n in range(count))
    assert all(len(part) for batches in parts for part in batches)  # none is empty


def test_their_random_changes_differ() -> None:
    images, labels = torch.arange(512).view(8, 8, 8, 1).to(torch.uint8), torch.zeros(8, dtype=torch.long)
    change = DataConfig.model_validate({"augment": {"crop_padding": 3}}).augment
    drawn = []
    for share in ((0, 1), (0, 2), (1, 2)):
        data = ImageBatches(images, labels, change, share=share)
        drawn.append([(data.set_epoch(epoch), data[torch.arange(8)][0])[1] for epoch in range(2)])
    assert torch.equal(drawn[0][0], drawn[1][0])  # alone, it is as it always was
    assert not torch.equal(drawn[1][0], drawn[2][0])
    assert not torch.equal(drawn[1][1], drawn[2][0])


def test_batches_that_cannot_be_divided(tmp_path: Path) -> None:
    loaders = plan(tmp_path)
    with pytest.raises(InputError, match=r"batches of 16 samples cannot be divided evenly among 3 processes; 15 could"):
        loaders.loader("train", share=(0, 3))
    assert len(loaders.loader("validation", share=(0, 3))) == 5


# ---- what can go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"machines": 2}, "address: is missing; 2 machines must know where to meet"),
        ({"address": "10.0.0.1"}, "must be host:port"),
        ({"address": "10.0.0.1:99999"}, "must be host:port"),
        ({"processes": 0}, "greater than or equal to 1"),
        ({"restarts": -1}, "greater than or equal to 0"),
    ],
)
def test_wrong_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistributedConfig.model_validate(given)


def test_loaders_of_other_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^train\.batch_size is 8, but the loaders were made for 16\. Run from build_d"
    ):
        train(plan(tmp_path), 1, batch_size=8)


def test_an_epoch_of_one_step_says_what_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    for changes in ({"batch_size": 40}, {"batch_size": 20, "accumulate": 4}, {"batch_size": 13, "accumulate": 4}):
        say_if_one_step(settings(**changes), 39, "samples")
    assert [record.message for record in caplog.records] == [
        "train.batch_size 40 is more than the 39 samples: each epoch is one step, on all of them",
        "train.accumulate 4 is more than the 1 batch of 39 samples: each epoch is one step, on 20 of them",
        "train.accumulate 4 is more than the 3 batches of 39 samples: each epoch is one step, on all of them",
    ]


def test_how_many_on_this_machine() -> None:
    count = torch.accelerator.device_count()
    assert processes_here(DistributedConfig(processes="auto"), "cpu") == 2
    assert processes_here(DistributedConfig(processes="auto", machines=2, address="a:1"), "cpu") == 1
    assert processes_here(DistributedConfig(processes=5), "cpu") == 5
    if count:
        with pytest.raises(InputError, match=f"this machine has {count} devices"):
            processes_here(DistributedConfig(processes=count + 1), "auto")


def dies(file: Path, step: int) -> Objective:
    """Once, at this step, the second process is killed."""
    plain = classification_objective("CrossEntropyLoss", {})
    taken = 0

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal taken
        taken += model.training
        if taken == step and os.environ.get("RANK") == "1" and not file.exists():
            file.touch()
            time.sleep(0.3)  # the first one has time to save what it can
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(model, batch)

    return objective


@pytest.mark.long
def test_one_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    loaders = plan(tmp_path, augment={"crop_padding": 1, "flip": True})
    states = TrainingStates(tmp_path / "states")
    whole = train(loaders, 2, network=CNN)
    objective = partial(dies, tmp_path / "killed", 7)  # in the second epoch of four steps
    again = train(loaders, 2, states, objective, CNN, save_minutes=1e-6)
    assert (tmp_path / "killed").exists()
    assert_equal(again, whole)
    assert len(states.files()) > 0


@pytest.mark.long
def test_one_that_is_killed_too_often(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lost one of its processes 1 times \(distributed.restarts 0\)"):
        train(plan(tmp_path), 2, None, partial(dies, tmp_path / "killed", 3), distributed={"restarts": 0})


@pytest.mark.long
def test_a_mistake_is_told_once_and_not_tried_again(tmp_path: Path) -> None:
    states = TrainingStates(tmp_path / "states")
    optimizer = {"name": "SGD", "lr": 1e30}
    with pytest.raises(InputError, match=r"(the loss became \S+ at step|is no longer finite)"):
        train(plan(tmp_path), 2, states, optimizer=optimizer, distributed={"restarts": 2})
    assert states.files() == []


def stops(folder: Path, step: int) -> Objective:
    plain = classification_objective("CrossEntropyLoss", {})
    taken = 0

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal taken
        taken += model.training
        if taken == step and os.environ["RANK"] == "1" and not (folder / "asked").exists():
            (folder / "asked").touch()
            launcher = multiprocessing.parent_process()
            assert launcher is not None
            assert launcher.pid is not None
            os.kill(launcher.pid, signal.SIGTERM)
            time.sleep(0.5)
        return plain(model, batch)

    return objective


@pytest.mark.long
def test_told_to_stop_it_saves_and_goes_on(tmp_path: Path) -> None:
    loaders, states = plan(tmp_path, train=640), TrainingStates(tmp_path / "states")
    objective = partial(stops, tmp_path, 20)
    with pytest.raises(KeyboardInterrupt):
        train(loaders, 2, states, objective, CNN, save_minutes=60.0)
    assert states.files()
    with pytest.raises(InputError, match=r"processes: 2, now 1"):
        train(loaders, 1, states, objective, CNN)
    again = train(loaders, 2, states, objective, CNN, save_minutes=60.0)
    assert_equal(again, train(loaders, 2, network=CNN))


@pytest.mark.parametrize("host", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_machine_that_never_comes(tmp_path: Path, host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not host:  # as if the address were that of another machine, at which nobody answers
        monkeypatch.setattr(distribution, "_own_address", lambda _: "127.0.0.2")
    distributed = {"machines": 2, "address": "127.0.0.1:29511", "timeout": 1.0}
    with pytest.raises(InputError, match=r"2 machines did not come together within distributed.timeout 1 s"):
        train(plan(tmp_path), 1, distributed=distributed)


def test_an_address_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"distributed.address no.such.host.invalid:1: cannot be reached"):
        train(plan(tmp_path), 1, distributed={"machines": 2, "address": "no.such.host.invalid:1"})
