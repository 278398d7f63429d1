"""What the options of `kedro run`, or the arguments of a session, ask for and is not there: one message."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from conftest import ROOT, OneContextSession, kedro, keep_what_does_not_change
from torchloom import cli as commands
from torchloom.cli import cli
from torchloom.config import own
from torchloom.errors import InputError
from torchloom.runner import SkipUnchanged


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a session says that is to run so; none of these begins."""
    keep_what_does_not_change()
    bootstrap_project(ROOT)

    def message(*names: str, **asked: Any) -> str:
        with (
            OneContextSession.create(ROOT, env="sample", save_on_close=False) as session,
            pytest.raises(InputError) as caught,
        ):
            session.run(pipeline_names=list(names), **asked)
        return caught.value.message

    return message


MLP = "mnist_mlp.build_dataloaders, mnist_mlp.evaluate, mnist_mlp.export_formats, mnist_mlp.export_onnx"
MLP += ", mnist_mlp.report, mnist_mlp.train"
ENTRIES = "unknown entry of the catalog (did you mean mnist_mlp.checkpoint?); allowed are mnist_mlp."
UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "a node": (
        {"node_names": ["mnist_mlp.train", "mnist_mlp.evalute"]},
        f"--nodes mnist_mlp.evalute: unknown node (did you mean mnist_mlp.evaluate?); allowed are {MLP}",
    ),
    "a stage": (
        {"node_names": ["train"]},
        "--nodes train: unknown node (did you mean mnist_mlp.train?); "
        f"allowed are mnist.download, mnist.preprocess, {MLP}",
    ),
    "almost a stage": ({"to_nodes": ["trian"]}, "--to-nodes trian: unknown node (did you mean mnist_mlp.train?); "),
    "a first node": ({"from_nodes": ["mnist_mlp.trian"]}, "--from-nodes mnist_mlp.trian: unknown node (did you mean"),
    "a tag": ({"tags": ["trian"]}, "--tags trian: unknown tag (did you mean train?); allowed are build_dataloaders, "),
    "a namespace": (
        {"namespaces": ["mnits"]},
        "--namespaces mnits: unknown namespace (did you mean mnist?); allowed are mnist, mnist_mlp",
    ),
    "an input": ({"from_inputs": ["mnist_mlp.chekpoint"]}, f"--from-inputs mnist_mlp.chekpoint: {ENTRIES}"),
    "an output": ({"to_outputs": ["mnist_mlp.chekpoint"]}, f"--to-outputs mnist_mlp.chekpoint: {ENTRIES}"),
    "of another task": (
        {"node_names": ["mnist_gan.train"]},
        "--nodes mnist_gan.train: is of the task mnist_gan, which is not run. Add it to --pipelines",
    ),
    "no list": ({"tags": "train"}, "tags: given 'train'; must be a list of such names"),
    "nothing in common": (
        {"node_names": ["mnist_mlp.train"], "tags": ["evaluate", "report"]},
        "no node is left to run: --tags evaluate,report has 2 nodes and --nodes mnist_mlp.train has 1 node, "
        "but they have none in common",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_there(refused: Callable[..., str], case: str) -> None:
    asked, says = UNKNOWN[case]
    message = refused("mnist_mlp", **asked)
    assert message[: len(says)] == says
    assert "\n" not in message


def test_a_stage_of_many_tasks_is_not_guessed(refused: Callable[..., str]) -> None:
    likely = "cbf_transformer.train or cifar_alexnet.train or one of "
    message = refused(node_names=["train"])
    assert message.startswith(f"--nodes train: unknown node (did you mean {likely}")
    assert len(message) < 500


def test_all_that_is_wrong_is_said_at_once(refused: Callable[..., str]) -> None:
    said = refused("mnist_mlp", tags=["trian"], node_names=["mnist_mlp.tarin"]).split("\n")
    assert [line.partition(":")[0] for line in said] == ["--tags trian", "--nodes mnist_mlp.tarin"]


def test_entries_that_nothing_follows(refused: Callable[..., str]) -> None:
    last = sorted(pipelines["mnist_mlp"].outputs())[0]
    assert refused("mnist_mlp", from_inputs=[last]) == f"no node is left to run: --from-inputs {last} has 0 nodes"


def test_pipelines_that_are_added_up_run_as_they_are() -> None:
    both = sum([pipelines["mnist_mlp"], pipelines["mnist_lenet"]])
    assert isinstance(both, type(pipelines["mnist_mlp"]).__base__)
    assert {node.name for node in both.filter(node_namespaces=["mnist"]).nodes} == {
        "mnist.download",
        "mnist.preprocess",
    }
    assert len(both.filter(tags=["train"], to_nodes=["mnist_lenet.train"]).nodes) == 1


# ---- the command ---------------------------------------------------------------------------------------------------


def test_who_starts_a_packaged_project_gets_the_same_command() -> None:
    run = find_run_command("torchloom")
    assert run.name == "run"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="--runner SkipUnchanged: must be a runner of Kedro"):
        run(["--runner", "SkipUnchanged"], standalone_mode=False)
    with pytest.raises(AttributeError, match="has no attribute 'rnu'"):
        commands.rnu  # noqa: B018


