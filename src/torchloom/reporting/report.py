"""The report on a task: one page on what was trained on what, how well it does, and how it came about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torchloom.datasets.raw import Source
from torchloom.problems import problem_of
from torchloom.problems.base import STANDARDISED, Problem
from torchloom.records.provenance import Lineage
from torchloom.records.runs import flat, main_figures, training_rate
from torchloom.reporting.page import Facts, Picture, Section, Table, Text, render, when
from torchloom.system.words import counted, directed, listed
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan

ROWS = 20  # of a table; its file has all of them
COLUMNS = 30  # likewise
CLASSES = 100  # in the table by class, and in a confusion matrix: figures.MATRIX
SIZES = ("smaller", "larger")
OPPOSITES = (SIZES, ("fewer", "more"), ("lower", "higher"), ("higher", "lower"))
Part = Table | Facts | Picture | Text

CAPTIONS = {  # of what other stages than `evaluate` make
    "learning_curves": "Learning curves: the figures of each epoch on the training and the validation data, and the "
    "learning rate.",
    "sample_text": "What the model writes.",
    "partition_plot": "Who has which training samples: a bar for each client, a part for each class.",
    "class_counts": "The training samples of each client by class.",
    "rounds_plot": "Accuracy by round, beside training with all samples in one place by epoch.",
    "rounds_report": "The federation beside training in one place.",
}


@dataclass(frozen=True)
class Subject:
    """What there is to report on: a task's model, its data and where they come from, and what else it has made."""

    lineage: Lineage
    checkpoint: Checkpoint  # of a model that is there in ONNX only, that of the model that it was made of
    loaders: LoaderPlan
    source: Source | None  # None: a folder of the user's own
    made: dict[str, Any]

    @property
    def task(self) -> str:
        return self.lineage.task

    @cached_property
    def problem(self) -> Problem:
        return problem_of(self.checkpoint.problem)

    @property
    def called(self) -> str:
        """What the model is for, in words."""
        return self.problem.called(self.loaders.info)

    @property
    def tag(self) -> str:
        """The same as the Hugging Face hub calls it."""
        return f"{self.loaders.info.tag}-{self.problem.tag}"

    @property
    def data(self) -> str:
        """The name of the data set."""
        return self.loaders.splits["test"][0].path.parent.name

    @property
    def unit(self) -> str:
        """What the data consist of, in the singular."""
        return self.loaders.info.unit

    @property
    def drawn(self) -> bool:
        """Whether the data are not the real ones, but drawn by the project itself."""
        return bool(self.source and any(place.startswith("sample://") for place in self.source.places))

    @property
    def before(self) -> list[str]:
        """The tasks whose models this one builds upon."""
        names = [record["node"].partition(".") for record in self.lineage.nodes]
        prepared = {namespace for namespace, _, stage in names if stage == "preprocess"}
        return sorted({namespace for namespace, *_ in names} - prepared - {self.task})

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The records of the task's own stages."""
        return [record for record in self.lineage.nodes if record["node"].startswith(f"{self.task}.")]

    @property
    def doubt(self) -> str | None:
        """What must be said first, where it seems to have learnt nothing."""
        return self.problem.doubt(self.made["metrics"]) if "metrics" in self.made else None

    @property
    def scale(self) -> str | None:
        """What its figures lie between, where they say little alone."""
        return self.problem.scale(self.made["metrics"], self.lineage.judges) if "metrics" in self.made else None

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        from torchloom.models.summary import layers

        return layers(self.checkpoint.build(), self.checkpoint.info)

    @property
    def parameters(self) -> int:
        """How many the network has."""
        return sum(row["parameters"] for row in self.layers)

    @property
    def smaller(self) -> dict[str, Any] | None:
        """The figures of a model that was made of a larger one, as the comparison has them."""
        return self.made["comparison"]["after"] if "comparison" in self.made else None

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures on the test data; of a model in ONNX only, its accuracy."""
        found: dict[str, Any] = self.made.get("metrics", {})
        return found or ({"accuracy": self.smaller["accuracy"]} if self.smaller else {})


def task_page(subject: Subject) -> str:
    """The page, section by section."""
    return render(
        subject.task,
        lead(subject),
        headline(subject),
        [
            Section("Summary", [Facts("", dict(summary(subject)))]),
            Section("Training", list(training(subject))),
            Section("Results", list(results(subject))),
            Section("Export", list(exported(subject))),
            Section("Times", list(times(subject))),
            Section("Network", [network_table(subject)]),
            Section("Parameters", list(parameters(subject))),
            Section("Environment", list(environment(subject))),
        ],
    )


def lead(subject: Subject) -> str:
    """What it is, in a sentence, and when and where the newest of it was made."""
    sentence = f"{subject.called.capitalize()}: the network {subject.checkpoint.network} on the data {subject.data}"
    sentence += ", drawn by the project itself." if subject.drawn else "."
    newest = max((record for record in subject.stages if "end" in record), key=lambda record: record["end"], default={})
    environment = subject.lineage.runs.get(str(newest.get("run")), {}).get("environment")
    if newest:
        sentence += f" Made {when(newest['end'])}" + (f" in the environment {environment}." if environment else ".")
    return " ".join(filter(None, [sentence, subject.doubt, subject.scale]))


def headline(subject: Subject) -> dict[str, Any]:
    """The figures on top."""
    main = main_figures(subject.metrics, most=4)
    units = subject.problem.units(subject.loaders.info)
    scaled = {name: f", {STANDARDISED}" for name, unit in units.items() if unit == STANDARDISED}
    figures: dict[str, Any] = {
        f"test {name}{scaled.get(name, '')}".replace("_", " "): value for name, value in main.items()
    }
    if subject.smaller:
        change = subject.made["comparison"]["change"]
        for ratio, words in ((change["times_smaller"], SIZES), (change["times_lower_latency"], ("quicker", "slower"))):
            times, word = directed(ratio, *words)
            if f"{times:.2f}" != "1.00":
                figures[f"times {word}"] = times
    figures["parameters"] = subject.parameters
    if "history" in subject.made:
        figures["training"] = f"{sum(row['seconds'] for row in subject.made['history']):,.1f} s"
        figures[f"{_unit(subject)} per second"] = round(training_rate(subject.made["history"]))
    return figures


def summary(subject: Subject) -> Iterator[tuple[str, Any]]:
    """What was trained on what."""
    checkpoint, plan = subject.checkpoint, subject.loaders
    yield "problem", subject.called
    arguments = ", ".join(f"{name} {value}" for name, value in checkpoint.arguments.items())
    yield "network", checkpoint.network + (f" ({arguments})" if arguments else "")
    yield "parameters of the network", subject.parameters
    if subject.before:
        yield "builds upon", ", ".join(subject.before)
    yield "data", subject.data + (" (drawn by the project itself)" if subject.drawn else "")
    if subject.source:
        yield "where they come from", " or ".join(subject.source.places)
    for split in ("train", "validation", "test"):
        yield f"{split} split", counted(plan.length(split), subject.unit) if plan.length(split) else "none"
    if plan.data.subset:
        yield "trained on", f"{plan.data.subset:,} of them"
    yield from plan.info.facts()
    if plan.info.target:
        yield from plan.info.target.facts()
    trained = checkpoint.training
    recipe = trained.get("parameters", {})
    for name in ("loss", "optimizer", "scheduler", "finetune"):
        if recipe.get(name):
            yield name, named(recipe[name])
    for name in ("epochs", "batch_size", "seed"):
        if name in recipe:
            yield name.replace("_", " "), recipe[name]
    yield "epoch that was kept", int(trained["epoch"])
    if trained.get("changes"):
        yield "gone on with otherwise", listed(trained["changes"])


def named(settings: dict[str, Any]) -> str:
    """A class by its name, and its arguments as far as there are any; what is added to it follows."""
    rest = {key: value for key, value in settings.items() if key not in {"name", "plus"}}
    given = [f"{key} {setting(value)}" for key, value in flat(rest) if value not in (None, [])]
    return " + ".join([", ".join([settings["name"], *given]), *map(named, settings.get("plus", []))])


def setting(value: Any) -> Any:
    """A parameter as one would write it."""
    return f"{value:g}" if isinstance(value, float) else value


def training(subject: Subject) -> Iterator[Part]:
    """The curves, and the history row by row."""
    if "history" in subject.made:
        more = subject.problem.captions(subject.made).get("learning_curves") or ""
        yield Picture(f"{CAPTIONS['learning_curves']} {more}".rstrip(), subject.made["learning_curves"])
        rows = [{**row, "epoch": str(int(row["epoch"]))} for row in subject.made["history"]]
        yield Table(f"History: {counted(len(rows), 'epoch')}. {more}".rstrip(" ."), rows, folded=True)


def results(subject: Subject) -> Iterator[Part]:
    """The figures on the test data, and all else that the stages have made to be looked at, in their order."""
    made = subject.made
    captions = {**CAPTIONS, **subject.problem.captions(made)}
    if "metrics" in made:
        yield Facts(f"On the test data. {captions.get('metrics') or ''}".rstrip(" ."), in_words(made["metrics"]))
    yield from stand_ins(subject)
    if subject.smaller:
        yield from compared(made["comparison"])
    if "per_class" in made:
        yield by_class(made["per_class"])
    elsewhere = {"metrics", "comparison", "per_class", "history", "learning_curves", "export_report", "formats_report"}
    for name, content in made.items():
        if name not in elsewhere and content and captions.get(name, "") is not None:
            yield shown(captions.get(name) or name.replace("_", " ").capitalize(), content)


def stand_ins(subject: Subject) -> Iterator[Part]:
    """What figures call names with letters that no font has, which a browser may well have."""
    named = list(subject.loaders.info.drawn_names())
    if all(name.isascii() for _, names in named for name in names):
        return
    from torchloom.system import fonts

    if found := {stand_in: name for name, stand_in in fonts.stand_ins(named).items()}:
        yield Facts("What the figures call names that no font here can draw", found, folded=len(found) > ROWS)


def by_class(figures: dict[str, dict[str, Any]]) -> Table:
    """The figures of each class; of many, of those with the lowest F1."""
    rows = [{"class": name, **row} for name, row in figures.items()]
    columns = list(rows[0])[1:] if rows else []
    judged = "f1" if "f1" in columns else next(iter(columns), None)
    few = ""
    if judged and len(rows) > CLASSES:
        known = [row for row in rows if row.get("samples", 1)]
        few = f": the {ROWS} with the lowest {judged.upper()} of {len(rows):,}"
        rows = sorted(known, key=lambda row: float(row[judged]))[:ROWS]
    return Table(f"By class, on the test data{few}", rows, bar=judged)


def shown(caption: str, content: Any) -> Part:
    """A report as a part of the page, by what it is in the catalog."""
    if isinstance(content, bytes):
        return Picture(caption, content)
    if isinstance(content, str):
        return Text(caption, content)
    if isinstance(content, dict):
        return Facts(caption, in_words(content))
    more = f" The first {ROWS} of {len(content):,}." if len(content) > ROWS else ""
    wide = len(content[0]) > COLUMNS
    more += f" The first {COLUMNS} of {len(content[0]):,} columns." if wide else ""
    rows = [dict(list(row.items())[:COLUMNS]) if wide else row for row in content[:ROWS]]
    return Table(caption + more, _with_numbers(rows))


def _with_numbers(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """A table as it comes from CSV, with the columns of fractions as numbers; the others stay as they were written."""
    fractions = set(rows[0])
    for name in rows[0]:
        try:
            values = [float(row[name]) for row in rows]
        except ValueError:
            values = []
        if not any(value % 1 for value in values):
            fractions.remove(name)
    return [{name: float(value) if name in fractions else value for name, value in row.items()} for row in rows]


def compared(comparison: dict[str, Any]) -> Iterator[Part]:
    """A model beside the one that it was made of."""
    sides = [dict(flat(comparison[side])) for side in ("before", "after")]
    words = {name: name.replace("_", " ").replace(".", ": ") for name in sides[0] if name in sides[1]}
    rows = [{"": words[name], "before": sides[0][name], "after": sides[1][name]} for name in words]
    yield Table(f"Before and after; threads: {comparison['machine']['threads']}", rows)
    yield Facts("What has changed", changes(comparison["change"]))


def changes(change: dict[str, float]) -> dict[str, float]:
    """What a comparison says, each ratio in the direction that it has: 0.5 times smaller is 2 times larger."""
    found = {}
    for name, value in change.items():
        words = next((words for words in OPPOSITES if name.startswith(f"times_{words[0]}")), None)
        times, word = directed(value, *words) if words else (value, "")
        found[name.replace(words[0], word, 1) if words else name] = times
    return in_words(found)


def in_words(values: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " "): value for name, value in values.items()}


def exported(subject: Subject) -> Iterator[Part]:
    """Whether exported models answer as the network does, and how quick they are."""
    parity, formats = subject.made.get("export_report"), subject.made.get("formats_report")
    if parity:
        yield Facts("The ONNX file, in ONNX Runtime, beside PyTorch on test samples", in_words(parity))
    if formats:
        names = [name for name, values in formats.items() if isinstance(values, dict) and name != "machine"]
        columns = list(dict.fromkeys(column for name in names for column in formats[name]))
        rows = [{"format": name, **{column: formats[name].get(column) for column in columns}} for name in names]
        yield Table(f"The formats side by side; threads: {formats['machine']['threads']}", rows)


def times(subject: Subject) -> Iterator[Part]:
    """Where the time went."""
    if subject.made.get("history"):
        history = subject.made["history"]
        seconds = sum(row["seconds"] for row in history)
        facts = {
            "seconds of training": seconds,
            "seconds of an epoch": seconds / len(history),
            f"{_unit(subject)} per second": round(training_rate(history)),
        }
        if "seconds_waiting" in history[0]:
            waiting = sum(row["seconds_waiting"] for row in history)
            facts |= {"seconds of waiting for data": waiting, "share of waiting for data": f"{waiting / seconds:.1%}"}
        yield Facts("Training", facts)
    rows = [
        {"stage": record["node"], "seconds": f"{record['seconds']:.2f}", "finished": when(record["end"])}
        for record in subject.lineage.nodes
        if "seconds" in record
    ]
    if rows:
        total = sum(record["seconds"] for record in subject.lineage.nodes if "seconds" in record)
        yield Table(f"Stages up to this report: {total:,.1f} seconds", rows, bar="seconds")


def network_table(subject: Subject) -> Part:
    rows = [
        {
            "layer": row["name"],
            "type": row["type"],
            "output": " x ".join(map(str, row["output_shape"])) if row["output_shape"] else None,
            "parameters": row["parameters"],
        }
        for row in subject.layers
    ]
    which = "The network" if "metrics" in subject.made else "The network that it was made of"
    return Table(
        f"{which}: {counted(len(rows), 'layer')}, their outputs without the batch", rows, folded=len(rows) > ROWS
    )


def parameters(subject: Subject) -> Iterator[Part]:
    """Those that made what is reported on, by block, as they were recorded."""
    blocks: dict[str, Any] = {}
    for record in subject.lineage.nodes:
        blocks |= {name.removeprefix("params:"): values for name, values in record["parameters"].items()}
    for name, values in blocks.items():
        settings = {key: setting(value) for key, value in flat(values)}
        yield Facts(name, settings, folded=not name.startswith(f"{subject.task}."))


def environment(subject: Subject) -> Iterator[Part]:
    """The runs in which the stages ran, the machine and the packages."""
    runs, stages = subject.lineage.runs, subject.stages
    if runs:
        yield Table("Runs", [_run(run, values) for run, values in runs.items()])
        newest = runs[max(runs)]
        machine = {name: newest["machine"][name] for name in ("system", "processor", "cores")}
        machine["device"] = next((record["device"] for record in reversed(stages) if "device" in record), None)
        for name in ("memory", "device"):
            peaks = [record["peak"][name] for record in stages if name in record.get("peak", {})]
            if peaks:
                where = "the process" if name == "memory" else "the device"
                machine[f"peak memory of {where}"] = f"{max(peaks) / 1e6:,.0f} MB"
        yield Facts("Machine", machine)
        yield Facts("Packages", newest["packages"])


def _run(run: str, values: dict[str, Any]) -> dict[str, Any]:
    git = values.get("git") or {}
    commit = str(git.get("commit", ""))[:9] + (" and changes" if git.get("changed") else "")
    return {"run": run, "environment": values.get("environment"), "commit": commit, "command": values.get("command")}


def _unit(subject: Subject) -> str:
    return subject.loaders.info.samples
