"""One block of YAML for any network: `optimizer: {name: Muon, lr: 0.02}`."""

import pytest
import torch
from test_compiled import NETWORKS, make
from torch import nn

from torchloom.config import OptimizerConfig
from torchloom.models import network_names
from torchloom.training.optimizers import create_optimizer

MUON = OptimizerConfig.model_validate({"name": "Muon", "lr": 0.02})
# What gives the outputs is a dense layer of its own in these; in tabm no matrix is a layer's.
HEADS = {"resnet": "network.head.weight", "vit": "network.head.weight", "unet": "network.head.weight"}
HEADS |= {"text_rnn lstm": "head.weight", "mlp": "network.4.weight", "ft_transformer": "head.2.weight"}


@pytest.mark.parametrize("case", NETWORKS)
def test_it_trains_any_network(case: str) -> None:
    torch.manual_seed(0)
    model, inputs = make(case)
    optimizer = create_optimizer(model, MUON)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    answers = model(*inputs["ordinary"])
    outputs = answers if isinstance(answers, tuple) else (answers,)
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    learning = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(after[name].isfinite().all() for name in before)
    assert learning
    assert [name for name in learning if torch.equal(after[name], before[name])] == []
    orthogonal = {name for name in learning if "momentum_buffer" in optimizer.state[after[name]]}
    tables = {layer.weight for layer in model.modules() if isinstance(layer, nn.Embedding | nn.EmbeddingBag)}
    assert all(after[name].ndim > 1 and after[name] not in tables for name in orthogonal)
    assert HEADS.get(case) not in orthogonal
    assert bool(orthogonal) is (case not in {"linear", "tabm"})


def test_there_are_all_networks() -> None:
    """But those of others, which need a folder."""
    assert {name for name, _ in NETWORKS.values()} | {"huggingface"} == set(network_names())
