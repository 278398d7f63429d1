"""What every problem answers: which outputs a network is asked for, how they are learnt, judged and used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.config import EvaluateConfig, ModelConfig, TrainConfig
from torchloom.data.targets import Target
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info

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
WEIGHT = "loss_weight"  # among such means: what the loss is a mean over, where that is not the number of samples
Columns = dict[str, Any]  # of a table of answers, by name: for each sample a string or a number, or a list of such


@dataclass(frozen=True)
class Problem:
    """It has no state: all that depends on the data is in their `Info`, and on the training in the checkpoint."""

    name: str  # as the parameters have it

    network: ClassVar[type[ModelConfig]] = ModelConfig  # the block `model`, which says for what sizes a network asks
    training: ClassVar[type[TrainConfig]] = TrainConfig  # the block `train`
    evaluation: ClassVar[type[EvaluateConfig]] = EvaluateConfig  # the block `evaluate`
    modalities: ClassVar[tuple[type[Info], ...]] = (Info,)  # of such data
    target: ClassVar[type[Target] | None] = None  # what there must be to learn beside the inputs
    array: ClassVar[str | None] = None  # which of the prepared arrays that is, where it could be another
    reports: ClassVar[Mapping[str, str]]  # what `evaluate` gives, in order, and what a page says of each
    tag: ClassVar[str]  # as the Hugging Face hub calls it, after the tag of the modality
    answers: ClassVar[tuple[str, ...]]  # the outputs of an exported model
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
            needed = self.target.__name__.lower() + (f" ({self.array})" if self.array else "")
            raise InputError(
                f"the problem {self.name} needs data with {needed} to learn, but those that the block task names have "
                f"{there}"
            )

    def check(self, config: Any, loaders: LoaderPlan) -> None:
        """InputError unless these data can be learnt from with this block `train`."""
        self.check_data(loaders.info)

    def sizes(self, info: Info) -> dict[str, Any]:
        """What a network's `build` can ask for beside the sizes of the inputs: `outputs`, how many it is to give."""
        return {}

    def meanings(self, info: Info) -> dict[str, Any]:
        """What those of the sizes stand for, such as classes: a head that is for others is not taken over."""
        return {}

    def scaled(self, network: nn.Module, info: Info) -> nn.Module:
        """The network before the scaling of its outputs, if there is one: a modalities.modules.Scaling."""
        return network

    def objective(self, config: Any, info: Info) -> Objective:
        """What is minimised; `config` is the block `train`."""
        raise NotImplementedError

    def evaluate(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: Any
    ) -> dict[str, Any]:
        """Measure the checkpoint on the test split: the contents of each of `reports`, `metrics` first."""
        raise NotImplementedError

    def more_stages(self) -> Sequence[Node]:
        """Those that only this problem has; what they call `params:<block>` is a block of the task."""
        return ()

    def captions(self, made: Mapping[str, Any]) -> Mapping[str, str]:
        """What a page says of each report, where `made` are the contents of all of them."""
        return self.reports

    # ---- for exported models ---------------------------------------------------------------------------------------

    def signature(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """All inputs of the exported model with samples for them, and the names of its outputs.

        `inputs` are samples of what `info.inputs` names.
        """
        return inputs, list(self.answers)

    def described(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What the metadata of the exported model say of its outputs, by name; values as JSON has them."""
        return {}

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The columns of an answer, and what makes them of a list of samples that the modality's reader has read."""
        raise NotImplementedError

    def check_exported(self, model: Model) -> None:
        """ValueError unless what the metadata of an exported model say fits its graph."""

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        """An answer, a row of the table, in a few words."""
        shown = {name: f"{value:.5g}" if isinstance(value, float) else str(value) for name, value in row.items()}
        return ", ".join(f"{name} {value}" for name, value in shown.items())

    def sheet(self, model: Model, shown: list[tuple[str, Any, dict[str, Any]]]) -> Figure:
        """A picture of samples: the name of each, what the modality's reader made of it, and the answer to it."""
        return model.info.sheet([(name, sample, self.caption(model, row)) for name, sample, row in shown])

    def said(self, model: Model) -> dict[str, Any]:
        """What a server says of the answers that its model gives."""
        return {}


def run(model: Model, output: str, samples: list[Any]) -> np.ndarray:
    """An output of the exported model for a list of samples, one vector each: the mean over the views of each."""
    inputs = model.info.batch(samples)
    answers = [share * model.run(output, **view) for share, view in model.info.in_views(inputs)]
    mean: np.ndarray = sum(answers[1:], start=answers[0])
    return mean
