"""Weights that others have trained: of timm, of torchvision, and of encoders of texts."""

import json
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from conftest import ROOT, kedro, kedro_run
from tests.tables import reviews, write
from tests.test_as_tested import Trained, draw
from torchloom.config import DataConfig, FolderPreprocessConfig, TextFilesPreprocessConfig
from torchloom.data.readers import folder as reader
from torchloom.data.readers import texts
from torchloom.datasets.onnx import open_session
from torchloom.errors import InputError
from torchloom.models import build_network, resnet, vgg, vit
from torchloom.models import timm as timm_networks
from torchloom.models import torchvision as torchvision_networks
from torchloom.models._libraries import Source
from torchloom.problems import problem_of
from torchloom.records.provenance import RecordFolders, Records
from torchloom.training import pretrained
from torchloom.training.checkpoint import CheckpointDataset
from torchloom.training.weights import read_weights

pytestmark = [pytest.mark.xdist_group("export"), pytest.mark.usefixtures("exporter")]
STILL = {"optimizer": {"name": "SGD", "lr": 1e-9}}  # so that weights are as they came
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


def of_pictures(folder: Path, network: dict[str, Any], size: int = 32, channels: int = 3, **settings: Any) -> Trained:
    if not (folder / "own").exists():
        draw(folder / "own/train", "8", 9)
        draw(folder / "own/test", "8", 8)
    config = FolderPreprocessConfig(
        folder=str(folder / "own"), size=[size, size], channels=channels, validation_fraction=0.2
    )
    return Trained(folder, reader.preprocess(reader.find(config), config, folder), network, settings=settings)


def as_the_hub_has_it(folder: Path, name: str, classes: int, **network: Any) -> dict[str, Tensor]:
    """Weights of timm with random values, and a config.json beside them."""
    torch.manual_seed(3)
    made = timm.create_model(name, num_classes=classes, **network)
    folder.mkdir()
    state = {key: value.contiguous() for key, value in made.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    said = {"mean": MEAN, "std": STD, "input_size": [3, 48, 48], "num_classes": classes}
    config = {"architecture": name, "num_classes": classes, "model_args": network, "pretrained_cfg": said}
    (folder / "config.json").write_text(json.dumps(config))
    return state


def inner(task: Trained) -> dict[str, Tensor]:
    """The weights of the network within what is put around it."""
    return {name.removeprefix("network."): weight for name, weight in task.checkpoint.weights.items()}


@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_network_of_timm_from_a_folder(tmp_path: Path, channels: int, caplog: pytest.LogCaptureFixture) -> None:
    theirs = as_the_hub_has_it(tmp_path / "theirs", "test_resnet", 7, drop_path_rate=0.1)
    network = {"name": "timm/test_resnet.r160_in1k", "weights": str(tmp_path / "theirs")}
    with caplog.at_level(logging.INFO, logger="torchloom"):
        task = of_pictures(tmp_path, network, channels=channels, **STILL)
    assert "pictures are 32x32, and the weights were trained on 48x48" in caplog.text
    ours = inner(task)
    first = next(iter(theirs))
    summed = theirs[first] if channels == 3 else theirs[first].sum(1, keepdim=True)
    torch.testing.assert_close(ours[first], summed, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours["layer4.0.conv1.weight"], theirs["layer4.0.conv1.weight"])
    assert ours["fc.weight"].shape[0] == 2
    shutil.rmtree(tmp_path / "theirs")
    CheckpointDataset(filepath=str(tmp_path / "kept.safetensors")).save(task.checkpoint)
    kept = CheckpointDataset(filepath=str(tmp_path / "kept.safetensors")).load()
    assert kept.arguments == {"drop_path_rate": 0.1}
    model: Any = kept.build()
    known = [np.mean(MEAN)] if channels == 1 else MEAN
    np.testing.assert_allclose(model.mean.flatten() / 255, known, rtol=1e-6)
    task.classified(task.asked(tmp_path / "own/test"))
    paths = sorted((tmp_path / "own/test").glob("*/*"))
    task.classified([task.served([path.read_bytes()])[0] for path in paths])
    session = open_session((tmp_path / "model.onnx").read_bytes(), 1)
    said = json.loads(session.get_modelmeta().custom_metadata_map["mean"])
    assert said == pytest.approx(known)


@pytest.mark.parametrize("name", [pytest.param("resnet18", marks=pytest.mark.long), "squeezenet1_1"])
def test_a_network_of_torchvision_from_a_file(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(name, num_classes=7)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}}, tmp_path / "w.pth"
    )
    network = {"name": f"torchvision/{name}", "weights": str(tmp_path / "w.pth")}
    grey = name == "squeezenet1_1"
    task = of_pictures(tmp_path, network, channels=1 if grey else 3, **STILL)
    ours = {key.removeprefix("network."): value for key, value in inner(task).items()}
    parameters = [key for key, _ in theirs.named_parameters()]
    for key in parameters[:-2]:
        torch.testing.assert_close(ours[key], theirs.state_dict()[key], rtol=1e-4, atol=1e-5)
    assert len(ours[parameters[-1]]) == 2
    made_for = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    model: Any = task.checkpoint.build()
    known = [np.mean(made_for.mean)] if grey else made_for.mean
    np.testing.assert_allclose(model.mean.flatten() / 255, known, rtol=1e-6)
    if not grey:
        (tmp_path / "w.pth").unlink()
        task.classified(task.asked(tmp_path / "own/test"))


