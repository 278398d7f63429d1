"""Recipes of fine-tuning: which weights learn, at which rate, and what is left of them in a checkpoint."""

import json
import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from conftest import ROOT
from tests.stages import CLASSIFICATION, train
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig
from torchloom.config.checks import check_block
from torchloom.data.targets import Classes
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import Model
from torchloom.modalities import ImageInfo, TableInfo
from torchloom.models import build_model, build_network
from torchloom.pipelines.training.nodes import Trained, build_dataloaders
from torchloom.problems.classification.config import (
    ClassificationTrainConfig,
    ClassifierConfig,
    EvaluateClassifierConfig,
    PrunedTrainConfig,
)
from torchloom.training.checkpoint import Checkpoint, CheckpointDataset
from torchloom.training.finetuning import finetuned, merged, recipe_arguments, recipe_names, stages_of
from torchloom.training.loaders import LoaderPlan
from torchloom.training.optimizers import create_optimizer
from torchloom.training.state import TrainingStates
from torchloom.training.transfer import head_of, learn

INFO = ImageInfo(target=Classes(classes=["a", "b", "c"]), shape=[3, 8, 8], mean=[0.5] * 3, std=[0.25] * 3)
VIT = {"name": "vit", "width": 16, "layers": 2, "heads": 2, "patch": 4, "stem": "patches", "pooling": "token"}
RESNET = {"name": "resnet", "width": 4, "blocks": [1, 1]}
NARROW = {"width": 8, "heads": 2, "layers": 3, "feedforward": 8}
BERT = {"model_type": "bert", "vocab_size": 30, "hidden_size": 8, "intermediate_size": 8}
BERT |= {"num_hidden_layers": 3, "num_attention_heads": 2}
HEAD = {"network.head.weight", "network.head.bias"}
IMAGES = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def block(finetune: Any = None, **settings: Any) -> ClassificationTrainConfig:
    given = {"epochs": 2, "batch_size": 12, "optimizer": {"name": "SGD", "lr": 0.1}, "device": "cpu", **settings}
    return ClassificationTrainConfig.model_validate({**given, "finetune": finetune, "precision": "fp32", "seed": 3})


def described(network: dict[str, Any], info: Any = INFO) -> Checkpoint:
    """With weights of its own, and of those of batch norm none that is zero or one."""
    name, arguments = network["name"], {key: value for key, value in network.items() if key != "name"}
    torch.manual_seed(5)
    weights = build_model(name, arguments, info, CLASSIFICATION).state_dict()
    weights = {name: torch.rand_like(w) + 0.5 if "running" in name else w for name, w in weights.items()}
    return Checkpoint(
        network=name, arguments=arguments, problem="classification", info=info, training={}, weights=weights
    )


def seen_to(network: dict[str, Any], finetune: Any, **settings: Any) -> tuple[nn.Module, ClassificationTrainConfig]:
    """The model after its recipe, and the block as that returns it."""
    start = described(network)
    model = start.build()
    config = finetuned(model, head_of(start), block(finetune, **settings))
    assert isinstance(config, ClassificationTrainConfig)
    return model, config


def learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@cache
def plan_in(folder: Path) -> LoaderPlan:
    """Of 60 pictures for training and 12 for each of the others, in which a dark row tells the class."""
    splits = []
    for name, count in (("train", 60), ("validation", 12), ("test", 12)):
        images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        labels = np.arange(count) % 3
        images[np.arange(count), labels] //= 4
        dataset = TensorsDataset(filepath=str(folder / f"{name}.safetensors"))
        dataset.save(Tensors({"images": images, "labels": labels}))
        splits.append(dataset.load())
    info = INFO.model_dump(mode="json")
    return build_dataloaders(*splits, info, DataConfig(), block(), EvaluateClassifierConfig(), DebuggingConfig())


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> LoaderPlan:
    return plan_in(tmp_path_factory.mktemp("plan"))


def trained(
    plan: LoaderPlan, network: dict[str, Any], states: TrainingStates | None = None, **settings: Any
) -> Trained:
    config, asked = block(**settings), ClassifierConfig.model_validate(network)
    given = plan, asked, config, DistributedConfig(), DebuggingConfig(), states, described(network)
    made: Trained = train(*given)
    return made


