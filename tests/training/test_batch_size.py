"""Which size of batches is found, and that a training keeps the one that it has found."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.training.test_distribution import CNN, OBJECTIVE, assert_equal, plan, settings, train
from torchloom.data.batches import Batches
from torchloom.errors import InputError
from torchloom.models import build_network
from torchloom.pipelines.training import nodes
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import FederatedTrainConfig
from torchloom.system.devices import NoMemoryError
from torchloom.training import batch_size
from torchloom.training.batch_size import Sizes, Trial, Tried, explore, peak_memory, predicted, together
from torchloom.training.distribution import ALONE, Ranks
from torchloom.training.state import TrainingStates

CPU = torch.device("cpu")

# ---- which sizes are tried -----------------------------------------------------------------------------------------


def machine(largest: int = 10**9, fixed: float = 0.01, each: float = 0.0001) -> Callable[..., Tried | None]:
    """A step takes `fixed` seconds, and `each` for a sample, of which so many fit."""

    def attempt(size: int, before: list[Tried]) -> Tried | None:
        seconds = fixed + each * size
        return Tried(size, size / seconds, seconds, 1000.0 * size) if size <= largest else None

    return attempt


def sizes_of(found: Sizes) -> list[int]:
    return [each.batch_size for each in found.tried]


@pytest.mark.parametrize("largest", [1, 2, 3, 5, 100, 777, 1024, 4000])
def test_the_largest_that_fits_is_found_to_an_eighth(largest: int) -> None:
    found = explore(machine(largest), 100_000, seconds=100)
    last = found.tried[-1].batch_size
    assert found.ended == "memory"
    assert last <= largest < last + max(1, last // 8) + 1
    assert last < found.too_large <= last + max(1, last // 8)  # type: ignore[operator]
    assert sizes_of(found) == sorted(sizes_of(found))


def test_not_one_sample_fits() -> None:
    with pytest.raises(NoMemoryError, match=r"not enough for a step with one sample\. Try a smaller network"):
        explore(machine(0), 100)


def test_where_it_ends() -> None:
    assert sizes_of(explore(machine(), 50)) == [2, 4, 8, 16, 32, 50]
    assert explore(machine(), 50).ended == "samples"
    assert sizes_of(explore(machine(), 1)) == [1]
    slow = explore(machine(each=0.01), 5000, seconds=1.0)
    assert (sizes_of(slow)[-1], slow.ended) == (128, "time")
    level = explore(machine(fixed=0, each=0.0001), 5000, patience=2)
    assert (sizes_of(level)[-1], level.ended) == (64, "speed")
    assert explore(machine(fixed=0), 5000).ended == "samples"


def test_the_smallest_that_is_nearly_as_fast_is_suggested() -> None:
    rates = {8: 100.0, 16: 180.0, 32: 199.0, 64: 205.0, 128: 190.0}
    found = Sizes([Tried(size, rate, size / rate, 0) for size, rate in rates.items()])
    assert found.fastest.batch_size == 64
    assert found.suggested().batch_size == 32
    assert found.suggested(most=16).batch_size == 16
    assert found.suggested(most=4).batch_size == 8


def test_another_size_between_is_tried_too() -> None:
    found = explore(machine(), 64)
    for size, tried in ((12, 12), (8, 8), (128, None)):  # one between, one of them, and one that is too large
        also = found.also(machine(), size)
        assert (also and also.batch_size) == tried
    assert sizes_of(found) == [2, 4, 8, 12, 16, 32, 64]
    assert found.also(lambda *_: None, 13) is None
    assert len(found.tried) == 7


def test_memory_is_foretold_by_its_growth() -> None:
    tried = [Tried(size, 1, 1, 1000 + 30 * size) for size in (2, 4, 8)]
    assert predicted(tried, 16, idle=500) == 1000 + 30 * 16
    assert predicted(tried[:1], 4, idle=500) == 1060 + 560
    assert predicted([], 2, idle=500) == 500
    assert predicted([*tried, Tried(16, 1, 1, 0)], 32, idle=500) == 0  # no growth, no fall


def test_several_processes_decide_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tries; the slowest counts, and whether all have the memory."""
    ranks = Ranks(0, 2)
    others = {2: Tried(2, 50.0, 0.04, 9000.0), 4: None}
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value, others[value.batch_size]])
    attempt = together(machine(), ranks)
    assert attempt(2, []) == Tried(2, 50.0, 0.04, 9000.0)
    assert attempt(4, []) is None


# ---- one of them ---------------------------------------------------------------------------------------------------


def trial(folder: Path, objective: Any = None, **changes: Any) -> Trial:
    network = build_network("cnn", {"shape": (3, 8, 8), "outputs": 3}, {"form": "lenet"})
    config = settings(**{"batch_size": "auto", **changes})
    objective = objective or classification_objective("CrossEntropyLoss", {})
    return Trial(_Floating(network), plan(folder), config, objective, CPU, torch.float32)


class _Floating(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float() / 255)  # type: ignore[no-any-return]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_steps_of_a_trial_are_counted_and_change_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    monkeypatch.setattr(batch_size, "SPENT", 0.02)
    counted: list[int] = []
    plain = classification_objective("CrossEntropyLoss", {})

    def objective(model: Any, batch: Any) -> Any:
        counted.append(len(batch[-1]))
        return plain(model, batch)

    attempt = trial(tmp_path, objective, accumulate=accumulate, optimizer={"name": "AdamW", "lr": 0.1})
    before = {name: weight.clone() for name, weight in attempt.steps.model.named_parameters()}
    found = attempt(8, [])
    assert found
    assert set(counted) == {8}
    assert found.rate == pytest.approx(8 / found.seconds)
    assert found.memory > 10e6
    for name, weight in attempt.steps.model.named_parameters():
        assert torch.equal(weight, before[name])
    assert attempt.steps.optimizer.state  # the moments were there when the memory was looked at