def test_densenets_of_torchvision_have_older_names_in_their_files() -> None:
    theirs = torchvision.models.densenet121(num_classes=7)
    state = {
        re.sub(r"(denselayer\d+\.\w+)([12])", r"\1.\2", name): weight for name, weight in theirs.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    given = torchvision_networks.started(Source("densenet121"), theirs, lambda: state, {}, {})
    assert given.keys() == theirs.state_dict().keys()


def test_the_librarys_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: what would be downloaded is drawn here, and a download that fails is told."""
    torch.manual_seed(3)
    theirs = torchvision.models.squeezenet1_1().state_dict()
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: theirs)
    task = of_pictures(tmp_path, {"name": "torchvision/squeezenet1_1", "pretrained": True}, **STILL)
    torch.testing.assert_close(inner(task)["features.0.weight"], theirs["features.0.weight"], rtol=1e-4, atol=1e-5)

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(InputError, match=r"model\.pretrained: .*squeezenet1_1 cannot be had: OSError: no route"):
        of_pictures(tmp_path, {"name": "torchvision/squeezenet1_1", "pretrained": True})
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with pytest.raises(InputError, match=r"model\.pretrained: .*test_resnet\S* cannot be had: OSError: no route"):
        of_pictures(tmp_path, {"name": "timm/test_resnet.r160_in1k", "pretrained": True})


# ---- our own networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.long)])
def test_resnets_and_those_of_torchvision_are_one(depth: int) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=10).eval()
    sizes = {"shape": (3, 33, 33), "outputs": 10}
    ours = build_network("resnet", sizes, {"depth": depth, "stem": "imagenet", "initialization": "default"}).eval()
    images = torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        before = ours(images)
        back = resnet.to_torchvision({name: weight.clone() for name, weight in ours.state_dict().items()})
        assert list(back) == list(theirs.state_dict())
        ours.load_state_dict(resnet.from_torchvision(theirs.state_dict()))
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
        theirs.load_state_dict(back)
        torch.testing.assert_close(theirs(images), before, rtol=1e-5, atol=1e-5)


def test_vision_transformers_and_vggs_take_weights_of_torchvision() -> None:
    torch.manual_seed(3)
    theirs: nn.Module = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=7).eval()
    nn.init.normal_(theirs.heads.head.weight)  # type: ignore[arg-type,union-attr]
    arguments = {"patch": 8, "width": 32, "layers": 2, "heads": 4, "feedforward": 64, "stem": "patches"}
    ours = build_network("vit", {"shape": (3, 32, 32), "outputs": 7}, {**arguments, "pooling": "token"}).eval()
    ours.load_state_dict(vit.from_torchvision(theirs.state_dict()))
    for layer in ours.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-6  # as theirs have it
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    for name, norm in {"vgg11": "none", "vgg13_bn": "batch"}.items():
        with torch.device("meta"):
            known = torchvision.models.get_model(name).state_dict()
            given = {"depth": int(name[3:5]), "norm": norm, "hidden": [4096, 4096]}
            made = build_network("vgg", {"shape": (3, 224, 224), "outputs": 1000}, given).state_dict()
        mapped = vgg.from_torchvision(known)
        assert {key: each.shape for key, each in mapped.items()} == {key: each.shape for key, each in made.items()}


def test_a_network_of_ours_starts_from_a_file_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(num_classes=3).state_dict()
    torch.save(theirs, tmp_path / "torchvision_resnet18.pth")
    network = {"name": "resnet", "stem": "imagenet", "weights": str(tmp_path / "torchvision_resnet18.pth")}
    task = of_pictures(tmp_path, network, **STILL)
    torch.testing.assert_close(inner(task)["stages.7.body.3.weight"], theirs["layer4.1.conv2.weight"])
    assert task.checkpoint.info.mean == [0.485, 0.456, 0.406]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"torchvision_resnet18\.pth: do not fit resnet: stem\.0\.weight are missing"):
        of_pictures(tmp_path, {**network, "stem": "small"})


# ---- encoders of texts ---------------------------------------------------------------------------------------------


def encoder(folder: Path, rows: list[dict[str, Any]], positions: int = 14, spread: float = 0.5) -> dict[str, Tensor]:
    """A tiny BERT with random weights, and pieces of words learnt from the texts, as the hub keeps them.

    With a large `spread` of the weights it tells texts apart before it has learnt anything.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel

    learnt = BertWordPieceTokenizer()
    learnt.train_from_iterator([row["review"] for row in rows], vocab_size=300, show_progress=False)
    tokenizer = Tokenizer.from_str(learnt.to_str())
    sep, cls = ((name, learnt.token_to_id(name)) for name in ("[SEP]", "[CLS]"))
    tokenizer.post_processor = BertProcessing(sep, cls)  # type: ignore[assignment]
    tokenizer.enable_truncation(5)  # which is not what cuts texts here
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": positions}))
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=positions, initializer_range=spread, **sizes
    )
    model = BertModel(config)
    model.save_pretrained(folder)
    weights: dict[str, Tensor] = model.state_dict()
    return weights


