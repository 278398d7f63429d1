"""Weights that come from another training, and layers that stay as they are."""

from functools import partial
from typing import Any

import pytest
import torch
from test_loop import classifier, fresh, run
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.stages import CLASSIFICATION
from torchloom.data.batches import Batches, ImageBatches
from torchloom.data.targets import Classes
from torchloom.data.text import Tokenizer
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo, ImageInfo, Info, TextInfo
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.problems.base import Problem
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import ClassificationTrainConfig, ClassifierConfig
from torchloom.problems.language_model.config import LanguageModelConfig
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loop import fit
from torchloom.training.optimizers import create_optimizer
from torchloom.training.transfer import freeze, learn, take_over, training_mode

INFO = ImageInfo(target=Classes(classes=["cat", "dog"]), shape=[3, 8, 8], mean=[0.5] * 3, std=[0.25] * 3)
OTHERS = ImageInfo(
    target=Classes(classes=["rose", "tulip", "lily"]), shape=[3, 8, 8], mean=[0.1, 0.2, 0.3], std=[0.3] * 3
)


def problem_for(info: Info) -> Problem:
    return problem_of("language_model") if isinstance(info, TextInfo) else CLASSIFICATION


def network(name: str, **arguments: Any) -> ClassifierConfig:
    return ClassifierConfig.model_validate({"name": name, **arguments})


def checkpoint(config: Any, info: Any) -> Checkpoint:
    asked = problem_for(info)
    model = build_model(config.name, config.arguments, info, asked)
    arguments, weights = config.arguments, model.state_dict()
    return Checkpoint(
        network=config.name, arguments=arguments, problem=asked.name, info=info, training={}, weights=weights
    )


def taken(config: Any, info: Info, start: Checkpoint) -> tuple[set[str], dict[str, Tensor]]:
    """The names of the weights that came from `start`, and all that the model then has."""
    asked = problem_for(info)
    model = build_model(config.name, config.arguments, info, asked)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    take_over(model, config, info, asked, start)
    after = model.state_dict()
    return {n for n in after if n in start.weights and torch.equal(after[n], start.weights[n])} - {
        n for n in after if torch.equal(after[n], before[n])
    }, after


def test_all_but_the_head_comes_along() -> None:
    config = network("resnet", width=4)
    start = checkpoint(config, INFO)
    for name, weight in start.weights.items():
        start.weights[name] = weight + 1
    names, after = taken(config, OTHERS, start)
    assert after.keys() - names == {"network.head.weight", "network.head.bias", "mean", "std"}
    assert after["network.head.weight"].shape == (3, 32)
    assert after["mean"].flatten().tolist() == pytest.approx([255 * value for value in OTHERS.mean])


def test_of_the_same_classes_the_head_comes_along_too() -> None:
    config = network("mlp", hidden=[5])
    names, after = taken(config, INFO.model_copy(update={"mean": [0.4] * 3}), checkpoint(config, INFO))
    assert after.keys() - names == {"mean", "std"}


def test_as_many_classes_of_other_names_need_another_head() -> None:
    config = network("mlp", hidden=[5])
    names, after = taken(
        config, INFO.model_copy(update={"target": Classes(classes=["cow", "pig"])}), checkpoint(config, INFO)
    )
    kept = [name for name in after if name.startswith("network.") and name not in names]
    assert [after[name].shape[0] for name in kept] == [2, 2]


def test_other_characters_need_another_embedding_and_another_head() -> None:
    infos = [TextInfo(tokenizer=Tokenizer(kind="characters", vocabulary=list(letters))) for letters in ("abc", "xyz")]
    config = LanguageModelConfig.model_validate({"name": "language_rnn", "width": 4})
    names, after = taken(config, infos[1], checkpoint(config, infos[0]))
    assert {name.partition(".")[0] for name in names} == {"rnn"}
    names, after = taken(config, infos[0], checkpoint(config, infos[0]))
    assert names == after.keys()


def test_other_words_need_another_embedding_and_other_classes_another_head() -> None:
    vocabularies = (["<pad>", "<unk>", *words] for words in ("ab", "xy"))
    before, after = (Tokenizer(kind="words", vocabulary=vocabulary) for vocabulary in vocabularies)
    start = DocumentInfo(target=Classes(classes=["bad", "good"]), tokenizer=before)
    config = network("text_rnn", width=4, embedding=4)
    everything, _ = taken(config, start, checkpoint(config, start))
    without_words, _ = taken(config, start.model_copy(update={"tokenizer": after}), checkpoint(config, start))
    without_head, _ = taken(
        config, start.model_copy(update={"target": Classes(classes=["no", "yes"])}), checkpoint(config, start)
    )
    assert {name.partition(".")[0] for name in everything - without_words} == {"embedding"}
    assert everything - without_head == {name for name in everything if name.startswith("head")}


