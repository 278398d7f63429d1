"""Code of a user's own that is right until it is trained."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchloom.training.callbacks import Callback


class Odd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return logits.clone()

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return slope + [][0]


class OddLoss(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(Odd.apply(logits), labels)


class FlatLoss(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.detach(), labels)


class Network(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.flatten(1))

    def last(self, rows: Tensor) -> Tensor:
        if len(rows) > 2:
            raise ValueError("too many\nrows")
        return self.layer(rows)


def network(shape: tuple[int, int, int], outputs: int) -> nn.Module:
    built = Network(outputs)
    built(torch.zeros(1, *shape))
    return built


class AtStep(Callback):
    def on_step(self, step: int, model: nn.Module, loss: Tensor) -> None:
        self.nothing  # noqa: B018


class AtEpoch(Callback):
    def on_epoch(self, row: dict[str, float]) -> bool:
        return row["nothing"] > 1


class AtFirst(AtEpoch):
    def __init__(self) -> None:
        raise RuntimeError("at first")


def metric(outputs: Tensor, targets: Tensor) -> float:
    return float(outputs[len(outputs)])
