"""Which tasks there are: blocks of parameters, in the environment of the run."""

import inspect
import pickle
import tarfile
from copy import copy
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, get_type_hints

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from conftest import TASKS, kedro, make_project
from torchloom import pipeline_registry
from torchloom import pipelines as stages
from torchloom.config import DistributedConfig, own
from torchloom.errors import InputError
from torchloom.pipeline_registry import OURS, Deferred
from torchloom.pipelines.training import nodes
from torchloom.problems.classification import Classification
from torchloom.tasks import pipeline_of, read_tasks, readers_of

DATA = {"preprocess": {}}
BLOCKS: dict[str, Any] = {
    "mnist": DATA,
    "first": {"task": {"problem": "classification", "data": "mnist"}},
    "second": {"task": {"method": "pruning", "of": "first"}},
}
NUMBERS = {"task": {"problem": "regression", "data": "mnist"}}


def test_a_task_says_what_it_is_made_of_and_where_its_data_come_from() -> None:
    third = {"task": {"method": "distillation", "data": "other", "teacher": "second"}}
    tasks = read_tasks({**BLOCKS, "other": DATA, "third": third, "sweep": {"task": "first"}, "tracking": {}})
    assert list(tasks) == ["first", "second", "third"]
    assert [task.choice for task in tasks.values()] == ["classification", "pruning", "distillation"]
    assert [task.data_set for task in tasks.values()] == ["mnist", "mnist", "other"]
    assert [task.problem for task in tasks.values()] == ["classification"] * 3
    assert tasks["third"].sources == (("data", "other"), ("teacher", "second"))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("classification", r"mine\.task: given 'classification'; must be a block such as {problem: classification, "),
        ({"data": "mnist"}, r"mine\.task: given .* must be a block such as"),
        ({"problem": "regression", "method": "pruning"}, r"mine\.task: given .* must be a block such as"),
        (
            {"problem": "clasification", "data": "mnist"},
            r"mine\.task\.problem: given 'clasification'; must be a problem or .* \(did you mean classification\?\)",
        ),
        ({"method": ["pruning"], "of": "first"}, r"mine\.task\.method: given \['pruning'\]; must be a method"),
        (
            {"problem": "classification", "data": "mnits"},
            r"mine\.task\.data: given 'mnits'; unknown data set \(did you mean mnist\?\); allowed are mnist",
        ),
        (
            {"problem": "torchloom.problems.base.Problem", "data": "mnist"},
            r"mine\.task\.problem: given .*; says nothing of reports, tag, answers, which a problem must",
        ),
        ({"problem": "classification"}, r"mine\.task\.data: is missing"),
        ({"problem": "classification", "data": 5}, r"mine\.task\.data: given 5; must be a valid string"),
        ({"method": "pruning", "of": "mnist"}, r"mine\.task\.of: given 'mnist'; unknown task"),
        (
            {"method": "pruning", "of": "first", "data": "mnist"},
            r"mine\.task\.data: unknown key; allowed are method, of",
        ),
        (
            {"method": "pruning", "of": "numbers"},
            r"mine\.task\.of: pruning starts from a classification, but numbers is for the problem regression",
        ),
        ({"method": "pruning", "of": "mine"}, r"mine\.task: is made of itself: mine -> mine"),
        (
            {"method": "distillation", "data": "mnist", "teacher": "third"},
            r"task: is made of itself: (mine -> third -> mine|third -> mine -> third)",
        ),
    ],
)
def test_a_mistake_is_answered_with_the_file_in_which_it_stands(task: Any, message: str) -> None:
    blocks = {
        **BLOCKS,
        "numbers": NUMBERS,
        "mine": {"task": task},
        "third": {"task": {"method": "quantization", "of": "mine"}},
    }
    files = {name: [Path(f"conf/base/parameters/{name}.yml")] for name in blocks}
    with pytest.raises(InputError, match=message) as error:
        read_tasks(blocks, files)
    head, *lines = error.value.message.split("\n")
    assert head == "the tasks cannot be put together:"
    assert len(lines) == 1
    assert lines[0].endswith((" (in conf/base/parameters/mine.yml)", " (in conf/base/parameters/third.yml)"))


