"""FT-Transformer: columns of a table as tokens."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchloom.data.columns import Column
from torchloom.data.targets import Number
from torchloom.errors import InputError
from torchloom.modalities import TableInfo
from torchloom.models import build_model, build_network
from torchloom.models.ft_transformer import ColumnTokens, FTTransformer, ReGLU
from torchloom.problems import problem_of
from torchloom.training.transfer import weights_depending_on

COLUMNS = [0, 0, 1, 2, 0, 2]
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "layers": 2, "feedforward": 6}
COLUMN_KINDS = [Column(name="shoes"), Column(name="age"), Column(name="town", kind="category", values=["Ulm", "Bonn"])]
PEOPLE = TableInfo(
    features=["shoes", "age", "town"],
    mean=[40.0, 40.0, 0.0],
    std=[2.0, 20.0, 1.0],
    encoding=COLUMN_KINDS,
    gaps=["age"],
    bins=[[36.0, 44.0], [20.0, 40.0, 60.0], []],
    target=Number(name="income", mean=0.0, std=1.0),
)


def transformer(outputs: int, **arguments: Any) -> FTTransformer:
    torch.manual_seed(0)
    network = build_network("ft_transformer", {"columns": COLUMNS, "outputs": outputs}, {**SMALL, **arguments})
    assert isinstance(network, FTTransformer)
    return network


def test_a_token_is_the_sum_of_its_features_vectors_and_a_bias() -> None:
    tokens, x = ColumnTokens(COLUMNS, 4), torch.randn(5, 6)
    found = tokens(x)
    assert found.shape == (5, 3, 4)
    for column in range(3):
        places = [place for place, of in enumerate(COLUMNS) if of == column]
        expected = x[:, places] @ tokens.weight[places] + tokens.bias[column]
        torch.testing.assert_close(found[:, column], expected)


def test_it_computes_what_pytorchs_encoder_does() -> None:
    """Behind the first layer, which has no norm before its attention, and but for the gate, of the same layers."""
    network, x = transformer(3).eval(), torch.randn(7, 6)
    sequence = torch.cat([network.row.expand(7, -1, -1), network.tokens(x)], 1)
    for layer in network.layers:
        attention = nn.MultiheadAttention(8, 2, batch_first=True)
        attention.load_state_dict(
            {
                "in_proj_weight": layer.attention.queries_keys_values.weight,  # type: ignore[union-attr]
                "in_proj_bias": layer.attention.queries_keys_values.bias,  # type: ignore[union-attr]
                "out_proj.weight": layer.attention.mixed.weight,  # type: ignore[union-attr]
                "out_proj.bias": layer.attention.mixed.bias,  # type: ignore[union-attr]
            }
        )
        given = layer.attention_norm(sequence)  # type: ignore[operator]
        sequence = sequence + attention(given, given, given)[0]
        sequence = sequence + layer.dense(layer.dense_norm(sequence))  # type: ignore[operator]
    torch.testing.assert_close(network(x), network.head(sequence[:, 0]), rtol=1e-4, atol=1e-5)
    assert isinstance(network.layers[0].attention_norm, nn.Identity)
    assert isinstance(network.layers[1].attention_norm, nn.LayerNorm)


def test_one_half_of_a_reglu_lets_the_other_one_through() -> None:
    value, gate = torch.randn(2, 3, 4).unbind()
    torch.testing.assert_close(ReGLU()(torch.cat([value, gate], 1)), value * F.relu(gate))


def test_it_has_as_many_parameters_as_the_paper_says() -> None:
    """0.9 million, by its table of defaults, for a table of some numbers."""
    network = build_network("ft_transformer", {"columns": list(range(8)), "outputs": 1}, {})
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(929_000, rel=0.05)


def test_each_dropout_is_where_its_name_says() -> None:
    x = torch.randn(3, 6)
    for name in ("attention_dropout", "dropout", "residual_dropout"):
        none = {"attention_dropout": 0.0, "dropout": 0.0, "residual_dropout": 0.0}
        still, drawn = (transformer(2, **none | more).train() for more in ({}, {name: 0.5}))
        torch.testing.assert_close(still(x), still(x))
        assert not torch.allclose(drawn(x), drawn(x))
        torch.testing.assert_close(drawn.eval()(x), still.eval()(x))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.name ft_transformer: heads 3: must divide the width 8"):
        transformer(1, heads=3)


def test_numbers_gaps_and_words_of_a_column_are_one_token() -> None:
    assert PEOPLE.sizes() == {"features": 7, "columns": [0, 1, 1, 1, 2, 2, 2]}
    model = build_model("ft_transformer", SMALL, PEOPLE, problem_of("regression")).eval()
    tokens = next(module for module in model.modules() if isinstance(module, ColumnTokens))
    seen: list[torch.Tensor] = []
    tokens.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        model(torch.tensor([[40.0, 30.0, 1.0], [40.0, float("nan"), 1.0], [40.0, 30.0, 2.0]]))
    plain, gap, other = seen[0]
    torch.testing.assert_close(plain[0], tokens.bias[0] + tokens.weight[0] / 2)
    torch.testing.assert_close(plain[1], tokens.bias[1] + tokens.weight[1] / 2)
    torch.testing.assert_close(gap[1], tokens.bias[1] + tokens.weight[3])
    torch.testing.assert_close(other[2], tokens.bias[2] + tokens.weight[6])
    torch.testing.assert_close(plain[2], gap[2])


def test_what_hangs_on_the_columns_is_learnt_anew_for_others() -> None:
    """By fine-tuning, where equal numbers of columns stand for others."""
    assert weights_depending_on("columns", "ft_transformer", SMALL, PEOPLE, problem_of("regression")) == {
        f"network.network.tokens.{name}" for name in ("weight", "bias")
    }
