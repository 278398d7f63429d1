"""The network over n-grams: what counts as one, and what a document's answer is made of."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchloom.models import build_network
from torchloom.models.text_cnn import TextCNN
from torchloom.models.text_ngrams import FACTOR, TextNgrams


def ngrams(**arguments: object) -> TextNgrams:
    torch.manual_seed(0)
    sizes = {"tokens": 20, "outputs": 3}
    network = build_network("text_ngrams", sizes, {"rows": 101, "ngram_width": 4, "beside": "nothing", **arguments})
    assert isinstance(network, TextNgrams)
    return network.eval()


@pytest.mark.parametrize("longest", [1, 2, 3, 4])
@pytest.mark.parametrize("document", [[7], [7, 3], [5, 1, 19, 5, 1, 2]])
def test_runs_of_tokens_are_looked_up_and_summed(longest: int, document: list[int]) -> None:
    network = ngrams(longest=longest)
    expected = network.single.weight[document].sum(0)
    for size in range(2, longest + 1):
        for start in range(len(document) - size + 1):
            key = document[start]
            for token in document[start + 1 : start + size]:
                key = (key * FACTOR + token) % 101
            expected = expected + network.several.weight[key + 1]
    expected = network.head(expected / len(document) ** 0.5)
    for padding in (0, 3):  # whatever longer documents stand in the batch
        tokens = torch.tensor([document + [0] * padding, [2] * (len(document) + padding)])
        logits = network(tokens, torch.tensor([len(document), len(document) + padding]))
        torch.testing.assert_close(logits[0], expected)


@pytest.mark.parametrize("beside", ["text_cnn", "text_rnn"])
def test_a_network_over_the_words_is_added(beside: str) -> None:
    network = ngrams(beside=beside, width=4, embedding=5, dropout=0.0)
    assert isinstance(network.deep, nn.Module)
    tokens, lengths = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2])
    both, deep = network(tokens, lengths), network.deep(tokens, lengths)
    own, others = network.head.weight.split([4, deep.shape[1]], dim=1)
    network.deep, network.head.weight = None, nn.Parameter(own)
    torch.testing.assert_close(both, network(tokens, lengths) + deep @ others.T)


def test_members_are_learnt_each_and_answer_together() -> None:
    sizes, arguments = {"tokens": 20, "outputs": 3}, {"rows": 101, "width": 4, "dropout": 0.0, "embedding_dropout": 0.0}
    network = build_network("text_ngrams", sizes, {"members": 3, **arguments})
    documents = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2])
    each, mean = network.train()(*documents), network.eval()(*documents)
    assert each.shape == (2, 3, 3)
    torch.testing.assert_close(each[:, 1], network.members[1](*documents))  # type: ignore[index, operator]
    torch.testing.assert_close(mean, each.mean(1))
    assert (each.std(1) > 1e-3).all()


def test_convolutions_see_the_words_of_a_document_alone() -> None:
    torch.manual_seed(0)
    network = build_network("text_cnn", {"tokens": 20, "outputs": 3}, {"embedding": 4, "width": 5, "kernels": [1, 3]})
    assert isinstance(network.eval(), TextCNN)
    with torch.no_grad():
        for convolution in network.convolutions:  # type: ignore[union-attr]
            convolution.bias += 3.0
            convolution.weight.abs_().neg_()  # so that nothing would be the greatest
        network.embedding.weight.abs_()  # type: ignore[union-attr, operator]
    document = [7, 3, 9, 2]
    x = network.embedding.weight[document].T  # type: ignore[union-attr, index]
    found = []
    for kernel, convolution in zip((1, 3), network.convolutions, strict=True):  # type: ignore[arg-type]
        y = F.conv1d(F.pad(x, (0, kernel - 1))[None], convolution.weight, convolution.bias)  # type: ignore[arg-type]
        found.append(y.relu().amax(2))
    expected = network.head(torch.cat(found, 1))[0]  # type: ignore[operator]
    for padding in (0, 3):
        tokens = torch.tensor([document + [0] * padding, [2] * (4 + padding)])
        torch.testing.assert_close(network(tokens, torch.tensor([4, 4 + padding]))[0], expected)


def test_what_fills_up_a_batch_is_never_learnt() -> None:
    network = ngrams().train()
    network(torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([3, 1])).sum().backward()
    for table in (network.single, network.several):
        assert not table.weight[0].any()
        assert table.weight.grad is not None
        assert not table.weight.grad[0].any()
        assert table.weight.grad.any()
