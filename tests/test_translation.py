"""Translation: pairs of texts, the network that writes, and what it is asked for in PyTorch and in ONNX Runtime."""

import csv
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from test_as_tested import Trained
from torchloom.config import AnswerConfig, DataConfig, PairsPreprocessConfig
from torchloom.data.readers import dates, pairs, propose
from torchloom.data.targets import Texts
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.export import formats
from torchloom.export.onnx import export_checkpoint, parity, signature
from torchloom.inference.model import Model
from torchloom.modalities import DocumentInfo, read_info
from torchloom.modalities.documents import pad
from torchloom.models import _layers, build_model, build_network, translation_transformer
from torchloom.problems import problem_of
from torchloom.problems.base import WEIGHT
from torchloom.problems.scores import edit_distance, text_scores
from torchloom.problems.translation.learning import (
    IGNORED,
    TorchWriter,
    given_and_told,
    token_metrics,
    translation_objective,
)
from torchloom.problems.translation.writing import OnnxWriter, search
from torchloom.training.checkpoint import Checkpoint

pytestmark = [pytest.mark.xdist_group("export")]

TRANSLATION = problem_of("translation")
SMALL: dict[str, dict[str, Any]] = {
    "translation_transformer": {
        **{"width": 16, "layers": 2, "heads": 2, "tied": False, "embedding_dropout": 0.0, "dropout": 0.0}
    },
    "translation_rnn": {"embedding": 8, "width": 8, "embedding_dropout": 0.0, "dropout": 0.0},
    "lstm": {
        **{"name": "translation_rnn", "cell": "lstm", "layers": 2, "embedding": 8, "width": 8, "attention": False},
        **{"embedding_dropout": 0.0, "dropout": 0.0},
    },
}
LETTERS = Tokenizer(kind="characters", vocabulary=["<pad>", "<unk>", *"abcdefgh "])
DIGITS = Tokenizer(kind="characters", vocabulary=["<pad>", "<unk>", *"01234"])
INFO = DocumentInfo(tokenizer=LETTERS, target=Texts(name="digits", tokenizer=DIGITS, longest=6))
TOKENS = torch.tensor([[2, 3, 4, 5, 6], [7, 8, 0, 0, 0], [3, 9, 4, 0, 0]])
LENGTHS = torch.tensor([5, 2, 3])
WRITTEN = torch.tensor([[2, 3, 4, 5, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0, 0]])


@cache
def checkpoint(network: str) -> Checkpoint:
    """Untrained, with weights great enough for its answers to differ."""
    torch.manual_seed(1)
    arguments = {key: value for key, value in SMALL[network].items() if key != "name"}
    name = SMALL[network].get("name", network)
    weights = build_model(name, arguments, INFO, TRANSLATION).state_dict()
    weights = {name: weight * 4 if weight.ndim > 1 else weight for name, weight in weights.items()}
    return Checkpoint(network=name, arguments=arguments, problem="translation", info=INFO, training={}, weights=weights)


@cache
def session(network: str) -> onnxruntime.InferenceSession:
    return Model(export_checkpoint(checkpoint(network)), threads=1).session


# ---- the network ---------------------------------------------------------------------------------------------------


