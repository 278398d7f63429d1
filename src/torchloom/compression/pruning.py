"""Gradual magnitude pruning with torch.nn.utils.prune, while the network goes on learning.

Zhu & Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017
(arXiv:1710.01878). Which channels go together is what torch-pruning finds out (Fang et al., "DepGraph: towards any
structural pruning", CVPR 2023).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from torchloom.config import PruneConfig
from torchloom.errors import InputError
from torchloom.modalities.modules import NormalizedImages
from torchloom.system.words import counted, extra, listed
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan
from torchloom.training.transfer import head_of

logger = logging.getLogger(__name__)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Parameter = tuple[nn.Module, str]  # a layer and the name of one of its parameters


class Pruner:
    """Cuts a growing share out of the model that it was made for: call it when an epoch begins.

    Every parameter that may be cut is from the beginning what torch.nn.utils.prune makes of it, `<name>_orig` times
    `<name>_mask`, so that an interrupted training finds its masks again.
    """

    def __init__(self, model: nn.Module, config: PruneConfig, head: Collection[str], inputs: Tensor) -> None:
        """`head` names the weights of the layer that answers, `inputs` (2, …) are samples of what the model takes.

        Raises InputError when nothing can be cut.
        """
        self.config = config
        layers = cuttable_layers(model, config.exclude)
        self.weights: list[Parameter] = [(layer, "weight") for layer in layers.values()]
        self.groups: list[Group] = []
        touched = self.weights
        if config.form == "structured":
            kept = [layer for name, layer in layers.items() if f"{name}.weight" not in head]
            self.groups = channel_groups(model, kept, inputs)
            touched = [parameter for group in self.groups for parameter, _ in group.parameters]
        for module, name in dict.fromkeys(touched):  # in the same order every time: so go the optimiser's states
            prune.identity(module, name)  # type: ignore[no-untyped-call]
            setattr(module, name, getattr(module, name).detach())  # what belongs to a graph cannot be copied

    def __call__(self, model: nn.Module, epoch: int) -> None:
        left = 1 - min(1.0, epoch / self.config.epochs)
        share = self.config.amount * (1 - left**3)
        if self.config.form == "structured":
            whole = cut_channels(self.groups, share, self.config.scope, self.config.multiple)
            if epoch == self.config.epochs:
                self._say_what_stays_whole(model, whole)
            masks, noun = [group.mask() for group in self.groups], "channel"
        else:
            cut_weights(self.weights, share, self.config.scope)
            masks, noun = [getattr(module, f"{name}_mask") != 0 for module, name in self.weights], "weight"
        total = sum(mask.numel() for mask in masks)
        cut = total - sum(int(mask.sum()) for mask in masks)
        logger.info("epoch %d: %s of %s are cut, %.1f %%", epoch, f"{cut:,}", counted(total, noun), 100 * cut / total)

    def _say_what_stays_whole(self, model: nn.Module, whole: list[Group]) -> None:
        roots = {id(group.root): group.size for group in whole}
        names = [f"{name} ({roots[id(m)]})" for name, m in model.named_modules() if id(m) in roots]
        if names:
            logger.info(
                "train.prune.multiple %d leaves these layers (with so many channels) whole: %s",
                *(self.config.multiple, listed(names)),
            )


def gradual_pruning(config: PruneConfig, start: Checkpoint, model: nn.Module, loaders: LoaderPlan) -> Pruner:
    """The pruner of a training that goes on from the checkpoint `start`, whose weights `model` has."""
    head = head_of(start)
    return Pruner(model, config, head, loaders.first("train", 2)[0])


def cuttable_layers(model: nn.Module, exclude: list[str]) -> dict[str, nn.Module]:
    """The convolutions and dense layers by name, without those whose weights fit a pattern of `exclude`."""
    kinds = (*CONVOLUTIONS, nn.Linear)
    layers: dict[str, nn.Module] = {name: m for name, m in model.named_modules() if isinstance(m, kinds)}
    for pattern in exclude:
        fitting = [name for name in layers if fnmatchcase(f"{name}.weight", pattern)]
        if not fitting:
            names = ", ".join(f"{name}.weight" for name in layers)
            raise InputError(f"train.prune.exclude: {pattern} fits none that is left of {names}")
        for name in fitting:
            del layers[name]
    if not layers:
        raise InputError("train.prune: the network has no convolution and no dense layer that may be cut")
    return layers


def without_masks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict in which what is cut is zero, under the names that it had before."""
    masked = {name.removesuffix("_mask") for name in weights if name.endswith("_mask")}
    plain = {name: tensor for name, tensor in weights.items() if name.removesuffix("_orig") not in masked}
    plain = {name: tensor for name, tensor in plain.items() if not name.endswith("_mask")}
    return plain | {name: weights[f"{name}_orig"] * weights[f"{name}_mask"] for name in masked}


