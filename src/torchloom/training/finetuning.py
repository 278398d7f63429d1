"""Fine-tuning by name: which weights of a network that has learnt before learn on, and how fast.

A recipe is a function of the model, the names of its head's parameters and the block `train`; what stands after the `*`
are the keys that YAML may give. It says of the model's parameters which stay, may put something beside them, and
returns the block as the training is to have it, such as with more `optimizer.groups`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from torchloom.config import Count, GroupConfig, OptimizerConfig, Positive, SchedulerConfig, TrainConfig, own
from torchloom.config.checks import UnknownNameError, arguments_of, check_call
from torchloom.errors import InputError
from torchloom.modalities.modules import Scaling
from torchloom.system.words import counted
from torchloom.training.optimizers import BY_GROUP, usual_rate

GIVEN = ("model", "head", "config")  # what a recipe is not told in YAML
Decay = Annotated[float, Field(gt=0, le=1)]
WEIGHTS = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # that multiply the inputs
MULTIPLYING = (nn.Linear, nn.MultiheadAttention)
STACKS = (nn.Sequential, nn.ModuleList)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LEARNT = ".parametrizations."  # in the name of a weight that something is put beside


# ---- recipes -------------------------------------------------------------------------------------------------------


def everything(model: nn.Module, head: set[str], config: TrainConfig) -> TrainConfig:  # noqa: ARG001
    """All weights learn, as without a recipe."""
    return config


def linear_probe(model: nn.Module, head: set[str], config: TrainConfig) -> TrainConfig:
    """Only the head learns; all else stays as it is, statistics of batch norm and all."""
    _check_head(head)
    _keep(model, {*_learning(model)} - head)
    return config


def last_stages(model: nn.Module, head: set[str], config: TrainConfig, *, stages: Count = 1) -> TrainConfig:
    """The head and so many `stages` before it learn."""
    _check_head(head)
    found = stages_of(model, head)
    if stages > len(found):
        raise InputError(
            f"train.finetune.stages {stages}: before its head the network has {counted(len(found), 'stage')}"
        )
    _keep(model, {name for stage in found[: len(found) - stages] for name in stage})
    return config


def layer_wise(model: nn.Module, head: set[str], config: TrainConfig, *, decay: Decay = 0.75) -> TrainConfig:
    """All learn, each stage at `decay` times the rate of the one after it; the head has the rate of the optimiser.

    Clark et al., "ELECTRA", ICLR 2020 (arXiv:2003.10555); Bao et al., "BEiT", ICLR 2022 (arXiv:2106.08254).
    """
    if config.scheduler:
        _check_suits_stages(config.scheduler)
    found = stages_of(model, head)
    top = len(found) if head else len(found) - 1
    scales = {name: decay ** (top - depth) for depth, stage in enumerate(found) for name in stage}
    rated = _rated(config.optimizer, {name: scales.get(name, 1.0) for name in _learning(model)})
    return config.model_copy(update={"optimizer": rated})


def _check_suits_stages(scheduler: SchedulerConfig) -> None:
    """Raise InputError when it gives rates, which are to be each stage's own, or lists by groups, of which there are
    others now."""
    for key, value in scheduler.arguments.items():
        rates, by_groups = key in {"max_lr", "base_lr"}, key in BY_GROUP and isinstance(value, list)
        if rates or by_groups:
            must = "must be left out" if rates else "must be one number"
            raise InputError(f"train.scheduler.{key}: {must}, as train.finetune gives each stage a rate of its own")


def lora(
    model: nn.Module,
    head: set[str],
    config: TrainConfig,
    *,
    rank: Count = 8,
    alpha: Positive = 16.0,
    layers: list[str] = [],  # noqa: B006  (never changed)
) -> TrainConfig:
    """The head learns, and beside the weights of `layers`, which stay, a product of two thin matrices.

    Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022 (arXiv:2106.09685). `layers` are patterns
    of names of linear layers, attention and convolutions; without any it is all of the first two but the head.
    """
    chosen = list(_multiplying(model, head, layers))
    _keep(model, {*_learning(model)} - head)
    for layer, name in chosen:
        parametrize.register_parametrization(layer, name, LowRank(getattr(layer, name), rank, alpha))
    return config


RECIPES: dict[str, Callable[..., TrainConfig]] = {
    "all": everything,
    "linear_probe": linear_probe,
    "last_stages": last_stages,
    "layer_wise": layer_wise,
    "lora": lora,
}


def recipe_names() -> list[str]:
    return sorted(RECIPES)


def _recipe(name: str) -> Callable[..., TrainConfig]:
    found: Callable[..., TrainConfig] = own.find(name) if own.is_path(name) else RECIPES[name]
    return found


def recipe_arguments(name: str) -> type[BaseModel]:
    return arguments_of(_recipe(name), given_by_us=GIVEN)


def check_recipe(name: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError when there is no such recipe, or when it does not take `arguments`."""
    own.chosen(name, RECIPES, "a recipe of fine-tuning")
    if not callable(_recipe(name)):
        raise UnknownNameError(name, "must lead to a function of a model, the names of its head and the block train")
    check_call(recipe_arguments(name), arguments)


