"""What is learnt of pairs of texts, how it is measured, and how the network writes in PyTorch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.problems.base import Objective, means_of, sums_of
from torchloom.problems.evaluation import smaller_batches
from torchloom.problems.losses import weighed_loss
from torchloom.problems.translation.writing import States
from torchloom.system.devices import enough_memory
from torchloom.system.progress import step_bar

IGNORED = -100  # behind the end of a text: not to be told
Loss = Any


def given_and_told(written: Tensor) -> tuple[Tensor, Tensor]:
    """Texts (B, longest) of tokens, 0 where they have ended -> what is given and what comes next, (B, G) int64 each.

    What is given begins with 0, and what comes next ends with 0; IGNORED is behind that. G is the length of the longest
    of them, with its end.
    """
    lengths = (written != 0).sum(1)
    count = min(int(lengths.max()) + 1, written.shape[1])
    told = written[:, :count].long()
    places = torch.arange(count, device=written.device)
    return F.pad(told[:, :-1], (1, 0)), told.masked_fill(places > lengths[:, None], IGNORED)


def loss_on_tokens(name: str, arguments: Mapping[str, Any]) -> Loss:
    """Logits (B, G, V) and what comes next (B, G) -> the mean loss of the tokens of a batch, and by what it is one."""
    loss = weighed_loss(name, dict(arguments), IGNORED)
    return lambda logits, told: loss(logits.flatten(0, 1).float(), told.flatten())


def translation_objective(name: str, arguments: dict[str, Any]) -> Objective:
    """What a translation is trained for: the mean loss per token, the share of right tokens of a text, and of texts all
    of whose tokens are right, each after the true ones before it."""
    loss = loss_on_tokens(name, arguments)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, written = batch
        given, told = given_and_told(written)
        logits = model(*inputs, given)
        with torch.no_grad():
            known = told != IGNORED
            right = (logits.argmax(2) == told) & known
            figures = {
                "accuracy": (right.sum(1) / known.sum(1)).mean(),
                "exact_match": (right == known).all(1).float().mean(),
            }
        mean, weight = loss(logits, told)
        return mean, {**figures, **weight}

    return objective


@torch.no_grad()
def token_metrics(model: nn.Module, loader: Any, loss: tuple[str, dict[str, Any]]) -> dict[str, float]:
    """Means over all tokens of a split, each told after the true ones before it: `loss` as it was trained with, by its
    name and arguments, the bits of a token, and how often the likeliest is right."""
    trained_for = loss_on_tokens(*loss)
    sums, losses = (defaultdict[str, float](float) for _ in range(2))
    model.eval()
    with enough_memory(smaller_batches(loader.sampler.batch_size)), step_bar() as bar:
        task = bar.add_task("test", total=len(loader), status="")
        for *inputs, written in bar.track(loader, total=len(loader), task_id=task):
            given, told = given_and_told(written)
            logits = model(*inputs, given).float()
            mean, weight = trained_for(logits, told)
            known, flat = told != IGNORED, logits.flatten(0, 1)
            for part, value in sums_of(len(told), mean, weight).items():
                losses[part] += float(value)
            sums["texts"] += len(told)
            sums["nats"] += float(F.cross_entropy(flat, told.flatten(), reduction="sum", ignore_index=IGNORED))
            sums["right"] += float(((logits.argmax(2) == told) & known).sum())
            sums["count"] += float(known.sum())
    return {
        **means_of(losses, sums["texts"]),
        "bits_per_token": sums["nats"] / sums["count"] / math.log(2),
        "accuracy": sums["right"] / sums["count"],
    }


class Stepper(nn.Module):
    """A network as it is exported, in two parts: from sources what is kept of them and the logits of the first token,
    and from the last token and what is kept the logits of the next.

    It takes tokens (B, T), lengths (B,), the last tokens (B,) and what is kept, as `memory_names` and `state_names` of
    the network say, with B second; it gives the logits (B, V) and the state after the last token, and then `start`.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    @property
    def kept(self) -> list[str]:
        return [*self.network.memory_names, *self.network.state_names]

    def start(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """The logits of the first token, and what is kept."""
        kept = self.network.encode(tokens, lengths)
        logits, *state = self.network.step(torch.zeros_like(lengths, device=tokens.device), *kept)
        return (logits, *kept[: len(self.network.memory_names)], *state)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tokens, lengths, last, *kept = inputs
        return (*self.network.step(last, *kept), *self.start(tokens, lengths))


class TorchWriter:
    """A writing.Writer that is a network in PyTorch."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.steps, self.device = Stepper(network.to(device)).eval(), device

    @torch.no_grad()
    def start(self, inputs: Mapping[str, Any]) -> tuple[np.ndarray, States]:
        logits, *kept = self.steps.start(*(tensor.to(self.device) for tensor in inputs.values()))
        return logits.float().cpu().numpy(), kept

    @torch.no_grad()
    def step(self, last: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        logits, *after = self.steps.network.step(torch.from_numpy(last).to(self.device), *states)
        return logits.float().cpu().numpy(), [*states[: len(self.steps.network.memory_names)], *after]

    def take(self, states: States, rows: np.ndarray) -> States:
        chosen = torch.from_numpy(rows).to(self.device)
        return [state.index_select(1, chosen) for state in states]