def of_texts(folder: Path, rows: list[dict[str, Any]], network: dict[str, Any], **settings: Any) -> Trained:
    half = len(rows) // 2
    write(folder / "own/train.csv", rows[:half])
    write(folder / "own/test.csv", rows[half:])
    target = settings.pop("target", "verdict")
    problem, data = settings.pop("problem", "classification"), settings.pop("data", None)
    config = TextFilesPreprocessConfig(
        files=str(folder / "own"), target=target, text="review", tokenizer=str(folder / "theirs")
    )
    prepared = texts.preprocess(texts.find(config), config, folder)
    return Trained(folder, prepared, network, problem, data, settings=settings)


@pytest.mark.parametrize("max_tokens", [pytest.param(None, marks=pytest.mark.long), 9])
def test_an_encoder_of_texts(tmp_path: Path, max_tokens: int | None) -> None:
    rows = reviews(60)
    theirs = encoder(tmp_path / "theirs", rows)
    network = {"name": "huggingface", "weights": str(tmp_path / "theirs")}
    task = of_texts(tmp_path, rows, network, data=DataConfig(max_tokens=max_tokens), **STILL)
    ours = {name.removeprefix("encoder."): weight for name, weight in inner(task).items()}
    name = "encoder.layer.1.attention.self.query.weight"
    torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    tokens, lengths, _ = next(iter(task.plan.loader("test")))
    known = task.plan.info.tokenizer  # type: ignore[union-attr]
    assert lengths.max() == (max_tokens or 14)
    for row, length in zip(tokens, lengths, strict=True):  # cut or not, it has what stands around a text
        assert [known.vocabulary[row[0]], known.vocabulary[row[length - 1]]] == ["[CLS]", "[SEP]"]
    shutil.rmtree(tmp_path / "theirs")
    task.classified(task.asked(tmp_path / "own/test.csv"))
    task.classified(task.served([row["review"] for row in rows[30:]]))