def changed(before: Checkpoint, after: Checkpoint) -> set[str]:
    assert before.weights.keys() == after.weights.keys()
    return {name for name, weight in after.weights.items() if not torch.equal(weight, before.weights[name])}


# ---- which weights learn -------------------------------------------------------------------------------------------


def test_a_linear_probe_changes_the_head_alone(plan: LoaderPlan, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="torchloom"):
        made = trained(plan, RESNET, finetune="linear_probe")
    assert changed(described(RESNET), made.last) == HEAD  # and no statistics
    learning = sum(made.last.weights[name].numel() for name in HEAD)
    assert f"parameters, of which {learning:,} learn" in caplog.text


def test_all_is_what_a_training_without_a_recipe_does(plan: LoaderPlan) -> None:
    every, plain = trained(plan, RESNET, finetune="all"), trained(plan, RESNET)
    assert changed(every.last, plain.last) == set()
    assert every.last.training["parameters"]["finetune"] == {"name": "all"}


@pytest.mark.parametrize(("stages", "kept"), [(1, {"stem", "stages.0"}), (2, {"stem"}), (3, set())])
def test_the_last_stages_learn(stages: int, kept: set[str]) -> None:
    model, _ = seen_to(RESNET, {"name": "last_stages", "stages": stages})
    left = {name for name, _ in model.named_parameters()} - learning(model)
    places = {".".join(name.split(".")[1 : 3 if "stages" in name else 2]) for name in left}
    assert places == kept


def test_stages_are_the_layers_of_a_network_and_of_its_stacks() -> None:
    start = described(VIT)
    stages = stages_of(start.build(), head_of(start))
    places = [sorted({".".join(name.split(".")[1:4]) for name in stage}) for stage in stages]
    assert places[0] == ["places", "stem.bias", "stem.weight", "token"]
    assert all(place.startswith("encoder.blocks.0") or place.startswith("encoder.blocks") for place in places[1])
    assert len(stages) == 3
    assert {"network.encoder.norm.weight", "network.encoder.blocks.1.layers.0.weight"} <= set(stages[2])
    assert {name for stage in stages for name in stage} == {n for n, _ in start.build().named_parameters()} - HEAD


class Encoder(nn.Module):
    """As libraries have them: a stack within a layer, with positions beside it."""

    def __init__(self, stack: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, 3, 4))
        self.layers = stack(nn.TransformerEncoderLayer(4, 2, 8) for _ in range(2))
        self.norm = nn.LayerNorm(4)


@pytest.mark.parametrize("stack", [nn.ModuleList, lambda layers: nn.Sequential(*layers)])
def test_stacks_are_found_however_deep_they_are(stack: Callable[..., nn.Module]) -> None:
    body = nn.ModuleDict({"encoder": Encoder(stack)})
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "body": body, "head": nn.Linear(4, 2)})
    stages = stages_of(model, {"head.weight", "head.bias"})
    assert stages[0] == ["embedding.weight", "body.encoder.places"]
    assert [{name.rpartition("layers.")[2][0] for name in stage if "layers" in name} for stage in stages[1:]] == [
        {"0"},
        {"1"},
    ]
    assert stages[2][-2:] == ["body.encoder.norm.weight", "body.encoder.norm.bias"]


@pytest.mark.parametrize("kind", ["bert", "patchtst"])
def test_all_weights_are_of_a_stage(kind: str) -> None:
    networks: dict[str, Any] = {
        "bert": ("huggingface", {"tokens": 30, "outputs": 2}, {"config": BERT}),
        "patchtst": ("patchtst", {"window": 24, "channels": 2, "horizon": 6}, {"patch": 4, "stride": 2, **NARROW}),
    }
    network = build_network(*networks[kind])
    stages = stages_of(network, set())
    assert len(stages) == {"bert": 6, "patchtst": 5}[kind]  # embeddings, layers, pooler; layers; and the head
    assert sorted(name for stage in stages for name in stage) == sorted(name for name, _ in network.named_parameters())


# ---- rates ---------------------------------------------------------------------------------------------------------


def rates(model: nn.Module, config: ClassificationTrainConfig) -> dict[str, float]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = create_optimizer(model, config.optimizer).param_groups
    return {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}