def test_what_the_memory_has_no_room_for_is_not_tried(tmp_path: Path) -> None:
    """On a CPU, where the process would be killed, a look at the growth is enough."""

    def never(model: Any, batch: Any) -> Any:
        raise AssertionError

    attempt = trial(tmp_path, never)
    attempt.room = attempt.idle + 1000
    assert attempt(4, [Tried(2, 1, 1, attempt.idle + 900)]) is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("bad_alloc")])
def test_memory_that_ends_is_an_answer_and_no_error(tmp_path: Path, error: Exception) -> None:
    def full(model: Any, batch: Any) -> Any:
        raise error

    assert trial(tmp_path, full)(4, []) is None


def test_other_errors_stay_errors(tmp_path: Path) -> None:
    def wrong(model: Any, batch: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trial(tmp_path, wrong)(4, [])


def test_of_lengths_the_longest_are_looked_at() -> None:
    class Lengths(torch.utils.data.Dataset[Any]):
        lengths = torch.tensor([5, 9, 1, 7, 8])

        def __getitem__(self, indices: torch.Tensor) -> Any:
            return (self.lengths[indices],)

    loader = torch.utils.data.DataLoader(Lengths(), sampler=Batches(4, 2, 0), batch_size=None)  # the last is left out
    assert batch_size._largest(loader, 2)[0].tolist() == [9, 7]


def test_the_peak_is_seen_after_it_is_over() -> None:
    with peak_memory(CPU) as small:
        pass
    with peak_memory(CPU) as large:
        held = torch.ones(64 * 2**20)  # 256 MiB
        for _ in range(20):
            held.add_(1)
        del held
    assert large[0] - small[0] > 200e6


# ---- train.batch_size: auto ----------------------------------------------------------------------------------------


def test_a_training_with_the_size_that_it_finds_is_one_with_that_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batch_size, "SPENT", 0.01)
    caplog.set_level(logging.INFO)
    loaders = plan(tmp_path, train=300)
    undecided = loaders.model_copy(update={"batch_size": "auto"})
    calm: dict[str, Any] = {"network": CNN, "optimizer": {"name": "SGD", "lr": 0.005}}
    auto = train(undecided, 1, **calm, batch_size="auto")
    size = auto.best.training["parameters"]["batch_size"]
    assert 2 <= size <= 30  # ten steps an epoch
    assert f"train.batch_size: auto takes {size} samples" in caplog.text
    assert "the learning rate stays 0.005; if it was chosen for batches of another size: SGD's rate goes" in caplog.text
    given = train(loaders.model_copy(update={"batch_size": size}), 1, **calm, batch_size=size)
    assert_equal(auto, given)
    with pytest.raises(InputError, match=r"train\.batch_size is auto, but the loaders were made for 16\. Run from"):
        train(loaders, 1, batch_size="auto")


class PowerCut(Exception):  # noqa: N818
    """What a training does not see coming."""


LEFT = [0]  # batches until it breaks down


def breaking_down() -> Any:
    plain = OBJECTIVE()

    def objective(model: Any, batch: Any) -> Any:
        LEFT[0] -= 1
        if LEFT[0] < 0:
            raise PowerCut
        return plain(model, batch)

    return objective


def test_a_training_goes_on_with_the_size_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaders = plan(tmp_path).model_copy(update={"batch_size": "auto"})
    states = TrainingStates(tmp_path / "states")
    more: dict[str, Any] = {"network": CNN, "batch_size": "auto", "save_minutes": 1e-9}
    more["objective"] = partial(breaking_down)
    monkeypatch.setattr(nodes, "found_size", lambda job, ranks: 8)
    LEFT[0] = 13
    with pytest.raises(PowerCut):
        train(loaders, 1, states, **more)
    assert states.batch_size() == 8
    monkeypatch.setattr(nodes, "found_size", lambda job, ranks: 4)
    LEFT[0] = 1000
    resumed = train(loaders, 1, states, **more)
    assert resumed.best.training["parameters"]["batch_size"] == 8
    numbered = plan(tmp_path).model_copy(update={"batch_size": 8})
    assert_equal(resumed, train(numbered, 1, network=CNN, batch_size=8))
    anew = train(loaders, 1, states, **{**more, "resume": "never"})
    assert anew.best.training["parameters"]["batch_size"] == 4


@pytest.mark.long
def test_several_processes_have_one_size(tmp_path: Path) -> None:
    loaders = plan(tmp_path, train=400).model_copy(update={"batch_size": "auto"})
    together = train(loaders, 2, network=CNN, batch_size="auto", epochs=1)
    size = together.best.training["parameters"]["batch_size"]
    assert size % 2 == 0
    assert 2 <= size <= 40


def test_what_is_no_size_is_refused() -> None:
    for wrong in (0, "all", 2.5, None):
        with pytest.raises(ValidationError):
            settings(batch_size=wrong)
    with pytest.raises(ValidationError, match="batch_size"):  # clients have data of their own sizes
        FederatedTrainConfig.model_validate({"batch_size": "auto", "optimizer": {"name": "SGD", "lr": 0.1}})


def test_a_look_at_the_data_needs_no_size(tmp_path: Path) -> None:
    loaders = plan(tmp_path, train=300).model_copy(update={"batch_size": "auto", "batches": 2})
    assert len(next(iter(loaders.loader("train")))[-1]) == 128
    assert len(loaders.trained_numbers()) == 256
    assert ALONE.size == 1
