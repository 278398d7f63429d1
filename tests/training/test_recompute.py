"""Activations that are computed again: the same values and gradients from less memory."""

import copy
from pathlib import Path

import pytest
import test_state
import torch
from torch import Tensor, nn

from benchmarks.recompute import kept
from torchloom.errors import InputError
from torchloom.training.recompute import recompute
from torchloom.training.state import TrainingStates


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dense = nn.BatchNorm1d(16), nn.Linear(16, 16)
        self.dropout = nn.Dropout(0.4)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, int]:
        x = self.dropout(torch.tanh(self.dense(self.norm(x)))) + x
        return x if shift is None else x + shift, 1


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks):
            x, _ = block(x, shift=None if number else x.mean())
        answers: Tensor = self.head(x)
        return answers


def once(model: nn.Module, called: nn.Module | None = None) -> dict[str, Tensor]:
    """The outputs, the gradients and the buffers after one pass in training."""
    torch.manual_seed(3)
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    y = (model if called is None else called)(x)
    y.square().sum().backward()
    assert x.grad is not None
    found = {"y": y.detach(), "x.grad": x.grad, "random": torch.rand(1)}
    found |= {f"{name}.grad": parameter.grad for name, parameter in model.named_parameters()}
    return found | {name: buffer.clone() for name, buffer in model.named_buffers()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = Deep()
    return plain, copy.deepcopy(plain)


@pytest.mark.parametrize(
    "patterns", [["blocks.*"], ["blocks"], ["blocks.1"], ["blocks.*.dense", "head"], ["*"]], ids=str
)
def test_values_gradients_and_statistics_stay(patterns: list[str]) -> None:
    """Those of batch norm, too, which sees each batch twice; and dropout draws the same twice, and no more after it."""
    plain, again = pair()
    recompute(again, patterns, compiled=False)
    assert_same(once(again), once(plain))
    assert_same(once(again), once(plain))


def test_less_is_kept() -> None:
    plain, again = pair()
    calls: list[int] = []
    again.blocks[1].dense.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr, index]
    recompute(again, ["blocks"], compiled=False)
    batch = torch.randn(256, 16)
    # of each block what goes in and, in the plain one, what its norm, tanh and dropout keep beside that
    assert kept(again, batch) < kept(plain, batch) / 2
    calls.clear()
    once(again)
    assert len(calls) == 2


def test_a_copy_computes_with_its_own_weights() -> None:
    _, again = pair()
    recompute(again, ["blocks"], compiled=False)
    copied = copy.deepcopy(again)
    for parameter in copied.parameters():
        nn.init.zeros_(parameter)
    assert not copied.eval()(torch.ones(4, 16)).any()
    assert again.eval()(torch.ones(4, 16)).any()
    assert copied.state_dict().keys() == Deep().state_dict().keys()


def test_a_pattern_that_fits_nothing_is_named() -> None:
    with pytest.raises(
        InputError, match=r"^train\.recompute: stages\.\* fits no layer; those .* are blocks, blocks\.0"
    ):
        recompute(Deep(), ["blocks.*", "stages.*"], compiled=False)


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compiled_it_is_the_same(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to what the compiler makes of the graph it is the same for both; the second is what training takes."""
    monkeypatch.setattr(torch._inductor.config, "cpp_wrapper", False)  # which cannot draw the same numbers again
    plain, again = pair()
    recompute(again, ["blocks"], compiled=True)
    compiled, eager = once(again, torch.compile(again, backend=backend)), once(plain)  # type: ignore[arg-type]
    assert compiled.keys() == eager.keys()
    for name in eager.keys() - {"random"}:
        torch.testing.assert_close(compiled[name], eager[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_training_is_the_same_and_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that keeps all: with an average of the weights, whose statistics are of one pass each."""
    whole = test_state.uninterrupted(ema=0.9)
    convolutional = test_state.convolutional

    def recomputing() -> nn.Module:
        model = convolutional()
        recompute(model, ["network"], compiled=False)
        return model

    monkeypatch.setattr(test_state, "convolutional", recomputing)
    test_state.assert_equal(test_state.train(None, ema=0.9), whole)
    test_state.assert_resumes_exactly(TrainingStates(tmp_path / "states"), 4, 3, ema=0.9)
