"""Federated learning: who has which samples, what a client does, what the server keeps; and all of it by Flower.

The last part needs Flower, and so an environment of its own: see .ci/run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kedro.io import DataCatalog
from pydantic import ValidationError

from conftest import TINY, kedro_run, make_project
from tests.stages import CLASSIFICATION
from torchloom.config import DataConfig, DebuggingConfig, PartitionConfig
from torchloom.data.targets import Classes
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.federated.federation import (
    Federation,
    Server,
    _of_its_type,
    client_seed,
    proximal_objective,
    scaled,
    train_client,
)
from torchloom.federated.partition import class_counts, dirichlet, partition, skew
from torchloom.modalities import ImageInfo
from torchloom.pipeline_registry import register_pipelines
from torchloom.pipelines.federation import nodes
from torchloom.problems.classification.config import ClassifierConfig, EvaluateClassifierConfig, FederatedTrainConfig
from torchloom.training.callbacks import calling_back
from torchloom.training.loaders import LoaderPlan, TensorFile
from torchloom.training.state import TrainingStates

INFO = ImageInfo(target=Classes(classes=["dark", "light"]), shape=[1, 4, 4], mean=[0.5], std=[0.25])
NETWORK = ClassifierConfig(name="mlp", hidden=[8])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))


def training(**changes: Any) -> FederatedTrainConfig:
    settings: dict[str, Any] = {"optimizer": {"name": "SGD", "lr": 0.1}, "batch_size": 4, "device": "cpu"}
    return FederatedTrainConfig(**settings | changes)


def plan(folder: Path, change: Callable[[np.ndarray], Any] = lambda images: None) -> LoaderPlan:
    """Loaders of 40 images in each split, dark and light in turn; `change` is done to those of training."""
    splits = {}
    for split in ("train", "validation", "test"):
        images = np.random.default_rng(1).integers(0, 100, (40, 4, 4, 1), dtype=np.uint8)
        images[1::2] += 150
        if split == "train":
            change(images)
        dataset = TensorsDataset(filepath=str(folder / f"{split}.safetensors"))
        dataset.save(Tensors({"images": images, "labels": np.arange(40) % 2}))
        saved = dataset.load()
        splits[split] = [TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=40)]  # type: ignore[arg-type]
    return LoaderPlan(splits=splits, info=INFO, data=DataConfig(), batch_size=4, seed=0)


def federation(folder: Path, *shards: range, **changes: Any) -> Federation:
    dealt = [np.array(shard) for shard in shards or (range(20), range(20, 40))]
    return Federation(CLASSIFICATION, plan(folder), NETWORK, training(**changes), dealt)


# ---- who has which samples -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"name": "iid"}, {"name": "dirichlet", "alpha": 0.01}])
def test_every_sample_belongs_to_one_client(settings: dict[str, Any]) -> None:
    config = PartitionConfig(clients=7, **settings)
    shards = partition(LABELS, 10, config)
    assert sorted(np.concatenate(shards)) == list(range(1000))
    assert {len(shard) for shard in shards} == {142, 143}
    again, other = (partition(LABELS, 10, config.model_copy(update={"seed": seed})) for seed in (0, 1))
    assert all(np.array_equal(one, two) for one, two in zip(shards, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(shards, other, strict=True))


def test_the_smaller_alpha_the_more_the_classes_differ() -> None:
    def measured(**settings: Any) -> float:
        draws = [PartitionConfig(clients=10, seed=seed, **settings) for seed in range(5)]
        return float(np.mean([skew(class_counts(LABELS, partition(LABELS, 10, draw), 10)) for draw in draws]))

    iid = measured(name="iid")
    strong, middle, weak = (measured(name="dirichlet", alpha=alpha) for alpha in (0.1, 1.0, 1000.0))
    assert iid < 0.15
    assert weak == pytest.approx(iid, abs=0.1)
    assert weak < middle < strong
    assert strong > 0.5


def test_the_skew_of_clients_with_a_class_each() -> None:
    assert skew(np.diag([5, 5, 5, 5])) == pytest.approx(0.75)
    assert skew(np.full((3, 4), 7)) == 0


def test_the_first_client_has_the_shares_that_were_drawn() -> None:
    """Of 100 clients it is far from having all of any class: its shares are those of the Dirichlet distribution."""
    labels = np.arange(100_000) % 10
    draws = [dirichlet(labels, 10, [1000], 2.0, np.random.default_rng(seed)) for seed in range(200)]
    shares = np.array([class_counts(labels, drawn, 10)[0] for drawn in draws]) / 1000
    assert shares.mean(0) == pytest.approx(np.full(10, 0.1), abs=0.04)
    assert shares.var() == pytest.approx(0.1 * 0.9 / (2.0 + 1), rel=0.15)  # of Dir(2 p), and little from the counts


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (PartitionConfig, {"name": "dirichlet"}, "dirichlet needs it"),
        (PartitionConfig, {"name": "iid", "alpha": 0.5}, "for dirichlet only"),
        (FederatedTrainConfig, {"federated": {"strategy": {"name": "FedProx"}}}, "FedProx needs it"),
        (FederatedTrainConfig, {"federated": {"strategy": {"proximal_mu": 0.1}}}, "for FedProx only"),
        (FederatedTrainConfig, {"federated": {"fraction": 0.0}}, "greater than 0"),
        (FederatedTrainConfig, {"ema": 0.9}, "should be None"),
        (FederatedTrainConfig, {"scheduler": {"name": "OneCycleLR"}}, "must have cycle_momentum: false"),
    ],
)
def test_settings_that_do_not_fit(model: type[Any], settings: dict[str, Any], message: str) -> None:
    needed = {"optimizer": {"name": "SGD", "lr": 0.1}} if model is FederatedTrainConfig else {}
    with pytest.raises(ValidationError, match=message):
        model(**needed, **settings)


def test_too_few_samples() -> None:
    with pytest.raises(
        InputError, match=r"partition\.clients 2000: more than training samples, of which there are 1000"
    ):
        partition(LABELS, 10, PartitionConfig(clients=2000))


# ---- clients -------------------------------------------------------------------------------------------------------


def test_the_proximal_term_pulls_towards_the_weights_that_came(tmp_path: Path) -> None:
    known = federation(tmp_path)
    model, batch = known.model(), known.loaders.first("train", 8)
    held = proximal_objective(known.objective(), model, mu=0.3)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    loss, figures = held(model, batch)
    plain = known.objective()(model, batch)[0]
    pairs = zip(model.parameters(), start, strict=True)
    apart = sum(float((now - then).detach().square().sum()) for now, then in pairs)
    assert figures["distance"].item() == pytest.approx(apart, rel=1e-5)
    assert (loss - plain).item() == pytest.approx(0.3 / 2 * apart, rel=1e-4)
    found, without = (torch.autograd.grad(value, list(model.parameters())) for value in (loss, plain))
    for one, other, now, then in zip(found, without, model.parameters(), start, strict=True):
        torch.testing.assert_close(one - other, 0.3 * (now - then), atol=1e-6, rtol=1e-4)


def test_a_client_learns_from_its_own_samples_only(tmp_path: Path) -> None:
    known = federation(tmp_path)
    weights = known.model().state_dict()
    trained, figures = train_client(known, weights, 0, 1, 1.0)
    assert figures.keys() == {"train_loss", "train_accuracy"}
    assert any(not torch.equal(trained[name], weights[name]) for name in weights)

    def changed(first: int, end: int) -> bool:
        def blacken(images: np.ndarray) -> None:
            images[first:end] = 0

        other = Federation(CLASSIFICATION, plan(tmp_path, blacken), NETWORK, known.config, known.shards)
        return any(
            not torch.equal(trained[name], weight)
            for name, weight in train_client(other, weights, 0, 1, 1.0)[0].items()
        )

    assert not changed(20, 40)
    assert changed(0, 20)


def test_a_client_repeats_itself_and_no_other(tmp_path: Path) -> None:
    known = federation(tmp_path, range(40), range(40))
    weights = known.model().state_dict()

    def trained(client: int, number: int, scale: float = 1.0, mu: float = 0.0) -> torch.Tensor:
        result, _ = train_client(known, weights, client, number, scale, mu)
        return torch.cat([weight.flatten().float() for weight in result.values()])

    first, start = trained(0, 1), torch.cat([weight.flatten().float() for weight in weights.values()])
    assert torch.equal(first, trained(0, 1))
    assert not torch.equal(first, trained(0, 2))
    assert not torch.equal(first, trained(1, 1))
    way = (first - start).norm()
    assert (trained(0, 1, scale=0.1) - start).norm() < 0.3 * way
    assert (trained(0, 1, mu=5.0) - start).norm() < 0.7 * way
    seeds = {client_seed(seed, number, client) for seed in range(3) for number in range(20) for client in range(20)}
    assert len(seeds) == 1200
    assert max(seeds) < 2**62


def test_the_learning_rate_of_groups_is_scaled_too() -> None:
    groups = [{"parameters": ["*.bias"], "lr": 1.0}, {"parameters": ["*.weight"], "weight_decay": 0.1}]
    config = training(optimizer={"name": "SGD", "lr": 0.2, "groups": groups}).optimizer
    half = scaled(config, 0.2, 0.5)
    assert half.arguments == {"lr": 0.1}
    assert [group.arguments for group in half.groups] == [{"lr": 0.5}, {"weight_decay": 0.1}]


# ---- the server ----------------------------------------------------------------------------------------------------


def telling(known: Federation, sign: float) -> dict[str, torch.Tensor]:
    """Weights that tell dark from light, or with sign -1 are always wrong."""
    weights = {name: torch.zeros_like(tensor) for name, tensor in known.model().state_dict().items()}
    first, last = [name for name, tensor in weights.items() if tensor.ndim == 2]
    weights[first][0], weights[first][1] = 1.0, -1.0
    weights[last][1, 0] = weights[last][0, 1] = sign
    return weights


def test_the_server_measures_the_common_weights_and_keeps_the_best(tmp_path: Path) -> None:
    known = federation(tmp_path, federated={"rounds": 4})
    seen: list[dict[str, float]] = []
    with calling_back(seen.append):
        server = Server(known, TrainingStates(tmp_path / "states"), {})
    for sign in (-1.0, 1.0, -1.0):
        server.begin_round()
        server.end_round(telling(known, sign), {"train_loss": 0.5, "train_accuracy": 0.5}, [0, 1])
    assert seen == server.history
    assert [row["test_accuracy"] for row in server.history] == [0, 1, 0]
    assert [row["val_accuracy"] for row in server.history] == [0, 1, 0]
    assert [(row["epoch"], row["clients"]) for row in server.history] == [(1, 2), (2, 2), (3, 2)]
    assert server.best_round == 2
    (last,) = [name for name, weight in server.best.items() if weight.shape == (2, 8)]
    assert server.best[last][1, 0] == 1
    scaling = [name for name in server.weights if "." not in name]  # which the clients' zeros do not replace
    assert scaling
    assert all(server.weights[name].count_nonzero() for name in scaling)


def test_averages_of_whole_numbers_are_rounded() -> None:
    averages = torch.tensor([2.9999, 7.0001])
    assert _of_its_type(averages, torch.arange(2)).tolist() == [3, 7]
    assert torch.equal(_of_its_type(averages, torch.zeros(2)), averages)


def test_a_weight_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    known = federation(tmp_path)
    weights = telling(known, 1.0)
    next(weight for name, weight in weights.items() if "." in name)[0] = torch.nan
    with pytest.raises(InputError, match="no longer finite"):
        Server(known, TrainingStates(tmp_path / "states"), {}).end_round(weights, {"train_loss": 0.5}, [0])


def test_the_schedule_counts_rounds_and_goes_on_where_it_was(tmp_path: Path) -> None:
    known = federation(tmp_path, federated={"rounds": 4}, scheduler={"name": "CosineAnnealingLR"})
    states = TrainingStates(tmp_path / "states")
    scales = []
    for _ in range(4):
        server = Server(known, states, {"seed": 1})
        number, scale = server.begin_round()
        scales.append(scale)
        server.end_round(telling(known, 1.0 if number == 2 else -1.0), {"train_loss": 1.0}, [0, 1])
    assert scales == pytest.approx([(1 + np.cos(np.pi * step / 4)) / 2 for step in range(4)])
    assert [row["learning_rate"] for row in server.history] == pytest.approx([0.1 * scale for scale in scales])
    again = Server(known, states, {"seed": 1})
    assert (len(again.history), again.best_round) == (4, 2)
    assert all(torch.equal(again.weights[name], weight) for name, weight in server.weights.items())
    assert all(torch.equal(again.best[name], weight) for name, weight in server.best.items())
    with pytest.raises(InputError, match="seed: 1, now 2"):
        Server(known, states, {"seed": 2})


# ---- stages --------------------------------------------------------------------------------------------------------


def test_the_stage_deals_out_what_the_loaders_train_on(tmp_path: Path) -> None:
    loaders = plan(tmp_path).model_copy(update={"data": DataConfig(subset=30)})
    dealt, table, _ = nodes.partition(loaders, PartitionConfig(clients=4))
    assert dealt.arrays["starts"].tolist() == [0, 8, 16, 23, 30]
    chosen: Any = loaders.loader("train").sampler
    assert sorted(dealt.arrays["samples"].tolist()) == sorted(chosen.samples.tolist())
    assert [row["client"] for row in table] == [0, 1, 2, 3]
    assert [row["dark"] + row["light"] for row in table] == [8, 8, 7, 7]
    assert sum(row["dark"] for row in table) == int((chosen.samples % 2 == 0).sum())


def test_a_partition_of_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "find_spec", lambda name: name)
    dealt, *_ = nodes.partition(plan(tmp_path), PartitionConfig(clients=4))
    other = plan(tmp_path, lambda images: images.fill(7))
    with pytest.raises(InputError, match=r"is of other data\. Run the partition stage again"):
        nodes.train(other, dealt, NETWORK, training(), TrainingStates(tmp_path / "states"), problem=CLASSIFICATION)


def test_without_flower_the_line_that_brings_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs flwr and ray.*\n.*uv run --no-dev --extra federated"):
        nodes.build_dataloaders(plan(tmp_path), training(), EvaluateClassifierConfig(), DebuggingConfig())
    with pytest.raises(InputError, match=r"^debugging: .* Take the task beside which this one stands"):
        nodes.build_dataloaders(plan(tmp_path), training(), EvaluateClassifierConfig(), DebuggingConfig(batches=1))


def test_a_federation_is_no_part_of_a_run_of_everything() -> None:
    registered = register_pipelines()
    assert registered["mnist_lenet_federated"].nodes
    assert not [node for node in registered["__default__"].nodes if node.namespace == "mnist_lenet_federated"]


def test_the_report_on_a_federation_and_on_central_training() -> None:
    history = [{"epoch": e, "test_accuracy": a, "val_accuracy": a} for e, a in enumerate([0.5, 0.979, 0.981, 0.97], 1)]
    central = [{"epoch": 1, "val_accuracy": 0.9}]
    report, figure = nodes.compare_rounds(central, {"accuracy": 0.99}, history, {"accuracy": 0.981, "epoch": 3})
    assert report["points"] == pytest.approx(-0.9)
    assert report["round_within_a_point"] == 3
    assert report["last_round_accuracy"] == 0.97
    assert len(figure.axes[0].lines) == 4
    report, _ = nodes.compare_rounds(central, {"accuracy": 1.0}, history, {"accuracy": 0.98, "epoch": 3})
    assert report["round_within_a_point"] is None


# ---- by Flower -----------------------------------------------------------------------------------------------------


def by_flower(test: Any) -> Any:
    here = find_spec("flwr") and find_spec("ray")
    return pytest.mark.long(pytest.mark.skipif(not here, reason="needs the extra federated: see .ci/run")(test))


TASK = "mnist_lenet_federated"
STRATEGY = {"name": "FedProx", "proximal_mu": 0.01}
SMALL: dict[str, Any] = {
    "partition": {"clients": 4},
    "train": {"federated": {"rounds": 3, "fraction": 0.5, "strategy": STRATEGY}, "batch_size": 32},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a small federation, in which mnist_lenet has been trained."""
    project = make_project(tmp_path_factory.mktemp("federated") / "project")
    (project / f"conf/sample/parameters/{TASK}.yml").write_text(json.dumps({TASK: SMALL}))
    kedro_run(project, "mnist_lenet", params={"mnist_lenet": TINY["mnist_lenet"]}, to_nodes=["mnist_lenet.evaluate"])
    return project


