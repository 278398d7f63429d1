"""A language model: what comes next in a text, token by token."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kedro.pipeline import Node

from torchloom.modalities import Info, TextInfo
from torchloom.modalities.base import Axes
from torchloom.problems.base import Columns, Objective, Problem, check_count
from torchloom.problems.language_model.config import (
    EvaluateLanguageModelConfig,
    GenerateConfig,
    LanguageModelConfig,
    LanguageModelTrainConfig,
)

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig, ContinueConfig, EvaluateConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan
else:
    Checkpoint = Any  # Kedro resolves the annotations of `generate`; what asks an exported model needs no training

logger = logging.getLogger(__name__)

REPORTS = {
    "metrics": "",
    "characters": "The characters that cost the most bits: how often they come up, the mean bits of one, their share "
    "of all bits, and how often the model foretells them.",
    "learning_curves": "",
}


class LanguageModel(Problem):
    """A network takes tokens (B, T) and its state before them, and gives logits (B, T, tokens) and the state after."""

    network = LanguageModelConfig
    training = LanguageModelTrainConfig
    evaluation = EvaluateLanguageModelConfig
    modalities: ClassVar = (TextInfo,)
    reports = REPORTS
    tag = "generation"
    answers = ("logits",)
    state_axes: ClassVar[Axes] = {
        **{name: {1: "batch"} for name in ("hidden", "cell", "keys", "values")},
        "filled": {0: "batch"},
    }
    card = "templates/language_model.md"

    def called(self, info: Info) -> str:
        return "language model"

    def check(self, config: LanguageModelTrainConfig, loaders: LoaderPlan) -> None:
        from torchloom.problems.class_weights import check_weights

        super().check(config, loaders)
        check_weights(config.loss.name, config.loss.arguments, _vocabulary(loaders.info), "characters")

    def settled(self, config: LanguageModelTrainConfig, loaders: LoaderPlan) -> LanguageModelTrainConfig:
        from torchloom.problems.class_weights import weighted

        loss = weighted(config.loss, _vocabulary(loaders.info), partial(loaders.tokens, "train"))
        return config.model_copy(update={"loss": loss})

    def check_answer(self, answer: Any, info: Info) -> None:
        check_count(answer[0].shape[-1], len(_vocabulary(info)))

    def objective(self, config: LanguageModelTrainConfig, info: Info) -> Objective:
        return language_model_objective(config.loss.name, config.loss.arguments)

    def evaluate(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
    ) -> dict[str, Any]:
        """The test split is read once from beginning to end.

        The metrics, a table of the characters, those that cost the most bits first, and the learning curves.
        """
        from torchloom.problems.language_model.metrics import language_model_metrics
        from torchloom.system.devices import choose_device
        from torchloom.system.figures import learning_curves

        device, info, tokens = choose_device(config.device), loaders.info, loaders.tokens("test")
        assert isinstance(info, TextInfo)
        metrics, characters = language_model_metrics(
            checkpoint.build().to(device),
            tokens.to(device),
            info.tokenizer.readable(),
            config.batch_size or 1000,
            checkpoint.loss,
            info.tokenizer.characters(tokens[1:].numpy()),
        )
        metrics |= {"epoch": int(checkpoint.training["epoch"])}
        logger.info("test: %.3f bits per character", metrics["bits_per_character"])
        return {"metrics": metrics, "characters": characters, "learning_curves": learning_curves(history)}

    def more_stages(self) -> Sequence[Node]:
        inputs = ["checkpoint", "params:generate"]
        return [Node(generate, inputs=inputs, outputs="sample_text", name="generate", tags="generate")]

    # ---- for exported models ---------------------------------------------------------------------------------------

    def signature(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The state is zeros at first; the samples are the second half of the tokens, with that after the first half.

        It is called as `state_names` of the network says, or `hidden` and for an LSTM `cell`, (layers, batch, width);
        after the tokens it is `next_…`.
        """
        import torch

        with torch.no_grad():
            first, second = inputs["tokens"].tensor_split(2, dim=1)
            _, *state = model(first)
        names = getattr(model, "state_names", ("hidden", "cell"))[: len(state)]
        after = [f"next_{name}" for name in names]
        return {"tokens": second, **dict(zip(names, state, strict=True))}, [*self.answers, *after]

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """Each prompt and how it goes on."""
        import pyarrow

        columns = dict.fromkeys(("prompt", "continuation"), pyarrow.string())
        return pyarrow.schema(columns), partial(_continue, model, config.generate)

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return f"{row['prompt']}{row['continuation']}"


PROBLEM = LanguageModel


def _vocabulary(info: Info) -> list[str]:
    assert isinstance(info, TextInfo)
    return info.tokenizer.vocabulary


def generate(checkpoint: Checkpoint, config: GenerateConfig) -> str:
    """Let the model continue the prompt; several texts stand one below the other."""
    from torchloom.problems.language_model.generation import continue_text, stepper
    from torchloom.system.progress import track

    info = checkpoint.info
    assert isinstance(info, TextInfo)
    texts = [
        continue_text(stepper(checkpoint.build()), info.tokenizer, config, seed=config.seed + number)
        for number in track(range(config.samples), "texts")
    ]
    heading = f"temperature {config.temperature}, top_k {config.top_k}, seed "
    return "\n\n".join(f"== {heading}{config.seed + number}\n{text}" for number, text in enumerate(texts)) + "\n"


def _continue(model: Model, config: ContinueConfig, samples: list[str]) -> Columns:
    from torchloom.problems.language_model.generation import continue_text, onnx_stepper

    info = model.info
    assert isinstance(info, TextInfo)
    step, settings = onnx_stepper(model.session), config.model_dump()
    texts = []
    for prompt in samples:
        seed = config.seed + zlib.crc32(prompt.encode())  # each prompt draws for itself, whatever stands beside it
        texts.append(continue_text(step, info.tokenizer, GenerateConfig(prompt=prompt, **settings), seed))
    written = [text[len(prompt) :] for prompt, text in zip(samples, texts, strict=True)]
    return {"prompt": samples, "continuation": written}


def language_model_objective(name: str, arguments: dict[str, Any]) -> Objective:
    """What a language model is trained for: the mean loss per token, its bits, and how often the likeliest is right."""
    import torch
    import torch.nn.functional as F

    from torchloom.problems.losses import weighed_loss

    loss = weighed_loss(name, arguments)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, following = batch
        logits = model(tokens)[0].flatten(0, 1).float()  # (B T, tokens)
        targets = following.flatten()
        with torch.no_grad():
            figures = {
                "bits_per_token": F.cross_entropy(logits, targets) / math.log(2),
                "accuracy": (logits.argmax(1) == targets).float().mean(),
            }
        mean, weight = loss(logits, targets)
        return mean, {**figures, **weight}

    return objective
