"""What every problem answers: which outputs a network is asked for, how they are learnt, judged and used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.config import EvaluateConfig, ModelConfig, TrainConfig
from torchloom.data.targets import Classes, Target
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info
from torchloom.system.words import Said, counted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from kedro.pipeline import Node
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

Batch = tuple["Tensor", ...]
# A model and a batch, which is the inputs and last the target -> the mean loss and the means of other figures.
Objective = Callable[["nn.Module", Batch], tuple["Tensor", dict[str, "Tensor"]]]
# Outputs (N, …) float32 and targets (N, …) of a whole split, on the CPU -> figures by name.
Figures = Callable[["Tensor", "Tensor"], dict[str, float]]
# What is kept of the outputs and targets of a batch for such figures, (n, …) each.
Kept = Callable[["Tensor", "Tensor"], tuple["Tensor", "Tensor"]]
STANDARDISED = "standardised"  # at the axis of what is followed by epoch where numbers have mean 0 and deviation 1
FOLLOWED = 7  # numbers whose own errors are followed by epoch
LOSS = "loss"
WEIGHT = "loss_weight"  # among such means: what the loss is a mean over, where that is not the number of samples


@dataclass(frozen=True)
class Whole:
    """What is measured of a split as a whole: `figures` of what is `kept` of its batches."""

    figures: Figures
    kept: Kept


TOLD = "\0told"  # of a row that is shown what its target tells of the sample, by a name that no column has
Columns = dict[str, Any]  # of a table of answers, by name: for each sample a string or a number, or a list of such


@dataclass(frozen=True)
class Problem:
    """It has no state: all that depends on the data is in their `Info`, and on the training in the checkpoint."""

    name: str  # as the parameters have it

    network: ClassVar[type[ModelConfig]] = ModelConfig  # the block `model`, which says for what sizes a network asks
    training: ClassVar[type[TrainConfig]] = TrainConfig  # the block `train`
    evaluation: ClassVar[type[EvaluateConfig]] = EvaluateConfig  # the block `evaluate`
    modalities: ClassVar[tuple[type[Info], ...]] = (Info,)  # of such data
    target: ClassVar[type[Target] | tuple[type[Target], ...] | None] = None  # what there must be to learn
    array: ClassVar[str | None] = None  # which of the prepared arrays that is, where it could be another
    reports: ClassVar[Mapping[str, str]]  # what `evaluate` gives, in order, and what a page says of each
    tag: ClassVar[str]  # as the Hugging Face hub calls it, after the tag of the modality
    answers: ClassVar[tuple[str, ...]]  # the outputs of an exported model
    pictures: ClassVar[str | None] = (
        None  # the column of answers with PNG files in base64, which `predict` keeps as such
    )
    state_axes: ClassVar[Axes] = {}  # of an exported model's inputs beside those of the modality
    card: ClassVar[str] = "templates/problem.md"  # the template of what a model card says of it

    def called(self, info: Info) -> str:
        """The problem in words."""
        return f"{info.tag} {self.name.rpartition('.')[2].replace('_', ' ')}"

    # ---- for training ----------------------------------------------------------------------------------------------

    def check_data(self, info: Info) -> None:
        """InputError unless the data are of a kind that this problem is about."""
        if not isinstance(info, self.modalities):
            kinds = " or ".join(str(kind.model_fields["kind"].default) for kind in self.modalities)
            raise InputError(
                f"the problem {self.name} needs {kinds}, but the data that the block task names are of the kind "
                f"{info.kind!r}"
            )
        if not self.target:
            return
        fits = isinstance(info.target, self.target) and self.array in {None, info.target.array}
        if not fits:
            there = f"{type(info.target).__name__.lower()} ({info.target.array})" if info.target else "nothing"
            wanted = self.target if isinstance(self.target, tuple) else (self.target,)
            named = " or ".join(each.__name__.lower() for each in wanted)
            needed = named + (f" ({self.array})" if self.array else "")
            raise InputError(
                f"the problem {self.name} needs data with {needed} to learn, but those that the block task names have "
                f"{there}"
            )

    def check(self, config: Any, loaders: LoaderPlan) -> None:
        """InputError unless these data can be learnt from with this block `train`."""
        self.check_data(loaders.info)
        if config.monitor in config.whole and not loaders.length("validation"):
            raise InputError(
                f"train.monitor: {config.monitor} is measured on the validation split, and there is none. Set "
                "preprocess.validation_fraction above 0, without data.include_validation, or monitor loss"
            )

    def settled(self, config: Any, loaders: LoaderPlan) -> Any:
        """The block `train`, after `check`, with what it leaves to the training data, such as weights of classes."""
        return config

    def sizes(self, info: Info) -> dict[str, Any]:
        """What a network's `build` can ask for beside the sizes of the inputs: `outputs`, how many it is to give."""
        return {}

    def check_answer(self, answer: Any, info: Info) -> None:
        """InputError unless a model's answer about a batch, in evaluation, has the sizes that this problem asks for."""

    def meanings(self, info: Info) -> dict[str, Any]:
        """What those of the sizes stand for, such as classes: a head that is for others is not taken over."""
        return {}

    def scaled(self, network: nn.Module, info: Info) -> nn.Module:
        """The network before the scaling of its outputs, if there is one: a modalities.modules.Scaling."""
        return network

    def objective(self, config: Any, info: Info) -> Objective:
        """What is minimised; `config` is the block `train`."""
        raise NotImplementedError

    def validation(self, config: Any, info: Info) -> Figures | None:
        """What is measured of the validation split as a whole, beside the means of `objective`, if anything is.

        `config` is the block `train`; what takes long is measured only where that monitors it. What is `kept` of all
        batches must fit into the memory.
        """
        return None

    def kept(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What `validation` gets of a batch, one after another: the outputs (N, …) and targets (N, …) themselves, or
        what takes less, such as counts (1, …)."""
        return outputs.float(), targets

    def whole(self, config: Any, info: Info) -> Whole | None:
        """Both together."""
        figures = self.validation(config, info)
        return Whole(figures, self.kept) if figures else None

    def completed(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: Any) -> Checkpoint:
        """The trained model with what is chosen for it on the validation split, such as a threshold, in `training`."""
        return checkpoint

    def evaluate(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: Any
    ) -> dict[str, Any]:
        """Measure the checkpoint on the test split: the contents of each of `reports`, `metrics` first.

        What has nothing to say is empty, a picture b"": where the catalog says `optional`, it is not written.
        """
        raise NotImplementedError

    def answers_to(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: Any) -> list[Columns]:
        """What the model answers to each sample of the test split, beside the truth, for a table; none without one.

        `config` is the block `evaluate`.
        """
        return []

    def label_issues(self, answers: list[Columns], loaders: LoaderPlan) -> list[Columns]:
        """The samples whose labels are likely wrong and should be looked at, the surest first.

        `answers` are rows of `answers_to` of models that have not seen the sample, with its number among those of the
        test split of `loaders`, `sample`.
        """
        return []

    def more_stages(self) -> Sequence[Node]:
        """Those that only this problem has; what they call `params:<block>` is a block of the task."""
        return ()

    def units(self, info: Info) -> Mapping[str, str]:
        """In what figures are measured that have a unit, or that are STANDARDISED, by their names without `val_`."""
        return {}

    def captions(self, made: Mapping[str, Any]) -> Mapping[str, str | None]:
        """What a page says of each report, where `made` are the contents of all of them; None leaves one out."""
        return self.reports

    def scale(self, metrics: Mapping[str, Any], judges: Sequence[str] = ()) -> str | None:
        """What figures on the test split that say little alone lie between, and by the models of which tasks, the
        `judges`, they are measured; a sentence."""
        return None

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        """What must be said first of a model with these figures on the test split: that it has learnt nothing."""
        return None

    # ---- for exported models ---------------------------------------------------------------------------------------

    def taken(self, info: Info, checkpoint: Checkpoint) -> Info:
        """What the exported model takes, where that is not what it has learnt from."""
        return info

    def signature(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """All inputs of the exported model with samples for them, and the names of its outputs.

        `inputs` are samples of what `info.inputs` names.
        """
        return inputs, list(self.answers)

    def exported(self, model: nn.Module) -> nn.Module:
        """The model as it is exported, with the outputs that `answers` names."""
        return model

    def described(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What the metadata of the exported model say of its outputs, by name; values as JSON has them."""
        return {}

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The columns of an answer, and what makes them of a list of samples that the modality's reader has read."""
        raise NotImplementedError

    def truth(self, told: Sequence[Any], info: Info) -> Columns:
        """The columns that stand beside the answers where samples come with the target: arrays of Arrow of what its
        `told` says, with None where that is nothing."""
        return {}

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        """How good the columns of answers are, beside what the target's `told` says of the same samples."""
        return {}

    def verdict(self, row: Mapping[str, Any], told: Any, info: Info) -> tuple[bool, str] | None:
        """Whether an answer, a row of the table, is what the target's `told` says of the sample, and that in words.

        None where answers are neither right nor wrong, as numbers are.
        """
        return None

    def check_exported(self, model: Model) -> None:
        """ValueError unless what the metadata of an exported model say fits its graph."""

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        """An answer, a row of the table, in a few words."""
        shown = {name: f"{value:.5g}" if isinstance(value, float) else str(value) for name, value in row.items()}
        return ", ".join(f"{name} {value}" for name, value in shown.items())

    def sheet(self, model: Model, shown: list[tuple[str, Any, dict[str, Any]]]) -> Figure:
        """A picture of samples: the name of each, what the modality's reader made of it, and the answer to it."""
        return model.info.sheet([(name, sample, self._captioned(model, row)) for name, sample, row in shown])

    def _captioned(self, model: Model, row: dict[str, Any]) -> str:
        """The caption of a row in which the truth may stand by TOLD."""
        caption, told = self.caption(model, {name: row[name] for name in row if name != TOLD}), row.get(TOLD)
        if told is None or not (found := self.verdict(row, told, model.info)):
            return caption
        said, true = (" ".join(text.split()) for text in (caption, found[1]))
        return Said(said if found[0] else f"✗ {said}\nis {true}", found[0])

    def said(self, model: Model) -> dict[str, Any]:
        """What a server says of the answers that its model gives."""
        return {}


# ---- the means of an objective -------------------------------------------------------------------------------------


def means_of_several(losses: Sequence[Tensor], weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """What an objective gives beside its loss where that is a sum of `losses`, each a mean over weights of its own."""
    pairs = enumerate(zip(losses, weights, strict=True))
    sums = ({f"{LOSS}#{number}": loss * weight, f"{WEIGHT}#{number}": weight} for number, (loss, weight) in pairs)
    return {name: value for each in sums for name, value in each.items()}


def without_weights(figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What an objective gives beside a loss that is a mean over samples."""
    return {name: value for name, value in figures.items() if not _is_sum(name)}


def sums_of(count: int, loss: Tensor, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums over a batch of so many samples whose means are the loss and the figures of an objective."""
    several = f"{LOSS}#0" in figures
    of_loss = {} if several else {LOSS: loss * figures.get(WEIGHT, count)}
    return {name: value.detach() * (1 if _is_sum(name) else count) for name, value in {**of_loss, **figures}.items()}


def means_of(sums: Mapping[str, float], count: float) -> dict[str, float]:
    """The means over `count` samples, the loss first; of nothing but what is ignored it is 0."""
    parts = [name.removeprefix(LOSS) for name in sums if _is_sum(name) and not name.startswith(WEIGHT)]
    losses = [sums[f"{LOSS}{part}"] / (sums.get(f"{WEIGHT}{part}", count) or 1.0) for part in parts]
    others = {name: total / count for name, total in sums.items() if not _is_sum(name)}
    return ({LOSS: sum(losses)} if losses else {}) | others


def _is_sum(name: str) -> bool:
    return name.partition("#")[0] in {LOSS, WEIGHT}


def spread(count: int, most: int) -> list[int]:
    """So many of the numbers below `count`, from the first to the last: test samples often come class by class."""
    most = min(most, count)
    return [place * (count - 1) // max(most - 1, 1) for place in range(most)]


def known_classes(info: Info) -> list[str]:
    """Those that each sample has one of; none where there are no such."""
    target = info.target
    return target.classes if isinstance(target, Classes) and target.one_class else []


def in_unit_of(name: str) -> str:
    """At the axis of an error that is in the unit of what is predicted."""
    return f"in the unit of {name}"


def check_count(found: int, needed: int) -> None:
    """InputError unless a network gives as many outputs for each sample as it was asked for."""
    if found != needed:
        raise InputError(f"gives {counted(found, 'output')} for each sample, and was asked for {needed}")


def run(model: Model, output: str, samples: list[Any]) -> np.ndarray:
    """An output of the exported model for a list of samples, one vector each: the mean over the views of each."""
    import numpy as np

    return np.concatenate([_mean(model, output, part) for part in model.info.parts(samples)])


def _mean(model: Model, output: str, samples: list[Any]) -> np.ndarray:
    inputs = model.info.batch(samples)
    answers = [share * model.run(output, **view) for share, view in model.info.in_views(inputs)]
    mean: np.ndarray = sum(answers[1:], start=answers[0])
    return mean