def outcome(catalog: DataCatalog) -> tuple[str, list[dict[str, float]]]:
    rows = [
        {k: v for k, v in row.items() if "seconds" not in k and "per_second" not in k}
        for row in catalog.load(f"{TASK}.history")
    ]
    return catalog.load(f"{TASK}.checkpoint").fingerprint(), rows


def descendants(pid: int) -> set[int]:
    """The process and all that it has started."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_and_end(project: Path, ending: signal.Signals) -> None:
    """Run until a round is over, end it, and see that nothing of it is left running."""
    output = project / "output.txt"
    command = [sys.executable, "-m", "kedro", "run", "--env", "sample", "--pipelines", TASK]
    environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1"}
    with output.open("wb") as stream:
        streams: dict[str, Any] = {"stdout": stream, "stderr": stream}
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a shell's background jobs ignore it
        process = subprocess.Popen(command, cwd=project, env=environment, preexec_fn=heard, **streams)
    while "  round " not in output.read_text() and process.poll() is None:
        time.sleep(0.02)
    started = descendants(process.pid)
    process.send_signal(ending)
    assert process.wait(60) != 0, output.read_text()
    until = time.monotonic() + 60
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.1)
    assert len(started) > 3
    assert [pid for pid in started if alive(pid)] == []


@by_flower
def test_a_federation_learns_and_goes_on_after_it_was_killed(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = kedro_run(trained, TASK)
    expected = outcome(catalog)
    assert catalog.load(f"{TASK}.metrics")["accuracy"] > 0.6
    assert [row["clients"] for row in expected[1]] == [2, 2, 2]
    assert catalog.load(f"{TASK}.rounds_report")["rounds"] == 3
    assert "Who has which training samples" in catalog.load(f"{TASK}.report")
    start_and_end(trained, signal.SIGKILL)
    caplog.set_level("INFO", "torchloom")
    caplog.clear()
    assert outcome(kedro_run(trained, TASK, to_nodes=[f"{TASK}.train"])) == expected
    assert "going on from" in caplog.text


class Nodes:
    """In place of Flower's grid: nodes that answer at once, in this process, and in any order."""

    def __init__(self, known: Federation) -> None:
        from flwr.supercore.task_identity import TaskIdentity

        from torchloom.federated.flower import client_app

        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1  # without which no message is made
        self.app = client_app(known)
        names = random.SystemRandom().sample(range(1, 1000), len(known.shards))  # others in each run, as Flower's
        self.clients = {name: client for client, name in enumerate(names)}
        self.replies: list[Any] = []

    def get_node_ids(self) -> list[int]:
        return sorted(self.clients)

    def push_messages(self, messages: Any) -> list[str]:
        from flwr.app import Context, RecordDict

        identifiers = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(number)
            node = message.metadata.dst_node_id
            context = Context(1, node, {"partition-id": self.clients[node]}, RecordDict(), {})
            self.replies.append(self.app(message, context))
            identifiers.append(str(number))
        return identifiers

    def pull_messages(self, identifiers: Any) -> list[Any]:
        random.SystemRandom().shuffle(self.replies)
        return [self.replies.pop() for _ in self.replies[: len(identifiers)]]