def test_rates_decay_from_the_head_to_the_first_stage() -> None:
    found = rates(*seen_to(VIT, {"name": "layer_wise", "decay": 0.5}))
    assert found["network.head.weight"] == 0.1
    assert found["network.encoder.norm.weight"] == found["network.encoder.blocks.1.attention.mixed.bias"] == 0.05
    assert found["network.encoder.blocks.0.layers.0.weight"] == 0.025
    assert found["network.stem.weight"] == found["network.token"] == found["network.places"] == 0.0125
    assert len(found) == len(described(VIT).build().state_dict()) - 2  # but the scaling


def test_groups_of_ones_own_keep_what_they_say() -> None:
    optimizer = {"name": "AdamW", "lr": 0.1, "groups": [{"parameters": ["*.bias"], "weight_decay": 0.0, "lr": 1.0}]}
    model, config = seen_to(VIT, {"name": "layer_wise", "decay": 0.5}, optimizer=optimizer)
    found = rates(model, config)
    assert found["network.head.bias"] == 1.0
    assert found["network.stem.bias"] == 0.125
    assert found["network.stem.weight"] == 0.0125
    decays = {group["lr"]: group["weight_decay"] for group in create_optimizer(model, config.optimizer).param_groups}
    assert decays[0.125] == 0.0
    assert decays[0.0125] == 0.01


def test_groups_and_layers_that_wait_name_low_ranks_as_the_weights_that_they_are_beside() -> None:
    name = "network.encoder.blocks.0.layers.0.weight"
    low = name.replace(".weight", ".parametrizations.weight.0")
    optimizer = {"name": "SGD", "lr": 0.1, "groups": [{"parameters": [name], "lr": 0.5}]}
    freeze = [{"parameters": [name], "epochs": 1}]
    model, config = seen_to(VIT, {"name": "lora", "rank": 2}, optimizer=optimizer, freeze=freeze)
    found = rates(model, config)
    assert {each for each, rate in found.items() if rate == 0.5} == {f"{low}.A", f"{low}.B"}
    weights, made = dict(model.named_parameters()), create_optimizer(model, config.optimizer)
    for epoch, learns in ((1, False), (2, True)):
        learn(model, made, config, epoch)
        assert weights[f"{low}.A"].requires_grad == learns
        assert not weights[f"{low.removesuffix('.0')}.original"].requires_grad
    wrong = {**optimizer, "groups": [{"parameters": ["network.encoder.blocks.0.layers.0.weights"]}]}
    model, config = seen_to(VIT, {"name": "lora", "rank": 2}, optimizer=wrong)
    with pytest.raises(
        InputError, match=r"^train\.optimizer\.groups: .*weights fits no parameter that is left of"
    ) as told:
        create_optimizer(model, config.optimizer)
    names = str(told.value).partition(" left of ")[2].split(", ")
    assert name in names
    assert len(set(names)) == len(names)
    assert "parametrizations" not in str(told.value)


def test_a_rate_left_out_is_the_optimisers_own() -> None:
    found = rates(*seen_to(RESNET, {"name": "layer_wise", "decay": 0.5}, optimizer={"name": "Adam"}))
    assert found["network.head.weight"] == 0.001
    assert found["network.stages.1.body.0.weight"] == 0.0005


def test_a_training_at_rates_of_its_own_follows_its_schedule(plan: LoaderPlan) -> None:
    made = trained(plan, VIT, finetune={"name": "layer_wise"}, scheduler={"name": "OneCycleLR"})
    assert changed(described(VIT), made.last) == {*described(VIT).weights} - {"mean", "std"}


# ---- low rank ------------------------------------------------------------------------------------------------------

LORA = {"name": "lora", "rank": 2, "alpha": 4.0}


def test_at_the_start_low_rank_changes_no_bit() -> None:
    plain, (model, _) = described(VIT).build(), seen_to(VIT, LORA)
    assert torch.equal(model.eval()(IMAGES), plain(IMAGES))


def test_only_low_ranks_and_the_head_learn() -> None:
    model, _ = seen_to(VIT, LORA)
    small = {name for name in learning(model) if name.endswith((".0.A", ".0.B"))}
    assert learning(model) - small == HEAD
    blocks = 2 * 2 * (16 + 48) + 2 * 2 * (16 + 16) + 2 * 2 * (16 + 64) * 2  # rank (inputs + outputs), of two blocks
    assert sum(dict(model.named_parameters())[name].numel() for name in small) == blocks
    assert sum(dict(model.named_parameters())[name].numel() for name in learning(model)) == blocks + 16 * 3 + 3