# ---- single weights ------------------------------------------------------------------------------------------------


def cut_weights(weights: list[Parameter], share: float, scope: str) -> None:
    """Raise the share of weights that are cut to `share`, of all together or of each layer: the smallest go."""
    for some in [weights] if scope == "global" else [[weight] for weight in weights]:
        sizes = [
            getattr(module, f"{name}_mask") * getattr(module, f"{name}_orig").detach().abs() for module, name in some
        ]
        scores = torch.cat([size.flatten() for size in sizes])  # what is cut is 0, and stays cut
        mask = torch.ones_like(scores)
        mask[scores.topk(round(share * len(scores)), largest=False).indices] = 0
        for (module, name), part in zip(some, torch.split(mask, [size.numel() for size in sizes]), strict=True):
            prune.custom_from_mask(module, name, part.view(getattr(module, f"{name}_mask").shape))  # type: ignore[no-untyped-call]


# ---- channels ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Channels that can only be cut together, as those of all convolutions whose outputs are added up.

    `root` is the layer that torch-pruning knows them by, `cut` its function that takes them away. Of each of the
    `parameters` that make the `size` channels, the list says which channel each of its rows belongs to.
    """

    root: nn.Module
    cut: Any
    size: int
    parameters: list[tuple[Parameter, list[tuple[int, int]]]]  # (row, channel)

    def mask(self) -> Tensor:
        """(size,) bool: whether a channel is there."""
        (module, name), places = self.parameters[0]
        rows = getattr(module, f"{name}_mask").reshape(len(getattr(module, f"{name}_mask")), -1)[:, 0]
        there = torch.ones(self.size, dtype=torch.bool)
        for row, channel in places:
            there[channel] = bool(rows[row])
        return there

    def zeros(self) -> list[int]:
        """The channels all of whose weights and biases are zero."""
        there = torch.zeros(self.size, dtype=torch.bool)
        for (module, name), places in self.parameters:
            rows = getattr(module, name).detach().flatten(1 if getattr(module, name).ndim > 1 else 0)
            nonzero = (rows if rows.ndim == 1 else rows.abs().amax(1)) != 0
            for row, channel in places:
                there[channel] |= bool(nonzero[row])
        return (~there).nonzero().flatten().tolist()

    def norms(self) -> Tensor:
        """(size,) float32: the L2 norm of all matrices and kernels of a channel, as a multiple of their mean."""
        squares = torch.zeros(self.size)
        for (module, name), places in self.parameters:
            weight = getattr(module, f"{name}_orig").detach().float()
            if weight.ndim > 1:
                rows, channels = (torch.tensor(numbers) for numbers in zip(*places, strict=True))
                squares.index_add_(0, channels, weight.cpu().flatten(1).square().sum(1)[rows])
        return squares.sqrt() / squares.sqrt().mean().clamp(min=1e-12)


def channel_groups(model: Any, layers: Collection[nn.Module], inputs: Tensor) -> list[Group]:
    """The groups of channels that `layers` make, as far as no other convolution or dense layer takes part in making.

    `inputs` (2, …) go through the model once. Raises InputError when it is not a model of images, or has no such group.
    """
    tp, network, sample = _torch_pruning(), model.network, model.normalize(inputs)
    with _slopes_fixed(network):
        graph = tp.DependencyGraph().build_dependency(network, example_inputs=sample)
    others = [m for m in network.modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear)) and m not in layers]
    kinds = [*CONVOLUTIONS, nn.Linear]
    groups = [_group(found) for found in graph.get_all_groups(ignored_layers=others, root_module_types=kinds)]
    makers = {id(layer) for layer in layers}
    groups = [g for g in groups if all(id(m) in makers or isinstance(m, NORMS) for (m, _), _ in g.parameters)]
    if not groups:
        raise InputError("train.prune.form structured: this network has no channels that can be cut; try unstructured")
    return groups


def _group(found: Any) -> Group:
    """A group as torch-pruning has it: of each layer, which of its channels goes with which of the first layer's."""
    parameters: list[tuple[Parameter, list[tuple[int, int]]]] = []
    for item in found:
        module, function = item.dep.target.module, item.dep.handler.__name__
        if isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMS)) and function == "prune_out_channels":
            places = list(zip(map(int, item.idxs), map(int, item.root_idxs), strict=True))
            names = [name for name in ("weight", "bias") if getattr(module, name, None) is not None]
            parameters += [((module, name), places) for name in names]
    root = found[0]
    return Group(root.dep.target.module, root.dep.handler, len(root.idxs), parameters)


