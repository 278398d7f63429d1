"""The stages of a language model, in the order of the graph.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from torchloom.config import (
    DebuggingConfig,
    DistributedConfig,
    EvaluateConfig,
    GenerateConfig,
    LanguageModelConfig,
    LanguageModelTrainConfig,
)
from torchloom.data.loaders import LoaderPlan
from torchloom.modalities import TextInfo, expect
from torchloom.pipelines.stages import Trained, train_network
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted
from torchloom.training.state import TrainingStates

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # Kedro resolves these annotations when it looks for parameters; matplotlib takes a second to import

logger = logging.getLogger(__name__)


def train(
    loaders: LoaderPlan,
    network: LanguageModelConfig,
    config: LanguageModelTrainConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates | None = None,
    start: Checkpoint | None = None,
) -> Trained:
    """Train a language model; see `train_network`."""
    from torchloom.training.losses import check_weights, language_model_objective

    vocabulary = expect(loaders.info, TextInfo).tokenizer.vocabulary
    check_weights(config.loss.name, config.loss.arguments, vocabulary, "characters")
    config = adjusted(config, debugging)
    objective = partial(language_model_objective, config.loss.name, config.loss.arguments)
    return train_network(loaders, network, config, distributed, debugging, objective, states, start)


def evaluate(
    checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], Figure]:
    """Measure the checkpoint on the test split, read once from beginning to end.

    Returns the metrics, a table of the characters, those that cost the most bits first, and the learning curves.
    """
    from torchloom.evaluation import language_model_metrics
    from torchloom.figures import learning_curves
    from torchloom.training.devices import choose_device

    device = choose_device(config.device)
    metrics, characters = language_model_metrics(
        checkpoint.build().to(device),
        loaders.tokens("test").to(device),
        expect(loaders.info, TextInfo).tokenizer.vocabulary,
        config.batch_size or 1000,
        checkpoint.loss,
    )
    metrics |= {"epoch": int(checkpoint.training["epoch"])}
    logger.info("test: %.3f bits per character", metrics["bits_per_character"])
    return metrics, characters, learning_curves(history)


def generate(checkpoint: Checkpoint, config: GenerateConfig) -> str:
    """Let the model continue the prompt; several texts stand one below the other."""
    from torchloom.generation import continue_text, stepper
    from torchloom.progress import track

    tokenizer = expect(checkpoint.info, TextInfo).tokenizer
    texts = [
        continue_text(stepper(checkpoint.build()), tokenizer, config, seed=config.seed + number)
        for number in track(range(config.samples), "texts")
    ]
    heading = f"temperature {config.temperature}, top_k {config.top_k}, seed "
    return "\n\n".join(f"== {heading}{config.seed + number}\n{text}" for number, text in enumerate(texts)) + "\n"
