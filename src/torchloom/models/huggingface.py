"""An encoder of texts as the Hugging Face hub keeps it, such as BERT, with a head of its own.

Devlin et al., "BERT: pre-training of deep bidirectional transformers for language understanding", NAACL 2019
(arXiv:1810.04805); the library: Wolf et al., EMNLP 2020 (arXiv:1910.03771).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchloom.config import Fraction
from torchloom.errors import InputError
from torchloom.modalities.base import Origin
from torchloom.models._libraries import Source
from torchloom.system.words import extra

LEFT_OUT = {"_name_or_path", "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype"}


def build(
    tokens: int,
    outputs: int,
    *,
    config: dict[str, Any] | None = None,
    pooling: Literal["token", "mean"] = "token",
    dropout: Fraction = 0.1,
) -> nn.Module:
    """The encoder of a config.json -> what its first token has gathered, or the mean -> linear to `outputs`.

    With `weights`, the `config` is that of their folder. Of the first `token` an encoder that has a pooler of its own
    gives what that makes of it.
    """
    if not config:
        raise ValueError("needs weights, a folder with a config.json, or a config such as {model_type: bert}")
    described = _library().AutoConfig.for_model(**_kept(config))
    if described.vocab_size < tokens:
        raise ValueError(f"config.vocab_size {described.vocab_size}: must be at least the {tokens} tokens of the texts")
    try:
        encoder = _library().AutoModel.from_config(described, attn_implementation="eager", trust_remote_code=False)
    except ValueError as error:
        raise ValueError(f"config: cannot be an encoder: {error}") from error
    return Classifier(encoder.float(), outputs, pooling, dropout)


def _library() -> Any:
    try:
        import transformers
    except ModuleNotFoundError:
        raise InputError(
            "model.name huggingface: needs the package transformers, which is not installed. Install the extra: "
            f"{extra('transformers')}"
        ) from None
    return transformers


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says where it comes from, and which code of others to run."""
    return {key: value for key, value in config.items() if key not in LEFT_OUT and not key.startswith("_")}


class Classifier(nn.Module):
    """Tokens (B, T) int64 and lengths (B,) -> (B, outputs)."""

    def __init__(self, encoder: Any, outputs: int, pooling: str, dropout: float) -> None:
        super().__init__()
        config = encoder.config
        if pooling == "mean" and hasattr(encoder, "pooler"):
            encoder.pooler = None
        self.encoder, self.pooling, self.padding = encoder, pooling, config.pad_token_id or 0
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(config.hidden_size, outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        lengths = lengths.to(tokens.device)
        inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)  # (B, T)
        tokens = tokens.masked_fill(~inside, self.padding)
        seen = self.encoder(input_ids=tokens, attention_mask=inside.long())
        logits: Tensor = self.head(self.dropout(self.pooled(seen, inside)))
        return logits

    def pooled(self, seen: Any, inside: Tensor) -> Tensor:
        """(B, width)."""
        states: Tensor = seen.last_hidden_state  # (B, T, width)
        if self.pooling == "mean":
            kept = inside.unsqueeze(2).to(states.dtype)
            return (states * kept).sum(1) / kept.sum(1)
        whole: Tensor | None = getattr(seen, "pooler_output", None)
        return states[:, 0] if whole is None else whole


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars of progress, and with what files lack as a ValueError."""
    said = _library().logging
    shown = said.is_progress_bar_enabled()
    said.disable_progress_bar()
    try:
        yield
    except OSError as error:
        raise ValueError(str(error)) from error
    finally:
        if shown:
            said.enable_progress_bar()


def origin(source: Source) -> Origin:
    if source.folder is None:
        raise ValueError("must be a folder, with a config.json and a tokenizer.json")
    file = source.folder / "tokenizer.json"
    return Origin(tokenizer=file.read_text(encoding="utf-8") if file.is_file() else "")


def described(source: Source) -> dict[str, Any]:
    return {"config": _kept(source.config)}


def started(
    source: Source,
    network: nn.Module,  # noqa: ARG001  (the library makes another)
    read: Callable[[], dict[str, Tensor]] | None,  # noqa: ARG001
    sizes: Mapping[str, Any],  # noqa: ARG001
    arguments: Mapping[str, Any],  # noqa: ARG001
) -> dict[str, Tensor]:
    """The encoder's weights in the folder, as the library reads them: safetensors, or tensors alone."""
    with _quiet():
        found, account = _library().AutoModel.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    missing = sorted(name for name in account["missing_keys"] if not name.startswith("pooler."))
    if missing:  # of a pooler that was not trained, such as of a language model, it is drawn
        raise ValueError(f"the file has no {', '.join(missing[:3])}")
    return {f"encoder.{name}": weight.float() for name, weight in found.state_dict().items()}