def finetuned(model: nn.Module, head: set[str], config: TrainConfig) -> TrainConfig:
    """The block `train` as the training is to have it, after its recipe has seen to the model.

    Raises InputError when the recipe does not suit the network, or leaves nothing to learn.
    """
    if config.finetune is None:
        return config
    name = config.finetune.name
    with own.running("train.finetune", name):
        made = _recipe(name)(model, head, config, **config.finetune.arguments)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"train.finetune: {name} and train.freeze leave nothing to learn")
    return made


# ---- what recipes are made of --------------------------------------------------------------------------------------


def _check_head(head: set[str]) -> None:
    if not head:
        raise InputError(
            "train.finetune: needs a head, but no weights of this network follow from the sizes of its outputs. Take "
            "lora or layer_wise, or name what stays in train.freeze"
        )


def _keep(model: nn.Module, names: set[str]) -> None:
    """Let the parameters of these names stay as they are."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def _learning(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def stages_of(model: nn.Module, head: set[str]) -> list[list[str]]:
    """The names of the parameters of each stage of the network, in their order, without those of the head.

    A stage is a layer of the network or, of a stack (`nn.Sequential`, `nn.ModuleList`, or what has one of them within),
    each layer of it. What has vectors alone, such as a norm, belongs to the stage before it, and so do parameters of
    the network, or of what has a stack, that are of no layer, such as positions.
    """
    place, network = _inside(model)
    stages: list[list[str]] = [[]]
    wide = False  # whether the stage has a matrix yet
    for layer, of_a_layer in _layers(network, place):
        left = {name: weight for name, weight in layer.items() if name not in head}
        matrix = of_a_layer and any(weight.ndim > 1 for weight in left.values())
        if matrix and wide:
            stages.append([])
        stages[-1] += left
        wide = wide or matrix
    return [stage for stage in stages if stage]


def _inside(model: nn.Module) -> tuple[str, nn.Module]:
    """The network between its scalings, and what its parameters' names begin with."""
    place = ""
    while isinstance(model, Scaling):
        place, model = f"{place}network.", model.network
    return place, model


def _layers(network: nn.Module, place: str) -> Iterator[tuple[dict[str, nn.Parameter], bool]]:
    """The parameters of each layer by name, after those that the network has itself, which are of no layer."""
    yield _named(network, place, recurse=False), False
    for name, layer in network.named_children():
        here = f"{place}{name}."
        if isinstance(layer, STACKS):
            yield from ((_named(each, f"{here}{number}."), True) for number, each in layer.named_children())
        elif any(_is_of_blocks(each) for each in layer.modules()):
            yield from _layers(layer, here)
        else:
            yield _named(layer, here), True


def _named(layer: nn.Module, place: str, *, recurse: bool = True) -> dict[str, nn.Parameter]:
    return {f"{place}{name}": weight for name, weight in layer.named_parameters(recurse=recurse)}


def _is_of_blocks(layer: nn.Module) -> bool:
    """Whether it is a list, or several layers in a row that have others within."""
    blocks = list(layer.children())
    in_a_row = isinstance(layer, nn.Sequential) and len(blocks) > 1
    return isinstance(layer, nn.ModuleList) or (in_a_row and all(any(each.children()) for each in blocks))