def serve(known: Federation, folder: Path) -> Server:
    """All rounds by Flower's strategy, without ray."""
    from torchloom.federated.flower import Clients, serve_rounds

    server = Server(known, TrainingStates(folder), {})
    grid: Any = Nodes(known)
    serve_rounds(Clients(grid, len(known.shards), threading.Event()), known.config, server)
    return server


@by_flower
def test_one_client_alone_is_trained_as_without_a_federation(tmp_path: Path) -> None:
    alone = federation(tmp_path, range(40), federated={"rounds": 3})
    weights = Server(alone, TrainingStates(tmp_path / "none"), {}).weights
    for number in (1, 2, 3):
        weights, _ = train_client(alone, weights, 0, number, 1.0)
    trained = serve(alone, tmp_path / "states").weights
    assert all(torch.equal(trained[name], weight) for name, weight in weights.items())


@by_flower
def test_larger_clients_count_for_more(tmp_path: Path) -> None:
    known = federation(tmp_path, range(10), range(10, 40), federated={"rounds": 1})
    weights = Server(known, TrainingStates(tmp_path / "none"), {}).weights
    parts = [train_client(known, weights, client, 1, 1.0) for client in (0, 1)]
    server = serve(known, tmp_path / "states")
    for name, weight in server.weights.items():
        torch.testing.assert_close(weight, 0.25 * parts[0][0][name] + 0.75 * parts[1][0][name])
    losses = [figures["train_loss"] for _, figures in parts]
    assert server.history[0]["train_loss"] == pytest.approx(0.25 * losses[0] + 0.75 * losses[1])