def test_each_data_set_has_a_reader() -> None:
    blocks = {"mnist": {}, "cifar10": {"seed": 1}, "shapes": {"folder": "x"}, "letters": {"reader": "mnist"}}
    parameters = {name: {"preprocess": block} for name, block in blocks.items()}
    assert readers_of(parameters) == {"mnist": "mnist", "cifar10": "cifar10", "shapes": "folder", "letters": "mnist"}
    letters = {"task": {"problem": "classification", "data": "letters"}}
    assert read_tasks({**parameters, "letters_mlp": letters})["letters_mlp"].reader == "mnist"
    with pytest.raises(InputError, match=r"letters\.preprocess\.reader: given 'mnits'; must be .*did you mean mnist"):
        read_tasks({**parameters, "letters": {"preprocess": {"reader": "mnits"}}})


@pytest.mark.parametrize("name", ["a b", "", "../up", "a/b", "a.b", "a[b]", "{x}", 2024, True, "a" * 101])
def test_a_name_that_kedro_or_files_cannot_have_is_refused(name: Any) -> None:
    for block in (BLOCKS["first"], DATA):
        with pytest.raises(InputError, match="cannot be the name of a task or a data set, which has letters"):
            read_tasks({**BLOCKS, name: block})
    with pytest.raises(InputError, match=r"^tracking: is a block that all tasks share, and can be no task or data set"):
        read_tasks({**BLOCKS, "tracking": BLOCKS["first"]})
    assert "größer_2-b" in read_tasks({**BLOCKS, "größer_2-b": BLOCKS["first"]})


@pytest.mark.parametrize("method", ["pruning", "quantization", "federation"])
def test_of_an_onnx_file_alone_nothing_can_be_made(method: str) -> None:
    small = {"task": {"method": "quantization", "of": "first"}}
    with pytest.raises(InputError, match=r"mine\.task\.of: small leaves no checkpoint, of which a model could be made"):
        read_tasks({**BLOCKS, "small": small, "mine": {"task": {"method": method, "of": "small"}}})


def test_what_is_a_task_is_no_data_set() -> None:
    with pytest.raises(InputError, match=r"mnist: is a task and a data set"):
        read_tasks({**BLOCKS, "mnist": {**DATA, "task": {"problem": "classification", "data": "mnist"}}})


# ---- through Kedro -------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(project: Path) -> Path:
    """A project whose environment `mine` has a task more."""
    (project / "conf/mine/parameters").mkdir(parents=True)
    text = (project / "conf/base/parameters/mnist_mlp.yml").read_text()
    (project / "conf/mine/parameters/my_own.yml").write_text(text.replace("mnist_mlp:", "my_own:"))
    return project


def names(project: Path, **options: Any) -> set[str]:
    with KedroSession.create(project, **options) as session:
        session.load_context()
        return set(pipelines)