def test_the_command_says_it_without_a_traceback(project: Path) -> None:
    run = ("run", "--env", "sample", "--pipelines", "mnist_mlp")
    ended = kedro(project, *run, "--nodes", "mnist_mlp.evalute")
    assert ended.returncode == 1
    assert ended.stderr.strip().split("\n") == [f"Error: {UNKNOWN['a node'][1]}"]
    ended = kedro(project, *run, "--runner", "SkipUnchanged")
    assert ended.returncode == 1
    assert "did you mean torchloom.runner.SkipUnchanged?" in ended.stderr
    assert len(ended.stderr.strip().split("\n")) == 1


RUNNERS = {  # what is given, and what is said of it
    ("--runner", "Foo"): "--runner Foo: must be a runner of Kedro, or the dotted path of another; there are Parallel",
    ("--runner", "ThredRunner"): "(did you mean ThreadRunner?)",
    ("--runner", "torchlom.runner.SkipUnchanged"): "--runner torchlom.runner.SkipUnchanged: leads nowhere: it must be",
    ("--runner", "torchloom.runner.SkipUnchangd"): "(did you mean torchloom.runner.SkipUnchanged?)",
    ("--runner", "torchloom.cli.Above0"): "must lead to a class below kedro.runner.runner.AbstractRunner",
    ("--runner", "a..b"): "--runner a..b: leads nowhere",
    ("--runner-params", "workers=2"): "--runner-params workers: unknown argument of SequentialRunner; allowed are is_",
}


@pytest.mark.parametrize("given", RUNNERS)
def test_runners_that_are_none(given: tuple[str, str]) -> None:
    ended = CliRunner().invoke(cli, ["run", *given])
    assert ended.exit_code == 1
    assert RUNNERS[given] in ended.output
    assert len(ended.output.strip().split("\n")) == 1


def test_a_runner_by_its_path_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no code of the networks, in which a user would look for what stages raise."""
    runners = []
    monkeypatch.setattr(KedroSession, "run", lambda self, runner, **_: runners.append(type(runner)))
    monkeypatch.chdir(ROOT)
    named = own.named()
    ended = CliRunner().invoke(cli, ["run", "--env", "sample", "--runner", "torchloom.runner.SkipUnchanged"])
    assert (ended.exit_code, runners) == (0, [SkipUnchanged])
    assert own.named() == named


def test_a_reference_left_open() -> None:
    ended = CliRunner().invoke(cli, ["run", "--params", "wonderland_lstm.generate.prompt=a ${x"])
    assert ended.exit_code == 2
    said = "Error: Invalid value for '--params': wonderland_lstm.generate.prompt=a ${x: ${ begins a reference to"
    assert said in ended.output
    assert "Traceback" not in ended.output