@by_flower
def test_a_fraction_of_the_clients_is_drawn_anew_in_each_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchloom.federated import flower

    shards = [range(5 * client, 5 * client + 5) for client in range(8)]
    drawn: list[tuple[int, int, float]] = []

    def note(known: Federation, weights: Any, client: int, number: int, scale: float, mu: float) -> Any:
        drawn.append((number, client, mu))
        result = train_client(known, weights, client, number, scale, mu)
        random.seed()  # which clients do not do for the server when they are in other processes
        return result

    monkeypatch.setattr(flower, "train_client", note)
    settings = {"rounds": 4, "fraction": 0.5, "strategy": {"name": "FedProx", "proximal_mu": 0.25}}
    known = federation(tmp_path, *shards, federated=settings)
    first = serve(known, tmp_path / "first")
    assert [row["clients"] for row in first.history] == [4, 4, 4, 4]
    assert {mu for *_, mu in drawn} == {0.25}
    chosen = [{client for number, client, _ in drawn if number == asked} for asked in (1, 2, 3, 4)]
    assert [len(clients) for clients in chosen] == [4, 4, 4, 4]
    assert any(clients != chosen[0] for clients in chosen)
    before, drawn[:] = list(drawn), []
    again = serve(known, tmp_path / "again")
    assert sorted(drawn) == sorted(before)
    assert all(torch.equal(again.weights[name], weight) for name, weight in first.weights.items())


@by_flower
def test_a_clients_mistake_ends_the_run_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"client [01]: the loss became nan"):
        serve(federation(tmp_path, optimizer={"name": "SGD", "lr": 1e30}), tmp_path / "states")