def test_what_low_ranks_learn_is_in_the_weights_of_the_plain_network(plan: LoaderPlan) -> None:
    before, made = described(VIT), trained(plan, VIT, finetune=LORA)
    found = changed(before, made.last)
    weights = {f"network.encoder.blocks.{number}.{layer}.weight" for number in (0, 1) for layer in LINEAR}
    assert found == weights | HEAD
    for name in weights:
        assert torch.linalg.matrix_rank((made.last.weights[name] - before.weights[name]).double(), rtol=1e-4) == 2
    logits = Model(export_checkpoint(made.last)).run("logits", images=IMAGES.numpy())
    assert logits == pytest.approx(made.last.build()(IMAGES).detach().numpy(), abs=1e-5)


LINEAR = ("attention.queries_keys_values", "attention.mixed", "layers.0", "layers.2")


def test_merged_is_what_was_trained() -> None:
    model, _ = seen_to(VIT, LORA)
    for name, parameter in model.named_parameters():
        if name.endswith(".0.B"):
            nn.init.normal_(parameter)
    plain = described(VIT).build()
    before = plain(IMAGES)
    found = merged(model.state_dict())
    plain.load_state_dict(found)
    name, learnt = "network.encoder.blocks.0.layers.0", dict(model.named_parameters())
    a, b = (learnt[f"{name}.parametrizations.weight.0.{part}"] for part in "AB")
    assert torch.allclose(found[f"{name}.weight"], described(VIT).weights[f"{name}.weight"] + 4.0 / 2 * b @ a)
    assert (plain(IMAGES) - model.eval()(IMAGES)).abs().max() < 1e-6
    assert (plain(IMAGES) - before).abs().max() > 0.1
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain(IMAGES), model(IMAGES))


def test_what_else_is_put_beside_weights_stays_in_a_checkpoint() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 2, 3)), nn.Linear(4, 4))
    finetuned(model, set(), block(LORA))
    assert "0.parametrizations.weight.original1" in merged(model.state_dict())
    assert merged(model.state_dict()).keys() == {
        *(f"0.{name}" for name in ("bias", "parametrizations.weight.original0", "parametrizations.weight.original1")),
        *("1.weight", "1.bias"),
    }


def test_convolutions_learn_so_where_they_are_named(plan: LoaderPlan) -> None:
    made = trained(plan, RESNET, finetune={**LORA, "layers": ["network.stages.*.body.0"]})
    found = {f"network.stages.{number}.body.0.weight" for number in (0, 1)}
    assert changed(described(RESNET), made.last) == found | HEAD


def test_attention_of_pytorch_learns_so_too() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            mixed, _ = self.attention(x, x, x)
            answer: Tensor = self.head(mixed.mean(1))
            return answer

    model, x = Attending(), torch.rand(2, 5, 8)
    before = model(x)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    finetuned(model, {"head.weight", "head.bias"}, block(LORA))
    assert torch.equal(model(x), before)
    assert learning(model) == {
        *(f"attention.parametrizations.in_proj_weight.0.{part}" for part in "AB"),
        *(f"attention.out_proj.parametrizations.weight.0.{part}" for part in "AB"),
        *("head.weight", "head.bias"),
    }
    assert merged(model.state_dict()).keys() == weights.keys()