@pytest.mark.parametrize(
    ("config", "info", "message"),
    [
        (network("mlp"), OTHERS, "model.name mlp: the checkpoint to start from is of resnet"),
        (network("resnet", width=8), OTHERS, "network.stem.0.weight, .*{'name': 'resnet', 'width': 4}"),
        (
            network("resnet", width=4, depth=34),
            OTHERS,
            r"do not fit\. It was trained as .*'width': 4} .*; this is .*'depth': 34}",
        ),
        (network("resnet", width=4), OTHERS.model_copy(update={"shape": [1, 8, 8]}), "network.stem.0.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit(config: ClassifierConfig, info: ImageInfo, message: str) -> None:
    if info.shape[0] == 1:
        info = info.model_copy(update={"mean": [0.5], "std": [0.5]})
    with pytest.raises(InputError, match=message):
        taken(config, info, checkpoint(network("resnet", width=4), INFO))


# ---- what stays as it is -------------------------------------------------------------------------------------------


def test_frozen_layers_keep_weights_and_statistics() -> None:
    torch.manual_seed(0)
    model = build_model("resnet", {"width": 4}, OTHERS, CLASSIFICATION)
    freeze(model, ["network.stem.*", "network.stages.0.*"])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    images = torch.randint(256, (12, 8, 8, 3), dtype=torch.uint8)
    data = ImageBatches(images, torch.arange(12) % 3)

    def open_loader(split: str, device: torch.device) -> DataLoader[Any]:
        if split == "validation":
            return DataLoader([], sampler=Batches(0, 1), batch_size=None)
        return DataLoader(data, sampler=Batches(12, 6, 0), batch_size=None, generator=torch.Generator())

    config = ClassificationTrainConfig.model_validate(
        {"epochs": 2, "optimizer": {"name": "SGD", "lr": 0.1, "weight_decay": 0.1}, "device": "cpu"}
    )
    result = fit(model, open_loader, config, classification_objective("CrossEntropyLoss", {}))
    same = {name for name, weight in result.last.items() if torch.equal(weight, before[name])}
    assert same == {"mean", "std", *(n for n in before if n.startswith(("network.stem.", "network.stages.0.")))}


def test_only_layers_that_stay_as_a_whole_keep_their_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False), nn.Dropout())
    freeze(model, ["0.*", "1.weight"])
    training_mode(model)
    assert [module.training for module in model] == [False, True, True, True]


def test_what_a_fixed_parameter_lies_beside_learns() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    model.position = nn.Parameter(torch.zeros(2), requires_grad=False)
    training_mode(model)
    assert [module.training for module in model.modules()] == [False, True, True]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(["0.wieght"], "0.wieght fits none of 0.weight, 0.bias"), (["*.weight", "*.bias"], "leave nothing to learn")],
)
def test_freezing_goes_wrong(patterns: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        freeze(nn.Sequential(nn.Linear(2, 2)), patterns)


# ---- what waits ----------------------------------------------------------------------------------------------------

WAITING = {"parameters": ["0.*", "1.*"], "epochs": 2}


def layered(freezing: list[Any], **optimizer: Any) -> tuple[nn.Module, Any, ClassificationTrainConfig]:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
    given = {"epochs": 9, "freeze": freezing, "optimizer": {"name": "SGD", "lr": 0.1, **optimizer}}
    config = ClassificationTrainConfig.model_validate(given)
    freeze(model, config.freeze)
    return model, create_optimizer(model, config.optimizer), config


def test_layers_learn_from_their_epoch_on() -> None:
    model, optimizer, config = layered(["3.bias", WAITING, {"parameters": ["0.*"], "epochs": 3}])
    learning, changed, statistics = {}, [], []
    for epoch in range(1, 6):
        changed.append(learn(model, optimizer, config, epoch))
        learning[epoch] = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        training_mode(model)
        statistics.append(model[1].training)
    rest = {"2.weight", "2.bias", "3.weight"}
    norm = {"1.weight", "1.bias"}
    assert learning == {
        **{1: rest, 2: rest, 3: rest | norm},
        **dict.fromkeys((4, 5), rest | norm | {"0.weight", "0.bias"}),
    }
    assert changed == [True, False, True, True, False]
    assert statistics == [False, False, True, True, True]


def test_what_waits_may_also_be_over() -> None:
    """As at a training that goes on: any epoch may be the first that is seen."""
    groups = [{"parameters": ["0.*"], "epochs": 3}]
    for epoch, expected in {1: False, 2: False, 3: True, 4: False, 5: False}.items():
        model, optimizer, config = layered([WAITING], groups=groups)
        learn(model, optimizer, config, epoch)
        assert model[0].weight.requires_grad is expected
        assert learn(model, optimizer, config, epoch) is False


def test_a_layer_that_waits_is_as_it_began_until_its_epoch() -> None:
    make = partial(classifier, norm="batch")
    waiting: dict[str, Any] = {"freeze": [{"parameters": ["network.1.*", "network.2.*"], "epochs": 2}], "ema": 0.5}
    begun = fresh(make).state_dict()
    names = [name for name in begun if name.startswith(("network.1.", "network.2."))]
    assert len(names) > 4
    _, still = run(make, epochs=2, **waiting)
    _, after = run(make, epochs=3, **waiting)
    assert all(torch.equal(still.last[name], begun[name]) for name in names)
    assert not any(torch.equal(after.last[name], begun[name]) for name in names)
    assert not torch.equal(still.last["network.4.weight"], begun["network.4.weight"])


def test_if_all_wait_nothing_can_learn() -> None:
    with pytest.raises(InputError, match="leave nothing to learn"):
        layered([{"parameters": ["*"], "epochs": 1}])
    with pytest.raises(InputError, match=r"4\.\* fits none of 0\.weight"):
        layered([{"parameters": ["4.*"], "epochs": 1}])
