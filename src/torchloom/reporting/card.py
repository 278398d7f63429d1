"""The model card beside the ONNX file, in the form of the Hugging Face hub: metadata in YAML, then Markdown.

See Mitchell et al., "Model cards for model reporting" (FAT* 2019).
"""

from __future__ import annotations

import html
import re
from typing import Any

from torchloom.config import TrainConfig
from torchloom.records import recipe
from torchloom.records.runs import main_figures
from torchloom.reporting.page import read_template, shown
from torchloom.reporting.report import Subject, setting
from torchloom.system.words import counted, listed, times

# Our figures as the hub calls them, for those that it knows.
METRICS = {
    "exact_match": "exact_match",
    "bleu": "bleu",
    "chrf": "chrf",
    "mean_iou": "mean_iou",
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "roc_auc": "roc_auc",
    "r2": "r_squared",
    "mse": "mse",
    "mae": "mae",
    "rmse": "rmse",
    "perplexity": "perplexity",
    "bits_per_character": "bits_per_character",
    "loss": "loss",
}


HUB = {  # what the hub calls problems; it takes no others for a pipeline_tag
    *("image-classification", "image-segmentation", "image-feature-extraction", "text-classification"),
    *("text-generation", "tabular-classification", "tabular-regression", "unconditional-image-generation"),
}
RENAMED = {"image-generation": "unconditional-image-generation"}


def model_card(subject: Subject) -> str:
    """The file's contents. A license is not stated: it is the user's to choose."""
    import yaml
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    metadata = yaml.safe_dump(_metadata(subject), sort_keys=False, allow_unicode=True)
    loader = FunctionLoader(read_template)
    environment = Environment(  # noqa: S701
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, finalize=plain
    )
    environment.filters |= {"counted": counted, "listed": listed}
    body = environment.get_template("templates/model_card.md").render(
        task=subject.task,
        subject=subject,
        info=subject.problem.taken(subject.loaders.info, subject.checkpoint),
        problem=subject.problem,
        places=_places(subject),
        made=made_smaller(subject),
        settings=_settings(subject),
        repeating=_repeating(subject),
        figures={name: shown(value) for name, value in _figures(subject).items()},
        parity=subject.made.get("export_report"),
    )
    return f"---\n{metadata}---\n\n{body}"


def plain(value: Any) -> str:
    """A value as Markdown shows it as it is: no markup of its own, no HTML, in one line."""
    text = value if isinstance(value, str) and not value.isspace() else shown(value)
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]{}#|~$])", r"\\\1", text)


def _metadata(subject: Subject) -> dict[str, Any]:
    tag, problem = RENAMED.get(subject.tag, subject.tag), subject.called
    figures = _figures(subject)
    title = f"{subject.data} (drawn by torchloom)" if subject.drawn else subject.data
    types = {name: METRICS.get(name, name) for name in figures}
    values = [{"type": types[name], "name": f"test {name}", "value": value} for name, value in figures.items()]
    result = {
        "task": {"type": tag, "name": problem},
        "dataset": {"type": subject.data, "name": title, "split": "test"},
        "metrics": values,
    }
    return {
        "library_name": "onnx",
        **({"pipeline_tag": tag} if tag in HUB else {}),
        "tags": ["torchloom", "pytorch", "onnxruntime", subject.checkpoint.network],
        **({"datasets": [subject.data]} if subject.source and not subject.drawn else {}),
        "metrics": [*types.values()],
        "model-index": [{"name": subject.task, "results": [result]}],
    }


def _figures(subject: Subject) -> dict[str, float]:
    """Those that the hub knows, of a user's own problem its main ones; and all metrics of one's own."""
    known = {name: subject.metrics[name] for name in METRICS if name in subject.metrics} or main_figures(
        subject.metrics
    )
    chosen = {metric["name"].rpartition(".")[2] for metric in _chosen_metrics(subject)}
    known |= {name: value for name, value in subject.metrics.items() if name in chosen}
    return {name: round(float(value), 6) for name, value in known.items()}


def _chosen_metrics(subject: Subject) -> list[dict[str, Any]]:
    """The user's own, as the block `evaluate` had them."""
    recorded = [record["parameters"].get(f"params:{subject.task}.evaluate", {}) for record in subject.stages]
    return next((block["metrics"] for block in reversed(recorded) if block.get("metrics")), [])


def made_smaller(subject: Subject) -> str:
    """What quantisation or pruning has done to the model, as the comparison has it; of others nothing."""
    if not subject.smaller:
        return ""
    before, after, change = (subject.made["comparison"][name] for name in ("before", "after", "change"))
    if after["int8_weights"]:
        return f"{_percent(after['int8_weights'])} of its weights are int8."
    if "prune" not in subject.checkpoint.training.get("parameters", {}):
        return ""
    if after.get("channels", 0) < before.get("channels", 0):
        cut = before["channels"] - after["channels"]
        share = _percent(cut / before["channels"])
        return f"{share} of the channels of its convolutions and dense layers ({cut} of {before['channels']}) were cut."
    compressed = times(change["times_smaller_compressed"], "smaller", "larger", "as large as before")
    return f"{_percent(after['zeros'])} of its weights are zero; compressed, its file is {compressed}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _places(subject: Subject) -> list[str]:
    """Where others can have the data from; folders of this machine are not named."""
    places = subject.source.places if subject.source else []
    return [place for place in places if place.startswith(("https://", "package://"))]


def _settings(subject: Subject) -> dict[str, Any]:
    """Those that made the model, as far as they are told, without folders of this machine; see recipe.settings."""
    trained = subject.checkpoint.training.get("parameters", {})  # all there is to know without records
    found = recipe.settings(subject.lineage) or dict(recipe.unlike_defaults(trained, TrainConfig, "train"))
    for name in {f"{subject.task}.train.batch_size", "train.batch_size"} & found.keys():
        found[name] = trained.get("batch_size", found[name])  # the number that auto has found
    return {name: recipe.without_folders(setting(value)) for name, value in found.items()}


def _repeating(subject: Subject) -> dict[str, str]:
    """What there is besides settings, by what it is."""
    lineage = subject.lineage
    fingerprints = [
        f"{split} {', '.join(file.fingerprint for file in files)}"
        for split, files in subject.loaders.splits.items()
        if files
    ]
    packages = [f"{name} {version}" for name, version in recipe.versions(lineage).items()]
    facts = {
        "command": "; then ".join(recipe.without_folders(command) for command in recipe.commands(lineage)),
        "commit": recipe.commit(lineage),
        "computed by": recipe.computed(lineage, subject.checkpoint.training.get("computed", {})),
        "versions": ", ".join(packages),
        "SHA-256 of the prepared data": "; ".join(fingerprints),
    }
    return {name: value for name, value in facts.items() if value}