def test_parameters_of_a_translation_transformer() -> None:
    """Embeddings of 11 and 7 tokens, the latter tied; in a block of the encoder 4 W² + 8 W² of attention and dense
    layers, in one of the decoder 4 W² more, with their biases; norms of 2 W."""
    width = 16
    network = build_network(
        "translation_transformer",
        {"tokens": 11, "written": 7},
        {"width": width, "layers": 2, "heads": 2, "decoder_layers": 3},
    )
    attention, dense, norm = 4 * (width * width + width), 8 * width * width + 5 * width, 2 * width
    expected = (11 + 7) * width + 7 + 2 * (attention + dense + 2 * norm) + 3 * (2 * attention + dense + 3 * norm)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected + 2 * norm


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
@pytest.mark.parametrize("attention", [True, False])
def test_parameters_of_a_translation_rnn(cell: str, gates: int, attention: bool) -> None:
    """Of each direction and layer gates of W (inputs + W + 2), two layers; the first state; what looks; the output."""
    w, e = 6, 5
    network = build_network(
        "translation_rnn",
        {"tokens": 11, "written": 7},
        {"cell": cell, "embedding": e, "width": w, "layers": 2, "attention": attention},
    )
    encoder = 2 * gates * w * (e + w + 2) + 2 * gates * w * (2 * w + w + 2)
    decoder = gates * w * (e + w + 2) + gates * w * (w + w + 2)
    looking = (w * w + w + 2 * w * w + w) if attention else 0
    head = (3 * w if attention else w) * 7 + 7
    expected = (11 + 7) * e + encoder + decoder + (2 * w + 1) * 2 * w + looking + head
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_the_layers_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """nn.Transformer with norms before the layers, which knows no places."""
    for module in (_layers, translation_transformer):
        monkeypatch.setattr(module, "rotated", lambda x, places: x)
    network: Any = build_network(
        "translation_transformer", {"tokens": 11, "written": 7}, SMALL["translation_transformer"]
    )
    network.eval()
    theirs = nn.Transformer(16, 2, 2, 2, 64, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    for mine, block in zip(network.encoder.blocks, theirs.encoder.layers, strict=True):
        _copy(mine.attention.queries_keys_values, block.self_attn.in_proj_weight, block.self_attn.in_proj_bias)
        _take(mine.attention.mixed, block.self_attn.out_proj)
        _take(mine.before_attention, block.norm1)
        _take(mine.before_layers, block.norm2)
        _take(mine.layers[0], block.linear1)
        _take(mine.layers[2], block.linear2)
    for mine, block in zip(network.blocks, theirs.decoder.layers, strict=True):
        _copy(mine.attention.queries_keys_values, block.self_attn.in_proj_weight, block.self_attn.in_proj_bias)
        weight, bias = block.multihead_attn.in_proj_weight, block.multihead_attn.in_proj_bias
        _copy(mine.looking.queries, weight[:16], bias[:16])
        _copy(mine.looking.keys_values, weight[16:], bias[16:])
        _take(mine.attention.mixed, block.self_attn.out_proj)
        _take(mine.looking.mixed, block.multihead_attn.out_proj)
        for norm, other in zip(
            (mine.before_attention, mine.before_looking, mine.before_layers),
            (block.norm1, block.norm2, block.norm3),
            strict=True,
        ):
            _take(norm, other)
        _take(mine.layers[0], block.linear1)
        _take(mine.layers[2], block.linear2)
    given, _ = given_and_told(WRITTEN)
    empty = torch.arange(5) >= LENGTHS[:, None]
    with torch.no_grad():
        seen = theirs(
            network.embedding(TOKENS),
            network.written_embedding(given),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(given.shape[1]),
            src_key_padding_mask=empty,
            memory_key_padding_mask=empty,
            tgt_is_causal=True,
        )
        torch.testing.assert_close(network(TOKENS, LENGTHS, given), network.head(seen), rtol=1e-4, atol=1e-5)


def _copy(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
    with torch.no_grad():
        nn.init.normal_(bias, std=0.1)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def _take(layer: Any, other: Any) -> None:
    with torch.no_grad():
        nn.init.normal_(other.bias, std=0.1)
    layer.load_state_dict(other.state_dict())


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_step_by_step_it_foretells_what_it_foretells_at_once(name: str) -> None:
    network: Any = checkpoint(name).build()
    given, _ = given_and_told(WRITTEN)
    whole = network(TOKENS, LENGTHS, given)
    memory = len(network.memory_names)
    kept = list(network.encode(TOKENS, LENGTHS))
    for place in range(given.shape[1]):
        logits, *after = network.step(given[:, place], *kept)
        kept[memory:] = after
        torch.testing.assert_close(logits, whole[:, place], rtol=1e-4, atol=1e-4)
    assert (whole[:, 1:] - whole[:, :-1]).abs().max() > 0.01  # what is written matters
    others = TOKENS.clone()
    others[0, 4] = 2
    assert (network(others, LENGTHS, given)[0] - whole[0]).abs().max() > 1e-3  # and the source to its last token


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_source_does_not_see_its_neighbours_or_what_is_behind_it(name: str) -> None:
    network = checkpoint(name).build()
    given, _ = given_and_told(WRITTEN)
    together = network(TOKENS, LENGTHS, given)
    for row, length in enumerate(LENGTHS):
        alone = network(TOKENS[row : row + 1, :length], LENGTHS[row : row + 1], given[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)
    changed = given.clone()
    changed[:, 3] = 2
    torch.testing.assert_close(network(TOKENS, LENGTHS, changed)[:, :3], together[:, :3])  # nothing looks ahead


# ---- what is learnt ------------------------------------------------------------------------------------------------


def test_what_is_given_and_what_is_to_be_told() -> None:
    given, told = given_and_told(WRITTEN)
    assert given.tolist() == [[0, 2, 3, 4, 5], [0, 6, 0, 0, 0], [0, 2, 2, 0, 0]]
    x = IGNORED
    assert told.tolist() == [[2, 3, 4, 5, 0], [6, 0, x, x, x], [2, 2, 0, x, x]]
    cut = torch.tensor([[2, 3, 4]])  # of a text that is longer no end is learnt
    assert [part.tolist() for part in given_and_told(cut)] == [[[0, 2, 3]], [[2, 3, 4]]]


class Known(nn.Module):
    """Gives these logits (B, G, V) whatever it is asked."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, *_: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_tokens(smoothing: float) -> None:
    logits = torch.randn(3, 5, 7)
    places = [(row, place) for row, length in enumerate((5, 2, 3)) for place in range(length)]
    _, told = given_and_told(WRITTEN)
    each = torch.stack([logits[place] for place in places])
    truth = torch.tensor([told[place] for place in places])
    objective = translation_objective("CrossEntropyLoss", {"label_smoothing": smoothing})
    loss, figures = objective(Known(logits), (TOKENS, LENGTHS, WRITTEN))
    torch.testing.assert_close(loss, F.cross_entropy(each, truth, label_smoothing=smoothing))
    assert figures[WEIGHT] == 10
    right = [
        [bool(logits[row, place].argmax() == told[row, place]) for place in range(n)] for row, n in enumerate((5, 2, 3))
    ]
    assert float(figures["accuracy"]) == pytest.approx(np.mean([np.mean(row) for row in right]))
    perfect = F.one_hot(told.clamp(min=0), 7).float() * 9
    perfect[1, 1] = torch.arange(7.0)  # the end of one
    _, figures = objective(Known(perfect), (TOKENS, LENGTHS, WRITTEN))
    assert float(figures["exact_match"]) == pytest.approx(2 / 3)


def test_losses_that_are_added_look_at_the_same_tokens() -> None:
    logits, weight = torch.randn(3, 5, 7), [1.0, 2.0, 3.0, 0.5, 1.0, 1.0, 4.0]
    _, told = given_and_told(WRITTEN)
    both = {"plus": [{"name": "CrossEntropyLoss", "weight": weight, "times": 0.5}]}
    loss, figures = translation_objective("CrossEntropyLoss", both)(Known(logits), (TOKENS, LENGTHS, WRITTEN))
    flat, truth = logits[told != IGNORED], told[told != IGNORED]
    parts = F.cross_entropy(flat, truth), 0.5 * F.cross_entropy(flat, truth, torch.tensor(weight))
    torch.testing.assert_close(loss, sum(parts))
    assert figures[f"{WEIGHT}#0"] == 10
    assert figures[f"{WEIGHT}#1"] == torch.tensor(weight)[truth].sum()


@pytest.mark.parametrize("more", [{}, {"plus": [{"name": "CrossEntropyLoss", "weight": [2.0, *[1.0] * 6]}]}])
def test_figures_of_a_split_do_not_hang_on_its_batches(more: dict[str, Any]) -> None:
    network = checkpoint("translation_transformer").build()
    whole = [(TOKENS, LENGTHS, WRITTEN)]
    parts = [(TOKENS[:1], LENGTHS[:1], WRITTEN[:1]), (TOKENS[1:], LENGTHS[1:], WRITTEN[1:])]
    loss = ("CrossEntropyLoss", {"label_smoothing": 0.2, **more})
    one, other = (token_metrics(network, Batches(batches), loss) for batches in (whole, parts))
    assert one == pytest.approx(other, rel=1e-4)
    given, told = given_and_told(WRITTEN)
    with torch.no_grad():
        nats = F.cross_entropy(network(TOKENS, LENGTHS, given).flatten(0, 1), told.flatten(), ignore_index=IGNORED)
    assert one["bits_per_token"] == pytest.approx(float(nats) / math.log(2), rel=1e-4)


class Batches(list[Any]):
    """As a loader."""

    @property
    def sampler(self) -> Any:
        return type("Sampler", (), {"batch_size": 3})


def test_texts_become_an_array_of_few_bytes() -> None:
    target = Texts(name="digits", tokenizer=DIGITS, longest=3)
    array = target.encoded([DIGITS.encode("12"), DIGITS.encode("01234")])
    assert array.dtype == np.uint8
    assert array.tolist() == [[3, 4, 0, 0], [2, 3, 4, 5]]
    wide = Tokenizer(kind="characters", vocabulary=["<pad>", "<unk>", *map(chr, range(200, 700))])
    assert Texts(name="x", tokenizer=wide, longest=2).encoded([wide.encode(chr(600))]).tolist() == [[402, 0, 0]]
    assert target.told({"digits": " 12 "}) == "12"
    assert target.told({"digits": "NA"}) == "NA"  # a text as any other
    assert target.told({"digits": ""}) is target.told({"other": "1"}) is None
    assert read_info(INFO.model_dump(mode="json")) == INFO


# ---- how it writes -------------------------------------------------------------------------------------------------


class Table:
    """A writer that gives the next tokens by the last one, from a table of probabilities."""

    def __init__(self, shares: Mapping[int, list[float]], count: int = 1) -> None:
        self.shares, self.count = shares, count

    def start(self, inputs: Mapping[str, Any]) -> tuple[np.ndarray, list[Any]]:
        return self.step(np.zeros(self.count, np.int64), [np.zeros((1, self.count))])

    def step(self, last: np.ndarray, states: list[Any]) -> tuple[np.ndarray, list[Any]]:
        assert states[0].shape[1] == len(last)
        return np.log(np.array([self.shares[int(token)] for token in last])), states

    def take(self, states: list[Any], rows: np.ndarray) -> list[Any]:
        return [state.take(rows, axis=1) for state in states]


def test_a_beam_finds_what_the_likeliest_token_hides() -> None:
    """Beginning with 2 is likelier, but all that follows on it is not; 1 is <unk>."""
    sure, rest = 0.97, 0.01
    table = Table({0: [0.01, 0.3, 0.39, 0.3], 1: [0.97, 0.01, 0.01, 0.01], 2: [0.25] * 4, 3: [sure, rest, rest, rest]})
    assert search(table, {}, 3, beam=1, never=[1])[0].tolist()[0] == 2
    assert search(table, {}, 3, beam=3, never=[1])[0].tolist() == [3]
    assert 1 in np.concatenate(search(table, {}, 3, beam=3))  # as likely, and found first
    endless = Table({0: [0.1, 0.0001, 0.8, 0.1], 2: [0.1, 0.0001, 0.8, 0.1], 3: [0.25] * 4}, count=2)
    assert [tokens.tolist() for tokens in search(endless, {}, 4, beam=2)] == [[2, 2, 2, 2]] * 2


def test_short_answers_are_no_better_for_being_short() -> None:
    """0.4 of ending at once against 0.6 · 0.9 · 0.9 … of going on: by the mean of the logarithms the latter."""
    table = Table(
        {0: [0.4, 0.001, 0.6, 0.001], 1: [0.25] * 4, 2: [0.05, 0.001, 0.9, 0.049], 3: [0.97, 0.01, 0.01, 0.01]}
    )
    assert search(table, {}, 5, beam=4)[0].tolist() == [2] * 5


class Remembering(Table):
    """By all tokens so far, as one number in the decimal system, which is what is kept."""

    def step(self, last: np.ndarray, states: list[Any]) -> tuple[np.ndarray, list[Any]]:
        codes = states[0] * 10 + last
        rest = [0.25, 0.25, 0.25, 0.25]
        return np.log(np.array([self.shares.get(int(code), rest) for code in codes[0]])), [codes]


def test_what_is_kept_goes_with_the_beginning_that_it_is_of() -> None:
    """3 2 overtakes 2 2, and so what is kept of both changes places: after 2 2 it would go on."""
    table = Remembering({0: [0.01, 0.01, 0.58, 0.4], 3: [0.01, 0.005, 0.98, 0.005], 32: [0.98, 0.01, 0.005, 0.005]})
    table.shares |= {22: [0.001, 0.001, 0.001, 0.997], 223: [0.97, 0.01, 0.01, 0.01]}  # type: ignore[operator]
    assert search(table, {}, 4, beam=2)[0].tolist() == [3, 2]


@pytest.mark.parametrize("name", SMALL)
def test_a_beam_of_one_takes_the_likeliest_token_each_time(name: str) -> None:
    """Without what is kept: the whole network is asked about all that is written."""
    network = checkpoint(name).build()
    expected: list[list[int]] = []
    for row, length in enumerate(LENGTHS):
        given = torch.zeros(1, 1, dtype=torch.int64)
        for _ in range(INFO.target.longest):  # type: ignore[union-attr]
            with torch.no_grad():
                logits = network(TOKENS[row : row + 1, :length], LENGTHS[row : row + 1], given)[0, -1]
            logits[1] = -torch.inf
            if not (token := int(logits.argmax())):
                break
            given = F.pad(given, (0, 1), value=token)
        expected.append(given[0, 1:].tolist())
    inputs = {"tokens": TOKENS, "lengths": LENGTHS}
    found = search(TorchWriter(network, torch.device("cpu")), inputs, 6, never=[1])
    assert [tokens.tolist() for tokens in found] == expected
    assert len({tuple(tokens) for tokens in expected}) > 1


@pytest.mark.usefixtures("exporter")
def test_sources_in_parts_are_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(export_checkpoint(checkpoint("translation_transformer")))
    _, answer = model.answering(AnswerConfig(models=""))
    sources = [TOKENS[row, :length].numpy() for row, length in enumerate(LENGTHS)]
    together, asked = answer(sources), []
    monkeypatch.setattr(DocumentInfo, "parts", lambda _, samples: ([each] for each in samples))
    monkeypatch.setattr(DocumentInfo, "batch", lambda _, samples: (asked.append(len(samples)), pad(samples))[1])
    assert answer(sources) == together
    assert asked == [1, 1, 1]


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("name", SMALL)
def test_the_exported_model_writes_the_same(name: str, beam: int) -> None:
    """In one batch and one by one, of sources of one token, too."""
    network = checkpoint(name).build()
    tokens, lengths = torch.cat([TOKENS, torch.tensor([[4, 0, 0, 0, 0]])]), torch.tensor([5, 2, 3, 1])
    inputs = {"tokens": tokens, "lengths": lengths}
    expected = search(TorchWriter(network, torch.device("cpu")), inputs, 6, beam, [1])
    writer = OnnxWriter(session(name))
    arrays = {key: tensor.numpy() for key, tensor in inputs.items()}
    found = search(writer, arrays, 6, beam, [1])
    assert [each.tolist() for each in found] == [each.tolist() for each in expected]
    for row, length in enumerate(lengths.tolist()):
        alone = {"tokens": arrays["tokens"][row : row + 1, :length], "lengths": arrays["lengths"][row : row + 1]}
        assert search(writer, alone, 6, beam, [1])[0].tolist() == expected[row].tolist()
    assert len({tuple(each.tolist()) for each in expected}) > 1


@pytest.mark.parametrize(("name", "form"), [("translation_transformer", "torch_export"), ("lstm", "torchscript")])
def test_in_other_formats_it_gives_the_same(name: str, form: str) -> None:
    model = checkpoint(name).exported()
    long = signature(model, {"tokens": TOKENS, "lengths": LENGTHS}, checkpoint(name))
    short = long._replace(inputs={**long.inputs, "tokens": TOKENS[:, :3], "lengths": LENGTHS.clamp(max=3)})
    program, _ = formats.reopen(form, formats.save(form, model, long))
    for given in (long, short):
        assert parity(model, formats.runner(program), given, [1, 2, 3])["greatest_difference"] < 1e-5


# ---- figures of texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)],
)
def test_how_far_texts_are_apart(one: str, other: str, expected: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == expected


def test_scores_of_texts() -> None:
    from torchloom.problems.translation.metrics import translation_scores

    scores = text_scores(["abcd", "ef"], ["abxd", "ef"])
    assert scores == {"exact_match": 0.5, "character_error_rate": pytest.approx(1 / 6)}
    text = "the cat sat on the mat"
    assert translation_scores([text], [text]) == {"bleu": pytest.approx(1), "chrf": pytest.approx(1)}
    # four words of five, three pairs of four, two threes of three, one four of two: (4/5 · 3/4 · 2/3 · 1/2)^(1/4)
    assert translation_scores(["a b c d x"], ["a b c d e"])["bleu"] == pytest.approx((1 / 5) ** 0.25)
    assert translation_scores(["1987-05-03"], ["1987-05-03"])["bleu"] == pytest.approx(1)  # of letters


# ---- pairs of one's own --------------------------------------------------------------------------------------------

NUMBERS = ["zero", "one", "two", "three", "four"]


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Numbers in words, and in digits."""
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(5, size=generator.integers(2, 6)) for _ in range(count)]
    return [
        {"said": " ".join(NUMBERS[each] for each in part), "digits": "".join(map(str, part)), "from": "drawn"}
        for part in drawn
    ]


def save(path: Path, table: list[dict[str, str]], mark: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows(table)
    return path


def prepared(path: Path, folder: Path, **keys: Any) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    config = PairsPreprocessConfig(**{"files": str(path), "target": "digits", "text": "said", **keys})
    return pairs.preprocess(pairs.find(config), config, folder)


def test_pairs_become_arrays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = [
        *rows(40),
        {"said": "four four", "digits": "", "from": ""},
        {"said": "zero", "digits": "01234" * 4, "from": ""},
    ]
    path = save(tmp_path / "numbers.tsv", table, "\t")
    train, validation, test, info = prepared(path, tmp_path, longest=10, tokens="words", target_tokens="characters")
    counts = [len(part.arrays["written"]) for part in (train, validation, test)]
    assert sum(counts) == 41
    assert "1 row without 'digits' is left out" in caplog.text
    target = DocumentInfo.model_validate(info).target
    assert isinstance(target, Texts)
    assert (target.name, target.longest, target.tokenizer.kind) == ("digits", 10, "characters")
    assert info["tokenizer"]["kind"] == "words"
    arrays = train.arrays
    for place in range(counts[0]):
        start, end = arrays["text_told_starts"][place : place + 2]
        told = bytes(arrays["text_told"][start:end]).decode()
        tokens = arrays["written"][place]
        assert target.tokenizer.decode(tokens[tokens > 0]) == told[:11]
    assert "'digits' have more than 10 characters" in caplog.text or "'digits'" not in caplog.text.split("left out")[1]


def test_of_a_table_of_the_catalog_and_of_folds(tmp_path: Path) -> None:
    config = PairsPreprocessConfig(entry="numbers", target="digits", text="said")
    train, *_, info = pairs.preprocess_entry(rows(40), config)
    assert len(train.arrays["written"]) + info["documents"]["validation"] + info["documents"]["test"] == 40
    fold = config.of_fold({"train": [0, 1, 2], "validation": [3], "test": [4, 5]})
    assert [len(part.arrays["written"]) for part in pairs.preprocess_entry(rows(40), fold)[:3]] == [3, 1, 2]


def test_what_is_wrong_with_pairs_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "numbers.csv", rows(20))
    with pytest.raises(
        InputError, match=r"preprocess.target 'digit': there is no such column in the train rows .*digits"
    ):
        prepared(path, tmp_path, target="digit")
    with pytest.raises(InputError, match=r"preprocess.text 'say': there is no such column.*said"):
        prepared(path, tmp_path, text="say")
    target = Texts(name="digits", tokenizer=DIGITS, longest=3)
    with pytest.raises(InputError, match=r"the problem classification needs data with classes \(labels\) to learn"):
        problem_of("classification").check_data(DocumentInfo(tokenizer=LETTERS, target=target))


def test_a_table_of_pairs_becomes_a_task(tmp_path: Path) -> None:
    """Where what is to be told are texts of several words, or where that is asked for."""
    generator = np.random.default_rng(0)
    words = ["le", "chat", "noir", "dort", "sur", "un", "lit", "rouge"]
    table = [
        {"english": " ".join(generator.choice(NUMBERS, 6)), "french": " ".join(generator.choice(words, 6))}
        for _ in range(80)
    ]
    path = save(tmp_path / "pairs.tsv", table, "\t")
    proposal = propose(path, "french")
    assert proposal.problem == "translation"
    assert proposal.preprocess == {
        **{"reader": "pairs", "files": str(path), "target": "french", "text": "english"},
        **{"tokens": "characters", "target_tokens": "characters"},
    }
    assert proposal.blocks["model"]["name"] == "translation_transformer"
    numbers = save(tmp_path / "numbers.csv", rows(60))
    with pytest.raises(InputError):
        propose(numbers, "digits", "classification")
    assert propose(numbers, "digits").problem == "regression"  # as far as it looks
    assert propose(numbers, "digits", "translation").preprocess["text"] == "said"
    assert propose(numbers, "digits", by="pairs").problem == "translation"


# ---- evaluate, predict, serve --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize("tokens", ["characters", "words"])
def test_predict_and_serve_write_what_evaluate_judges(tmp_path: Path, tokens: str) -> None:
    (tmp_path / "numbers").mkdir()
    save(tmp_path / "numbers/train.csv", rows(300))
    save(tmp_path / "numbers/test.csv", rows(30, seed=1))
    keys = {"tokens": "words", "target_tokens": "characters"} if tokens == "characters" else {"tokens": "words"}
    target = "digits" if tokens == "characters" else "said"
    parts = (
        prepared(tmp_path / "numbers", tmp_path, text="said", target="digits", **keys)
        if target == "digits"
        else prepared(
            tmp_path / "numbers", tmp_path, text="digits", target="said", tokens="characters", target_tokens="words"
        )
    )
    task = Trained(
        tmp_path,
        parts,
        {"name": "translation_transformer", "width": 32, "layers": 1, "heads": 2, "dropout": 0.0},
        "translation",
        DataConfig(max_tokens=30),
        {"epochs": 12, "batch_size": 16, "optimizer": {"name": "AdamW", "lr": 0.01}, "monitor": "exact_match"},
        beam=2,
    )
    answers = TRANSLATION.answers_to(task.checkpoint, task.plan, task.evaluation)
    source = "said" if target == "digits" else "digits"
    table = [{"more": "x", source: row[source], target: row[target]} for row in rows(30, seed=1)]
    asked = task.asked(save(tmp_path / "asked.csv", table), batch_size=7)
    expected = [row["predicted"] for row in answers]
    assert [row["answer"] for row in asked] == expected
    assert [row["true"] for row in asked] == [row[target] for row in table]
    assert [row["answer"] for row in task.served([row[source] for row in table])] == expected
    metrics = task.measured()
    assert {name: metrics[name] for name in ("exact_match", "character_error_rate")} == {
        name: pytest.approx(task.scores[name]) for name in ("exact_match", "character_error_rate")
    }
    assert metrics["character_error_rate"] < 0.9
    assert metrics["different_answers"] > 3
    assert task.checkpoint.info.target.beam == 2  # type: ignore[union-attr]
    greedy = task.asked(tmp_path / "asked.csv", beam=1)
    assert len(greedy) == 30


def test_dates_in_words() -> None:
    assert [dates._ordinal(day) for day in (1, 2, 12, 20, 21, 30, 31)] == [
        *("first", "second", "twelfth", "twentieth", "twenty-first", "thirtieth", "thirty-first"),
    ]
    years = {
        1900: "nineteen hundred",
        1905: "nineteen oh five",
        1987: "nineteen eighty-seven",
        2003: "two thousand three",
    }
    years |= {2000: "two thousand", 2010: "twenty ten", 2029: "twenty twenty-nine"}
    assert {year: dates._spoken_year(year) for year in years} == years
    assert [dates._ending(day) for day in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30)] == [
        *("st", "nd", "rd", "th", "th", "th", "th", "st", "nd", "rd", "th"),
    ]


def test_dates_are_drawn_once(tmp_path: Path) -> None:
    dates.draw_sample(tmp_path, 200, 50)
    read = {split: list(csv.reader((tmp_path / f"{split}.csv").open())) for split in ("train", "test")}
    assert [len(part) for part in read.values()] == [201, 51]
    texts = {row[0] for row in read["train"][1:]}
    assert len(texts) == 200
    assert not {row[1] for row in read["train"][1:]} & {row[1] for row in read["test"][1:]}
