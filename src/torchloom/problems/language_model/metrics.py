"""How well a text is foretold."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.problems.base import means_of, sums_of
from torchloom.problems.evaluation import smaller_batches
from torchloom.problems.losses import weighed_loss
from torchloom.system.devices import enough_memory
from torchloom.system.progress import step_bar


@torch.no_grad()
def language_model_metrics(
    model: nn.Module,
    tokens: Tensor,
    vocabulary: list[str],
    chunk: int = 1000,
    loss: tuple[str, dict[str, Any]] = ("CrossEntropyLoss", {}),
    characters: int | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How well each of `tokens` (N,) is foretold from all before it; the state is handed from chunk to chunk.

    `bits_per_character` is the negative log2 probability of all of them over the `characters` that they stand for, if
    these are not as many; `perplexity` is 2 to the power of its mean over the tokens, and `loss` the mean of what the
    model was trained with, by its name and arguments. Returns also a row for each token of the vocabulary that comes
    up, those that cost the most bits in all first.
    """
    model.eval()
    tokens = tokens.long()
    nats, right = (torch.zeros(len(vocabulary), dtype=torch.float64, device=tokens.device) for _ in range(2))
    state: tuple[Tensor, ...] = ()
    trained: dict[str, Tensor] = {}
    trained_for = weighed_loss(*loss)
    with enough_memory(smaller_batches(chunk)), step_bar() as bar:
        starts = range(0, len(tokens) - 1, chunk)
        task = bar.add_task("test", total=len(starts), status="")
        for start in bar.track(starts, task_id=task):
            following = tokens[start + 1 : start + chunk + 1]
            logits, *rest = model(tokens[start : start + len(following)].unsqueeze(0), *state)
            state = tuple(rest)
            nats.index_add_(0, following, F.cross_entropy(logits[0].float(), following, reduction="none").double())
            sums = sums_of(len(following), *trained_for(logits[0].float(), following))
            trained |= {name: trained.get(name, 0) + value.double() for name, value in sums.items()}
            right.index_add_(0, following, (logits[0].argmax(1) == following).double())
    count = len(tokens) - 1
    characters = count if characters is None else characters
    surprise = nats.sum().item() / count
    metrics = {
        "bits_per_character": surprise / math.log(2) * (count / characters),
        "perplexity": math.exp(surprise),
        **means_of({name: float(value) for name, value in trained.items()}, count),
        "accuracy": right.sum().item() / count,
        "test_characters": characters,
    }
    return metrics, _by_character(tokens[1:].bincount(minlength=len(vocabulary)), nats, right, vocabulary)


def _by_character(counts: Tensor, nats: Tensor, right: Tensor, vocabulary: list[str]) -> list[dict[str, Any]]:
    """How hard each character is to foretell; all but the vocabulary are sums over the text, (V,)."""
    each = [values.cpu() for values in (counts, nats / math.log(2) / counts, right / counts)]
    return [
        {
            "character": vocabulary[token],
            "count": int(each[0][token]),
            "bits": round(each[1][token].item(), 4),
            "share_of_all_bits": round((nats[token] / nats.sum()).item(), 4),
            "foretold": round(each[2][token].item(), 4),
        }
        for token in nats.argsort(descending=True, stable=True).tolist()
        if counts[token]
    ]