def test_sessions_of_one_process_see_the_tasks_of_their_environments(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = {*TASKS, "predict", "sweep", "__default__"}
    bootstrap_project(mine)
    assert names(mine) == everywhere
    assert names(mine, env="mine") == {*everywhere, "my_own"}
    assert names(mine, env="sample") == everywhere
    monkeypatch.setenv("KEDRO_ENV", "mine")
    assert names(mine) == {*everywhere, "my_own"}
    monkeypatch.delenv("KEDRO_ENV")
    with tarfile.open(tmp_path / "conf.tar.gz", "w:gz") as archive:
        archive.add(mine / "conf", "conf")
    for source in (mine / "conf", tmp_path / "conf.tar.gz"):
        assert names(mine, env="mine", conf_source=str(source)) == {*everywhere, "my_own"}
    (mine / "conf/local/mine.yml").write_text("")
    (mine / "conf/local/parameters_mine.yml").write_text((mine / "conf/mine/parameters/my_own.yml").read_text())
    assert names(mine) == {*everywhere, "my_own"}


def test_a_new_process_without_a_session_takes_the_environment_that_the_variable_names(mine: Path) -> None:
    listed = kedro(mine, "registry", "list", KEDRO_ENV="mine")
    assert listed.returncode == 0, listed.stderr
    assert "my_own" in yaml.safe_load(listed.stdout)


def test_a_task_cannot_be_changed_for_one_run(project: Path) -> None:
    bootstrap_project(project)
    given = {"mnist_mlp": {"task": {"data": "cifar10"}, "train": {"epochs": 1}}}
    with pytest.raises(InputError, match=r"^--params mnist_mlp\.task: a task cannot be changed for one run"):
        names(project, runtime_params=given)


def test_mistakes_in_files_are_answered_in_one_message(project: Path) -> None:
    bootstrap_project(project)
    folder = project / "conf/base/parameters"
    (folder / "mnist.yml").write_text("mnist:\n  preprocess: {}\n  task: {problem: classification, data: mnist}\n")
    with pytest.raises(
        InputError, match=r"\n  mnist: is a task and a data set \(in .*conf/base/parameters/mnist\.yml\)"
    ):
        names(project)
    (folder / "mnist.yml").write_text("mnist:\n  preprocess: {}\n")
    (folder / "again.yml").write_text((folder / "mnist_mlp.yml").read_text())
    with pytest.raises(InputError, match=r"Duplicate keys found in .*mnist_mlp") as error:
        names(project)
    assert {"again.yml", "mnist_mlp.yml"} <= {Path(word.strip(",:")).name for word in error.value.message.split()}


def test_data_that_no_task_learns_from_yet_are_prepared(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    bootstrap_project(project)
    (project / "conf/base/parameters/shapes.yml").write_text("shapes:\n  preprocess: {folder: shapes}\n")
    with KedroSession.create(project) as session:
        session.load_context()
        assert "shapes.preprocess" in {node.name for node in pipelines["__default__"].nodes}


def test_a_block_that_is_no_task_says_what_it_lacks(project: Path) -> None:
    bootstrap_project(project)
    (project / "conf/base/parameters/own.yml").write_text("own: {model: {name: mlp}, train: {epochs: 1}}\n")
    with pytest.raises(InputError, match=r"own: unknown key.*; a task has a block task: {problem: …, data: …}"):
        names(project)


class Careful(Classification):
    """A problem of the user's own."""


def test_a_method_goes_on_with_the_problem_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_named", set())
    problem = f"{__name__}.Careful"
    tasks = read_tasks({**BLOCKS, "first": {"task": {"problem": problem, "data": "mnist"}}})
    assert tasks["second"].problem == problem
    stages = {node.name: node.func for task in tasks.values() for node in pipeline_of(task).nodes}
    for name in ("first.train", "first.evaluate", "second.train", "second.evaluate"):
        assert stages[name].__kwdefaults__["problem"].name == problem  # type: ignore[attr-defined]
        assert pickle.loads(pickle.dumps(stages[name])) is stages[name]


def test_stages_are_functions_whose_code_can_be_shown() -> None:
    first = {node.name: node.func for node in pipeline_of(read_tasks(BLOCKS)["first"]).nodes}
    for name, function in {"first.train": nodes.train, "first.evaluate": nodes.evaluate}.items():
        assert inspect.isfunction(first[name])
        assert inspect.getsource(first[name]) == inspect.getsource(function)
        assert first[name].__name__ == function.__name__
    types = get_type_hints(first["first.train"])
    assert types["network"] is Classification.network
    assert types["training"] is Classification.training
    assert types["distributed"] is DistributedConfig


def test_a_package_of_ones_own_is_a_pipeline_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kedro has it: a package with `create_pipeline`, among the pipelines of the project."""
    assert {module.name for module in iter_modules(stages.__path__) if module.ispkg} == OURS
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices/__init__.py").write_text(
        "from kedro.pipeline import Node, Pipeline\n\n\ndef create_pipeline():\n"
        "    return Pipeline([Node(sorted, 'raw_prices', 'prices', name='sort')])\n"
    )
    folders = [*stages.__path__, str(tmp_path)]
    monkeypatch.setattr(stages, "__path__", folders)
    monkeypatch.setattr(stages.__spec__, "submodule_search_locations", folders)
    registered = pipeline_registry._pipelines((), frozenset(), None, pipeline_registry._added())
    assert registered.keys() == {"prices", "predict", "sweep", "__default__"}
    (node,) = registered["prices"].nodes
    assert (node.name, node.inputs, node.outputs) == ("sort", ["raw_prices"], ["prices"])
    assert registered["__default__"].nodes == [node]


def test_a_pipeline_that_waits_is_like_others() -> None:
    task = read_tasks(BLOCKS)["first"]
    waiting, plain = Deferred(lambda: pipeline_of(task)), pipeline_of(task)
    assert not hasattr(waiting, "nothing")
    counted: list[str] = []
    once = Deferred(lambda: counted.append("built") or plain)  # type: ignore[func-returns-value]
    assert counted == []
    assert once.nodes == plain.nodes
    assert not hasattr(once, "nothing")
    assert counted == ["built"]
    assert waiting.nodes == plain.nodes
    assert (waiting + plain).inputs() == plain.inputs()
    assert copy(Deferred(lambda: plain)).describe() == plain.describe()