def test_numbers_are_told_by_an_encoder_of_another_kind(tmp_path: Path) -> None:
    """DistilBERT has no pooler; and the mean of all tokens."""
    from transformers import DistilBertConfig, DistilBertModel

    rows = reviews(40)
    encoder(tmp_path / "theirs", rows, positions=30)
    torch.manual_seed(3)
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 30}
    DistilBertModel(DistilBertConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path / "theirs")
    for pooling in ("token", "mean"):
        network = {"name": "huggingface", "weights": str(tmp_path / "theirs"), "pooling": pooling}
        task = of_texts(tmp_path, rows, network, target="stars", problem="regression")
        (answers,) = task.tested()
        assert len(answers) == 20
        assert answers.std() > 0


def test_texts_and_encoder_must_have_the_same_tokens(tmp_path: Path) -> None:
    rows = reviews(40)
    encoder(tmp_path / "theirs", rows)
    network = {"name": "huggingface", "weights": str(tmp_path / "theirs")}
    write(tmp_path / "own/train.csv", rows)
    for given in ({}, {"tokenizer": str(tmp_path / "theirs")}):
        config = TextFilesPreprocessConfig(files=str(tmp_path / "own"), target="verdict", text="review", **given)
        prepared = texts.preprocess(texts.find(config), config, tmp_path)
        definition = json.loads((tmp_path / "theirs/tokenizer.json").read_text())
        definition["normalizer"] = None
        if given:
            (tmp_path / "theirs/tokenizer.json").write_text(json.dumps(definition))
        with pytest.raises(InputError, match=r"the encoder has its own tokens.*preprocess\.tokenizer"):
            Trained(tmp_path, prepared, network)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    write(tmp_path / "own/train.csv", reviews(40))
    given = {"files": str(tmp_path / "own"), "target": "verdict", "text": "review"}
    config = TextFilesPreprocessConfig(**given, tokenizer=str(tmp_path / "theirs"))
    with pytest.raises(InputError, match=r"theirs: holds no tokenizer\.json"):
        texts.preprocess(texts.find(config), config, tmp_path)
    (tmp_path / "theirs/tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"theirs: tokenizer\.json: is no tokenizer"):
        texts.preprocess(texts.find(config), config, tmp_path)
    with pytest.raises(ValidationError, match="must be without min_count, tokens where a tokenizer has all that"):
        TextFilesPreprocessConfig(**given, tokenizer=str(tmp_path / "theirs"), tokens="words", min_count=2)


# ---- what is refused, and what is recorded -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"name": "timm/resnet5O"}, "timm has no network 'resnet5O' for pictures .did you mean resnet50"),
        ({"name": "timm/hf-hub:some/body"}, "timm has no network 'hf-hub:some/body'"),
        ({"name": "torchvision/fcn_resnet50"}, "torchvision has no network 'fcn_resnet50' for pictures"),
        ({"name": "flax/resnet50"}, "must be timm/… or torchvision/…"),
        ({"name": "timm/test_resnet", "drop_path": 0.1}, "arguments do not fit test_resnet"),
        ({"name": "timm/test_resnet", "num_classes": 3}, "arguments do not fit test_resnet"),
        ({"name": "timm/test_resnet", "drop_path_rate": "much"}, "arguments do not fit test_resnet"),
        ({"name": "timm/test_resnet", "weights": "a", "pretrained": True}, "either weights, .* or pretrained"),
        ({"name": "resnet", "pretrained": True}, "must be without pretrained: resnet is not of timm or torchvision"),
        ({"name": "mlp", "weights": "a.pth"}, "must be without weights: .* does not fit the network mlp"),
    ],
)
def test_mistakes_in_the_block_are_found_before_a_run(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        problem_of("classification").network(**block)


def test_networks_of_a_single_size_say_which(tmp_path: Path) -> None:
    sizes = {"shape": (3, 64, 64), "outputs": 2}
    said = r"takes images of 160x160 pixels alone, and these are 64x64\. Set preprocess\.size: \[160, 160\]"
    with pytest.raises(InputError, match=said):
        build_network("timm/test_vit", sizes, {})
    assert build_network("timm/test_vit", sizes, {"img_size": [64, 64]})(torch.zeros(2, 3, 64, 64)).shape == (2, 2)
    with pytest.raises(InputError, match=r"torchvision/vit_b_16: takes images of 224x224 .* or model\.image_size"):
        build_network("torchvision/vit_b_16", sizes, {})
    with pytest.raises(InputError, match="takes no checkpoint_path"):  # as a checkpoint from elsewhere might have it
        build_network("timm/test_resnet", sizes, {"checkpoint_path": "evil.pth"})


def test_weights_of_others_come_whole_or_not_at_all(tmp_path: Path) -> None:
    network = {"name": "timm/test_resnet", "weights": str(tmp_path / "theirs")}
    with pytest.raises(InputError, match="theirs: there is no such file"):
        of_pictures(tmp_path, network)
    state = as_the_hub_has_it(tmp_path / "theirs", "test_resnet", 7)
    with pytest.raises(InputError, match=r"do not fit timm/test_vit: the config\.json is of timm/test_resnet"):
        of_pictures(tmp_path, {**network, "name": "timm/test_vit"}, size=160)
    whole = {name: weight.to(torch.int8) if weight.ndim == 4 else weight for name, weight in state.items()}
    save_file(whole, tmp_path / "theirs/model.safetensors")
    with pytest.raises(InputError, match=r"theirs: conv1\.0\.weight is int8 and not float32\. Whole numbers are"):
        of_pictures(tmp_path, network)
    (tmp_path / "theirs/config.json").unlink()
    save_file({name: state[name] for name in list(state)[5:]}, tmp_path / "theirs/model.safetensors")
    with pytest.raises(InputError, match=r"theirs: do not fit timm/test_resnet: (.|\n)*Missing key"):
        of_pictures(tmp_path, network)
    (tmp_path / "theirs/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"theirs: holds neither model\.safetensors nor pytorch_model\.bin"):
        of_pictures(tmp_path, network)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("run!",))


def test_files_of_weights_are_data_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth: holds more than weights"):
        read_weights(tmp_path / "evil.pth")
    assert "run!" not in capsys.readouterr().out
    for content in (b"", b"PK", b"{"):
        for name in ("odd.pth", "odd.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=rf"{name}: (damaged|holds more than weights|holds no weights)"):
                read_weights(tmp_path / name)
    kept = {"w": torch.ones(2)}
    torch.save({"model": {"module._orig_mod.w": kept["w"]}, "epoch": 3}, tmp_path / "wrapped.pth")
    assert read_weights(tmp_path / "wrapped.pth").keys() == kept.keys()


def test_labels_and_numbers_are_told_by_networks_of_a_library(tmp_path: Path) -> None:
    for name, outputs in {"multilabel": 4, "regression": 1}.items():
        model = problem_of(name).network(name="timm/test_resnet", drop_path_rate=0.1)
        made = build_network(model.name, {"shape": (3, 32, 32), "outputs": outputs}, model.arguments)
        assert made(torch.zeros(2, 3, 32, 32)).shape == (2, outputs)
    with pytest.raises(ValidationError, match=r"asks for the sizes \(shape, outputs\)"):
        problem_of("segmentation").network(name="timm/test_resnet")


def test_a_file_that_has_changed_is_another(tmp_path: Path) -> None:
    """For the records of what made a file, and for a training that goes on."""
    kind = problem_of("classification").network
    kinds: Any = {"task.model": kind, "letters.preprocess": TextFilesPreprocessConfig}
    records = Records(RecordFolders(tmp_path, tmp_path), {}, kinds)
    weights, folder = tmp_path / "w.pth", tmp_path / "theirs"
    folder.mkdir()
    found = []
    for content in ("one", "other", "other"):
        weights.write_text(content)
        (folder / "tokenizer.json").write_text(content)
        network = kind(name="torchvision/resnet18", weights=str(weights))
        found.append(
            (
                dict(records.files("params:task.model", {"weights": str(weights)})),
                dict(records.files("params:letters.preprocess", {"tokenizer": str(folder)})),
                pretrained.fingerprint(network),
            )
        )
    assert found[0][0].keys() == {"task.model.weights"}
    assert all(before != after for before, after in zip(found[0], found[1], strict=True))
    assert found[1] == found[2]
    assert dict(records.files("params:task.train", {"weights": "w.pth"})) == {}


@pytest.mark.parametrize(("library", "name"), [("timm", "timm/test_resnet"), ("transformers", "huggingface")])
def test_a_library_that_is_not_installed(library: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(timm_networks, "names", timm_networks.names.__wrapped__)
    with pytest.raises(InputError, match=f"needs the package {library}, .* --extra {library}"):
        build_network(name, {"shape": (3, 32, 32), "tokens": 9, "outputs": 2}, {"config": {"model_type": "bert"}})


# ---- the guide -----------------------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs/how-to/pretrained.md").read_text()


@pytest.mark.long
def test_the_guide(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With smaller networks; a file that has changed since makes what came of it stale."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL):
        name = text.partition(":")[0]
        small = text.replace("timm/resnet50.a1_in1k", "timm/test_resnet").replace("[224, 224]", "[32, 32]")
        (project / f"conf/base/parameters/{name}.yml").write_text(small)
    draw(tmp_path / "blossoms", "8", 20)
    as_the_hub_has_it(tmp_path / "resnet50.a1_in1k", "test_resnet", 7)
    train = {"epochs": 2, "batch_size": 8, "threads": 1}
    catalog = kedro_run(project, "blossoms_timm", env="local", params={"blossoms_timm": {"train": train}})
    assert catalog.load("blossoms_timm.checkpoint").info.mean == MEAN
    assert catalog.load("blossoms_timm.export_report")["greatest_difference"] < 1e-3
    record = json.loads((project / "data/records/nodes/blossoms_timm.train.json").read_text())
    assert record["packages"]["timm"] == timm.__version__
    assert record["inputs"]["blossoms_timm.model.weights"].startswith("sha256:")
    assert "torchloom.models.timm" in record["code"]
    assert "torchloom.models.torchvision" not in record["code"]

    rows = reviews(200)
    write(tmp_path / "editor.csv", rows)
    encoder(tmp_path / "theirs", rows, positions=30, spread=0.02)
    (tmp_path / "theirs").rename(tmp_path / "bert")
    train = {"epochs": 8, "batch_size": 8, "threads": 1, "optimizer": {"lr": 0.003}}
    catalog = kedro_run(project, "opinions", env="local", params={"opinions": {"train": train}})
    assert catalog.load("opinions.metrics")["accuracy"] > 0.7
    assert catalog.load("opinions.export_report")["greatest_difference"] < 1e-3
    shutil.rmtree(tmp_path / "bert")
    write(project / "asked.csv", [{"review": row["review"]} for row in reviews(30, seed=1)])
    asked = "predict.model=opinions,predict.files=asked.csv"
    result = kedro(project, "run", "--pipelines", "predict", "--params", asked)
    assert result.returncode == 0, result.stderr
