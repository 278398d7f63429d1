"""Weights that others have trained: of timm, of torchvision, and of encoders of texts."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.tables import reviews, write
from tests.test_as_tested import Trained, draw
from torchloom.config import DataConfig, FolderPreprocessConfig, TextFilesPreprocessConfig
from torchloom.data.readers import folder as reader
from torchloom.data.readers import texts
from torchloom.datasets.onnx import open_session
from torchloom.errors import InputError
from torchloom.models import build_network, check_arguments, check_network, resnet, vgg, vit
from torchloom.problems import problem_of
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


@pytest.mark.parametrize("channels", [1, 3])
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


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "densenet121"])
def test_a_network_of_torchvision_from_a_file(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(name, num_classes=7)
    state = {re.sub(r"(denselayer.*?\.\w+)([12])", r"\1.\2", key): value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
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
    if name == "resnet18":
        (tmp_path / "w.pth").unlink()
        task.classified(task.asked(tmp_path / "own/test"))


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
    with pytest.raises(
        InputError, match=r"model\.pretrained: .*squeezenet1_1 cannot be had: OSError: no route .*weights"
    ):
        of_pictures(tmp_path, {"name": "torchvision/squeezenet1_1", "pretrained": True})
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with pytest.raises(InputError, match=r"model\.pretrained: .*test_resnet\S* cannot be had: OSError: no route"):
        of_pictures(tmp_path, {"name": "timm/test_resnet.r160_in1k", "pretrained": True})


# ---- our own networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, 50])
def test_resnets_and_those_of_torchvision_are_one(depth: int) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=10).eval()
    sizes = {"shape": (3, 64, 64), "outputs": 10}
    ours = build_network("resnet", sizes, {"depth": depth, "stem": "imagenet"}).eval()
    images = torch.randn(2, 3, 64, 64)
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
    theirs = torchvision.models.resnet18().state_dict()
    torch.save(theirs, tmp_path / "torchvision_resnet18.pth")
    network = {"name": "resnet", "stem": "imagenet", "weights": str(tmp_path / "torchvision_resnet18.pth")}
    task = of_pictures(tmp_path, network, **STILL)
    torch.testing.assert_close(inner(task)["stages.7.body.3.weight"], theirs["layer4.1.conv2.weight"])
    assert task.checkpoint.info.mean == [0.485, 0.456, 0.406]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"torchvision_resnet18\.pth: do not fit resnet: stem\.0\.weight are missing"):
        of_pictures(tmp_path, {**network, "stem": "small"})


# ---- encoders of texts ---------------------------------------------------------------------------------------------


def encoder(folder: Path, rows: list[dict[str, Any]], positions: int = 14) -> dict[str, Tensor]:
    """A tiny BERT with random weights, and pieces of words learnt from the texts, as the hub keeps them."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    learnt = BertWordPieceTokenizer()
    learnt.train_from_iterator([row["review"] for row in rows], vocab_size=300, show_progress=False)
    folder.mkdir()
    learnt.save(str(folder / "plain.json"))
    tokenizer = BertTokenizerFast(tokenizer_file=str(folder / "plain.json"), model_max_length=positions)
    tokenizer.save_pretrained(folder)
    (folder / "plain.json").unlink()
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    sizes |= {"initializer_range": 0.5}  # so that it tells texts apart
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=positions, **sizes)
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


@pytest.mark.parametrize("max_tokens", [None, 9])
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