def test_compiled_low_ranks_learn_as_eager_ones() -> None:
    losses = []
    for compiled in (False, True):
        model, config = seen_to({"name": "mlp", "hidden": [8]}, LORA)
        optimizer = create_optimizer(model, config.optimizer)
        run = torch.compile(model, backend="aot_eager") if compiled else model  # all but the kernels of inductor
        for _ in range(3):
            loss = nn.functional.cross_entropy(run(IMAGES), torch.tensor([0, 1, 2, 0]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    torch.compiler.reset()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("finetune", [LORA, {"name": "layer_wise"}], ids=["lora", "layer_wise"])
def test_a_training_that_was_cut_goes_on_to_the_same_bits(
    plan: LoaderPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetune: dict[str, Any]
) -> None:
    settings = {"finetune": finetune, "ema": 0.9, "optimizer": {"name": "AdamW", "lr": 0.01}}
    whole, states = trained(plan, VIT, **settings), TrainingStates(tmp_path / "states")
    steps, step = iter(range(100)), torch.optim.AdamW.step

    def cut(*given: Any, **more: Any) -> Any:
        if next(steps) == 7:
            raise InterruptedError
        return step(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", cut)
        with pytest.raises(InterruptedError):
            trained(plan, VIT, states, save_minutes=1e-6, **settings)
    assert states.newest().endswith("step-000000002.safetensors")
    assert changed(whole.last, trained(plan, VIT, states, **settings).last) == set()
    assert changed(whole.best, whole.last) == set() or whole.best.training["epoch"] != whole.last.training["epoch"]


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "average",
    [{}, *(pytest.param(each, marks=LONG) for each in ({"ema": 0.9}, {"swa": {"start": 1}}, {"lookahead": {}}))],
)
def test_a_training_goes_on_from_merged_weights(plan: LoaderPlan, tmp_path: Path, average: dict[str, Any]) -> None:
    """Of which the best so far are those of the plain network."""
    places = {name: tmp_path / name for name in ("checkpoint", "last_checkpoint", "history")}
    settings = {"finetune": LORA, "epochs": 1, **average}
    before = trained(plan, VIT, **settings)
    CheckpointDataset(filepath=str(places["checkpoint"])).save(before.best)
    CheckpointDataset(filepath=str(places["last_checkpoint"])).save(before.last)
    unbeaten = [{**row, "val_loss": 0.0, "val_accuracy": 1.0} for row in before.history]
    places["history"].write_text(json.dumps(unbeaten))
    states = TrainingStates(tmp_path / "states", results=places)
    found = trained(plan, VIT, states, **{**settings, "epochs": 2, "resume": "warm"})
    assert len(found.history) == 2
    assert changed(before.best, found.best) == set()
    assert changed(before.last, found.last) > HEAD


def test_low_ranks_are_beside_no_weight_that_is_to_stay(plan: LoaderPlan) -> None:
    first = "network.encoder.blocks.0*"
    made = trained(plan, VIT, finetune=LORA, freeze=[first, "network.encoder.blocks.1.attention*"])
    learnt = {f"network.encoder.blocks.1.{layer}.weight" for layer in ("layers.0", "layers.2")}
    assert changed(described(VIT), made.last) == learnt | HEAD
    with pytest.raises(InputError, match=r"layers: network\.encoder\.blocks\.0\* fits none of network\.stem, network"):
        trained(plan, VIT, finetune={**LORA, "layers": [first]}, freeze=[first])


# ---- when it goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "finetune", "settings", "message"),
    [
        (RESNET, {"name": "last_stages", "stages": 9}, {}, r"^train\.finetune\.stages 9: .* has 3 stages"),
        (RESNET, "lora", {}, r"^train\.finetune: .* no linear layer or attention.*network\.stem\.0, network\.stages"),
        (VIT, {"name": "lora", "layers": ["encoder.*"]}, {}, r"layers: encoder\.\* fits none of network\.stem, netw"),
        (VIT, "layer_wise", {"scheduler": {"name": "OneCycleLR", "max_lr": 0.1}}, r"max_lr: must be left out"),
        (VIT, "layer_wise", {"scheduler": {"name": "OneCycleLR", "max_momentum": [0.9]}}, r"momentum: must be one num"),
        (VIT, "layer_wise", {"scheduler": {"name": "ReduceLROnPlateau", "min_lr": [0.1]}}, r"min_lr: must be one numb"),
    ],
)
def test_recipes_that_do_not_fit(
    network: dict[str, Any], finetune: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        seen_to(network, finetune, **settings)


def test_what_is_frozen_by_hand_stays_with_each_recipe(plan: LoaderPlan) -> None:
    with pytest.raises(InputError, match=r"^train\.finetune: linear_probe and train\.freeze leave nothing to learn"):
        trained(plan, RESNET, finetune="linear_probe", freeze=["network.head.*"])


@pytest.mark.parametrize(
    "finetune", ["lora", None, *(pytest.param(each, marks=LONG) for each in ("linear_probe", "all"))]
)
def test_of_weights_that_were_only_drawn_it_is_said(
    plan: LoaderPlan, caplog: pytest.LogCaptureFixture, finetune: str | None
) -> None:
    given = plan, ClassifierConfig.model_validate(VIT), block(finetune, epochs=1)
    train(*given, DistributedConfig(), DebuggingConfig())
    said = f"train.finetune: {finetune} is for weights that have learnt before" in caplog.text
    assert said == (finetune in {"linear_probe", "lora"})
    caplog.clear()
    trained(plan, VIT, finetune=finetune, epochs=1)
    assert "is for weights that have learnt before" not in caplog.text


def test_a_network_without_a_head_is_told() -> None:
    for recipe in ("linear_probe", "last_stages"):
        with pytest.raises(InputError, match=r"^train\.finetune: needs a head.* Take lora or layer_wise"):
            finetuned(nn.Linear(2, 2), set(), block(recipe))


def test_without_a_head_low_ranks_learn_alone_and_the_last_stage_at_the_rate_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    found = rates(model, cast(ClassificationTrainConfig, finetuned(model, set(), block("layer_wise"))))
    assert found == pytest.approx({"0.weight": 0.075, "0.bias": 0.075, "1.weight": 0.1, "1.bias": 0.1})
    finetuned(model, set(), block(LORA))
    assert learning(model) == {f"{layer}.parametrizations.weight.0.{part}" for layer in "01" for part in "AB"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lorra", "train.finetune.name: given 'lorra'; must be a recipe of fine-tuning .*did you mean lora"),
        ({"name": "lora", "rank": 0}, "train.finetune.rank: given 0; must be greater than or equal to 1"),
        ({"name": "layer_wise", "decay": 1.5}, "train.finetune.decay: given 1.5; must be less than or equal to 1"),
        ({"name": "linear_probe", "rank": 2}, "train.finetune.rank: unknown key"),
        ({"rank": 2}, "train.finetune.name: is missing"),
    ],
)
def test_mistyped_recipes_are_one_message(given: Any, message: str) -> None:
    written = {"epochs": 1, "optimizer": {"name": "SGD"}, "finetune": given}
    (line,) = check_block("train", written, ClassificationTrainConfig)
    assert re.search(message, line), line


def test_methods_that_change_the_weights_take_no_recipe() -> None:
    with pytest.raises(ValidationError, match="finetune"):
        PrunedTrainConfig.model_validate({"epochs": 1, "optimizer": {"name": "SGD"}, "finetune": "lora"})


def own_recipe(model: nn.Module, head: set[str], config: Any, *, only: str) -> Any:
    """Of the test's own: what is called so learns."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(only in name)
    return config


def test_a_recipe_of_ones_own() -> None:
    model, _ = seen_to(RESNET, {"name": f"{__name__}.own_recipe", "only": "stem"})
    assert learning(model) == {"network.stem.0.weight", "network.stem.1.weight", "network.stem.1.bias"}


def test_each_problem_has_its_head() -> None:
    table = TableInfo(target=Classes(classes=["a", "b"]), features=["x", "y"], mean=[0.0] * 2, std=[1.0] * 2)
    assert head_of(described({"name": "tabular_mlp", "hidden": [4]}, table)) == {"network.3.weight", "network.3.bias"}
    draws: Callable[[], float] = lambda: torch.rand(1).item()  # noqa: E731
    torch.manual_seed(0)
    expected = draws()
    start = described(RESNET)
    torch.manual_seed(0)
    head_of(start)
    assert draws() == expected  # what is built for it draws nothing from others


def test_each_recipe_of_the_guide_is_one() -> None:
    text = (ROOT / "docs/how-to/fine-tune.md").read_text()
    blocks = [yaml.safe_load(each) for each in re.findall("```yaml\n(.*?)```", text, re.DOTALL)]
    (task,) = [block["petals"] for block in blocks if "petals" in block]
    assert "finetune" in task["train"]
    named = [yaml.safe_load(cell) for cell in re.findall(r"^\| `({name: .*?})`", text, re.MULTILINE)]
    assert {each["name"] for each in named} == set(recipe_names())
    trains = [block["train"] for block in blocks if "train" in block and "my_project" not in str(block)]
    for given in [task["train"], *trains, *({**task["train"], "finetune": each} for each in named)]:
        assert check_block("train", given, ClassificationTrainConfig) == []
    defaults = {each["name"]: {key: value for key, value in each.items() if key != "name"} for each in named}
    for name, arguments in defaults.items():
        assert arguments == {key: field.default for key, field in recipe_arguments(name).model_fields.items()}
