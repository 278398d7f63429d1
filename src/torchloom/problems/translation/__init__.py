"""Translation: a text is written of each text, token by token.

A network takes the tokens of a source, their number and what is written so far, and gives logits (B, G, tokens) of what
comes next; see models/translation_transformer.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.data.targets import Texts
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo, Info
from torchloom.modalities.base import Axes
from torchloom.problems.base import Columns, Objective, Problem, check_count, spread
from torchloom.problems.translation.config import (
    EvaluateTranslationConfig,
    TranslationTrainConfig,
    TranslatorConfig,
)

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

REPORTS = {
    "metrics": "",
    "learning_curves": "",
    "predictions": "Answers to some of the test samples; the wrong ones are in red, with the true text.",
    "translations": "The answers to the test samples, those with the most wrong characters first.",
}


class Translation(Problem):
    network = TranslatorConfig
    training = TranslationTrainConfig
    evaluation = EvaluateTranslationConfig
    modalities: ClassVar = (DocumentInfo,)
    target: ClassVar = Texts
    reports = REPORTS
    tag = "generation"
    answers = ("logits",)
    state_axes: ClassVar[Axes] = {
        "last": {0: "batch"},
        "memory": {1: "batch", 3: "source"},
        "there": {1: "batch", 2: "source"},
        "past": {1: "batch", 3: "writing"},
        "encoded": {1: "batch", 2: "source"},
        "hidden": {1: "batch"},
        "cell": {1: "batch"},
    }
    card = "templates/translation.md"

    def called(self, info: Info) -> str:
        return "translation"

    def check(self, config: TranslationTrainConfig, loaders: LoaderPlan) -> None:
        from torchloom.problems.class_weights import check_weights

        super().check(config, loaders)
        check_weights(config.loss.name, config.loss.arguments, _vocabulary(loaders.info), "tokens")
        if "ignore_index" in config.loss.arguments:
            raise InputError("train.loss.ignore_index: is for what is behind the end of a text; leave it out")

    def settled(self, config: TranslationTrainConfig, loaders: LoaderPlan) -> TranslationTrainConfig:
        from torchloom.problems.class_weights import weighted

        loss = weighted(config.loss, _vocabulary(loaders.info), partial(_tokens, loaders))
        return config.model_copy(update={"loss": loss})

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"written": len(_vocabulary(info))}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"written": text_of(info).tokenizer}

    def check_answer(self, answer: Any, info: Info) -> None:
        check_count(answer.shape[-1], len(_vocabulary(info)))

    def objective(self, config: TranslationTrainConfig, info: Info) -> Objective:
        from torchloom.problems.translation.learning import translation_objective

        return translation_objective(config.loss.name, config.loss.arguments)

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateTranslationConfig,
    ) -> dict[str, Any]:
        """The metrics, of tokens that are told after the true ones before and of answers that the model writes alone,
        the answers, and figures."""
        from torchloom.problems.scores import text_scores
        from torchloom.problems.translation.learning import token_metrics
        from torchloom.problems.translation.metrics import translation_scores
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        device, info = choose_device(config.device), loaders.info
        network = checkpoint.build().to(device)
        metrics = token_metrics(network, loaders.loader("test", device), checkpoint.loss)
        rows = self.answers_to(checkpoint, loaders, config)
        sides = [[str(row[side]) for row in rows] for side in ("true", "predicted")]
        scores = {**text_scores(*sides), **translation_scores(*sides)}
        metrics = {**scores, **metrics, "different_answers": len(set(sides[1]))}
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(rows)}
        logger.info(
            "%s: %.4f of the answers are right, %.4f of their characters wrong, BLEU %.4f",
            *(loaders.tested, metrics["exact_match"], metrics["character_error_rate"], metrics["bleu"]),
        )
        if doubt := self.doubt(metrics):
            logger.warning(doubt)
        shown = spread(len(rows), config.pictures)
        verdicts = [_verdict(rows[number]) for number in shown]
        return {
            "metrics": metrics,
            "learning_curves": figures.learning_curves(history),
            "predictions": info.predictions(loaders, shown, verdicts),
            "translations": _worst_first(rows, info.columns(loaders, range(len(rows)))),
        }

    def answers_to(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, config: EvaluateTranslationConfig
    ) -> list[Columns]:
        """What is answered, as the info of the checkpoint says it is searched for."""
        from torchloom.problems.translation.learning import TorchWriter
        from torchloom.problems.translation.writing import write
        from torchloom.system.devices import choose_device

        device, target = choose_device(config.device), text_of(checkpoint.info)
        writer, answers = TorchWriter(checkpoint.build(), device), []
        for *inputs, _ in loaders.loader("test", device):
            answers += write(writer, dict(zip(loaders.info.inputs, inputs, strict=True)), target)
        truths = map(target.tokenizer.plain, loaders.texts("test", range(len(answers)), "text_told"))
        return [{"true": true, "predicted": answer} for true, answer in zip(truths, answers, strict=True)]

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        if metrics["different_answers"] > 1 or metrics["test_samples"] < 2 or metrics["exact_match"] == 1:
            return None
        return "It gives the same answer to each of the test samples: it has not learnt to read them."

    # ---- for exported models ---------------------------------------------------------------------------------------

    def exported(self, model: nn.Module) -> nn.Module:
        from torchloom.problems.translation.learning import Stepper

        return Stepper(model)

    def signature(self, model: Any, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Beside sources the last token, and what is kept after a few; see learning.Stepper.

        What is kept is called as the network says, after the last token `next_…`, and of sources `first_…`.
        """
        import torch

        with torch.no_grad():
            logits, *kept = model.start(*inputs.values())
            last = logits.argmax(1)
            memory = len(model.network.memory_names)
            kept = [*kept[:memory], *model.network.step(last, *kept)[1:]]
        names = model.kept
        after = [f"next_{name}" for name in names[memory:]]
        first = [f"first_{name}" for name in ("logits", *names)]
        return {**inputs, "last": last, **dict(zip(names, kept, strict=True))}, [*self.answers, *after, *first]

    def check_exported(self, model: Model) -> None:
        tokens, logits = len(_vocabulary(model.info)), model.session.get_outputs()[0].shape[-1]
        if tokens != logits:
            raise ValueError(f"{tokens} tokens, {logits} logits")

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The text that is written of each."""
        import pyarrow

        from torchloom.problems.translation.writing import OnnxWriter, write

        writer, target = OnnxWriter(model.session), text_of(model.info)
        schema = pyarrow.schema({"answer": pyarrow.string()})

        def answer(samples: list[Any]) -> Columns:
            parts = map(model.info.batch, model.info.parts(samples))
            return {"answer": [text for part in parts for text in write(writer, part, target)]}

        return schema, answer

    def truth(self, told: Sequence[Any], info: Info) -> Columns:
        import pyarrow

        return {"true": pyarrow.array(told, pyarrow.string())}

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        from torchloom.problems.scores import text_scores

        return text_scores(list(map(text_of(info).tokenizer.plain, told)), list(answers["answer"]))

    def verdict(self, row: Mapping[str, Any], told: Any, info: Info) -> tuple[bool, str]:
        true = text_of(info).tokenizer.plain(told)
        return row["answer"] == true, true

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return str(row["answer"])

    def said(self, model: Model) -> dict[str, Any]:
        target = text_of(model.info)
        return {"answers": target.name, "longest": target.longest, "beam": target.beam}


PROBLEM = Translation


def text_of(info: Info) -> Texts:
    """What is to be written; InputError when the data have nothing of that kind."""
    if not isinstance(info.target, Texts):
        raise InputError(f"these data are of the kind {info.kind!r}, without texts to be written")
    return info.target


def _vocabulary(info: Info) -> list[str]:
    return text_of(info).tokenizer.vocabulary


def _tokens(loaders: LoaderPlan) -> Tensor:
    """All tokens (M,) that are learnt, the ends among them."""
    from torchloom.problems.translation.learning import IGNORED, given_and_told

    _, told = given_and_told(loaders.learnt())
    return told[told != IGNORED]


def _verdict(row: Columns) -> tuple[str, bool]:
    right = row["true"] == row["predicted"]
    return (str(row["predicted"]) if right else f"{row['predicted']}, not {row['true']}"), right


def _worst_first(rows: list[Columns], columns: list[dict[str, Any]]) -> list[Columns]:
    """The table of answers, with their sources and how many of their characters are wrong."""
    from torchloom.problems.scores import edit_distance

    table = [
        {"test_sample": number, **row, "wrong_characters": edit_distance(row["predicted"], row["true"]), **more}
        for number, (row, more) in enumerate(zip(rows, columns, strict=True))
    ]
    return sorted(table, key=lambda row: -row["wrong_characters"])