def _rated(optimizer: OptimizerConfig, scales: dict[str, float]) -> OptimizerConfig:
    """With so many times its rate for each of these parameters, in whichever of its groups that is."""
    usual = usual_rate(optimizer)
    members: dict[tuple[int, float], list[str]] = {}
    for name, scale in scales.items():
        fits = (any(fnmatchcase(name, pattern) for pattern in group.parameters) for group in optimizer.groups)
        place = next((number for number, fit in enumerate(fits) if fit), -1)
        members.setdefault((place, scale), []).append(name)
    groups = []
    for (place, scale), names in members.items():
        given = optimizer.groups[place].arguments if place >= 0 else {}
        if place >= 0 or scale != 1.0:
            epochs = optimizer.groups[place].epochs if place >= 0 else None
            rate = {"lr": given.get("lr", usual) * scale}
            groups.append(GroupConfig.model_validate({"parameters": names, "epochs": epochs, **given, **rate}))
    return optimizer.model_copy(update={"groups": groups})


# ---- low rank ------------------------------------------------------------------------------------------------------


class LowRank(nn.Module):
    """A weight (outputs, …) -> the same plus alpha / rank B A, of B (outputs, rank) and A (rank, inputs).

    B is zero at first, and so is what is added. Neither is larger than the weight's own rank can be.
    """

    scale: Tensor

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = len(weight), weight[0].numel()
        inner = min(rank, outputs, inputs)
        self.A = nn.Parameter(nn.init.kaiming_uniform_(weight.new_empty(inner, inputs), a=math.sqrt(5)))
        self.B = nn.Parameter(weight.new_zeros(outputs, inner))
        self.register_buffer("scale", weight.new_tensor(alpha / rank))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # as exactly as when both are put together
            return _together(weight, self.A, self.B, self.scale)


def _together(weight: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    return weight + scale * (b @ a).view(weight.shape)


def merged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model as those of the plain network: what low ranks have learnt is added to what they are
    beside."""
    plain: dict[str, Tensor] = {}
    low = {name.removesuffix("0.A") for name in weights if LEARNT in name and name.endswith(".0.A")}
    for name, weight in weights.items():
        place = next((each for each in low if name.startswith(each)), None)  # others, as of weight norm, stay
        if place is None:
            plain[name] = weight
        elif name == f"{place}original":
            beside = (weights[f"{place}0.{part}"] for part in ("A", "B", "scale"))
            plain[place.removesuffix(".").replace(LEARNT, ".")] = _together(weight, *beside)
    return plain


def unmerged(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain network as those of `model`, beside whose weights low ranks may be that add nothing."""
    found = {}
    for name, own_one in model.state_dict().items():
        plain = name.removesuffix(".original").replace(LEARNT, ".") if name.endswith(".original") else name
        beside = torch.zeros_like(own_one) if name.endswith(".B") else own_one
        found[name] = weights.get(name, weights.get(plain, beside)).detach().cpu()
    return found


def _multiplying(model: nn.Module, head: set[str], patterns: list[str]) -> Iterator[tuple[nn.Module, str]]:
    """The layers that fit one of `patterns`, each with the names of its weights; those that several layers share, those
    of the head, and those that are to stay as they are, are left out.

    Raises InputError when a pattern fits none.
    """
    shared = _shared(model)
    layers = {}
    for place, layer in model.named_modules():
        weights = [name for name in WEIGHTS if isinstance(getattr(layer, name, None), nn.Parameter)]
        free = [name for name in weights if getattr(layer, name) not in shared and getattr(layer, name).requires_grad]
        own_ones = [name for name in free if f"{place}.{name}" not in head]
        if isinstance(layer, MULTIPLYING + CONVOLUTIONS) and own_ones:
            layers[place] = (layer, own_ones)
    for pattern in patterns:
        if not any(fnmatchcase(place, pattern) for place in layers):
            raise InputError(f"train.finetune.layers: {pattern} fits none of {', '.join(layers) or 'no layers'}")
    usual = [place for place, (layer, _) in layers.items() if isinstance(layer, MULTIPLYING)]
    chosen = [place for place in layers if any(fnmatchcase(place, each) for each in patterns)] if patterns else usual
    if not chosen:
        raise InputError(
            "train.finetune: before its head the network has no linear layer or attention. Name others, such as "
            f"convolutions, in train.finetune.layers; there are {', '.join(layers) or 'none'}"
        )
    yield from ((layers[place][0], name) for place in chosen for name in layers[place][1])


def _shared(model: nn.Module) -> set[nn.Parameter]:
    every = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    return {parameter for parameter in every if sum(parameter is each for each in every) > 1}