def cut_channels(groups: list[Group], share: float, scope: str, multiple: int) -> list[Group]:
    """Raise the share of channels that are cut to `share`, of all together or of each group: the smallest go.

    What is left of each group is the nearest multiple of `multiple`, but at least that, or all when there are fewer.
    Returns the groups that for this reason lose nothing.
    """
    whole = []
    for some in [groups] if scope == "global" else [[group] for group in groups]:
        scores = [torch.where(group.mask(), group.norms(), -1.0) for group in some]  # what is cut stays cut
        ranked = torch.cat(scores).sort().values
        count = round(share * len(ranked))
        bound = ranked[count - 1] if count else -torch.inf
        for group, score in zip(some, scores, strict=True):
            wanted = int((score > bound).sum())
            left = multiple * max(1, round(wanted / multiple))
            if wanted < group.size <= left:
                whole.append(group)
            gone = torch.ones(group.size, dtype=torch.bool)
            gone[score.topk(min(left, group.size)).indices] = False
            _mask(group, gone)
    return whole


def _mask(group: Group, gone: Tensor) -> None:
    for (module, name), places in group.parameters:
        mask = getattr(module, f"{name}_mask").clone()
        mask[[row for row, channel in places if gone[channel]]] = 0
        prune.custom_from_mask(module, name, mask)  # type: ignore[no-untyped-call]


def check_channels(start: Checkpoint, config: PruneConfig, inputs: Tensor) -> None:
    """InputError unless all channels that are to be cut can be taken out of the model, tried before it learns on.

    `inputs` (2, …) are samples of what it takes.
    """
    model = start.build()
    if not isinstance(model, NormalizedImages):
        raise InputError(
            f"train.prune.form structured: cuts the channels of networks for images, but {start.network} is for "
            f"{start.info.kind}. Take unstructured"
        )
    head = head_of(start)
    try:
        pruner = Pruner(model, config, head, inputs)
        cut_channels(pruner.groups, config.amount, config.scope, config.multiple)
        without_channels(start.model_copy(update={"weights": model.state_dict()}), inputs).build()(inputs)
    except InputError:
        raise
    except Exception as error:  # torch-pruning, and the network with what is left of it, have many
        reason = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        raise InputError(
            f"train.prune.form structured: the channels of {start.network} cannot be taken out ({reason}). Take "
            "unstructured"
        ) from error


def without_channels(checkpoint: Checkpoint, inputs: Tensor) -> Checkpoint:
    """A checkpoint with masks, as the training leaves it, without what they cut; see `remove_channels`."""
    model = checkpoint.model_copy(update={"weights": without_masks(checkpoint.weights)}).build()
    remove_channels(model, inputs)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return checkpoint.model_copy(update={"weights": weights, "resized": True})


def remove_channels(model: Any, inputs: Tensor) -> None:
    """Take the channels away all of whose weights and biases are zero; what the model answers stays the same.

    Raises InputError when it does not, as where an activation makes something of nothing.
    """
    model.eval()
    with torch.no_grad():
        before = model(inputs)
    layers = [module for module in model.modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))]
    tp, network = _torch_pruning(), model.network
    with _slopes_fixed(network):
        graph = tp.DependencyGraph().build_dependency(network, example_inputs=model.normalize(inputs))
    found = graph.get_all_groups(root_module_types=[*CONVOLUTIONS, nn.Linear])
    gone = [(group, group.zeros()) for group in map(_group, found) if group.root in layers]
    for group, channels in gone:
        if channels and len(channels) < group.size:
            graph.get_pruning_group(group.root, group.cut, channels).prune()
    with torch.no_grad():
        after = model(inputs)
    if not torch.allclose(before, after, atol=1e-3, rtol=1e-3):
        raise InputError(
            "train.prune.form structured: this network answers otherwise without the channels that were cut, by "
            f"{float((before - after).abs().max()):.2g}; an activation that is not 0 at 0 does that. Take unstructured"
        )


@contextmanager
def _slopes_fixed(network: nn.Module) -> Iterator[None]:
    """With a LeakyReLU in place of each PReLU whose one slope is for all channels.

    torch-pruning 1.6 takes the slope for a channel, and loses the places of those that are flattened behind it.
    """
    slopes = [
        (parent, name, layer)
        for parent in network.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1
    ]
    try:
        for parent, name, layer in slopes:
            setattr(parent, name, nn.LeakyReLU(layer.weight.item()))
        yield
    finally:
        for parent, name, layer in slopes:
            setattr(parent, name, layer)


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise InputError(f"train.prune.form structured needs torch-pruning: {extra('prune')}") from error
    return torch_pruning
