"""Federated training by Flower: its strategies at the server, its simulation of the clients, which ray runs.

The clients train in a few processes of their own, in turns. What Flower draws by chance or leaves to the order of
arrival is put in order here, so that a training can be repeated.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torchloom.errors import InputError
from torchloom.federated.federation import Federation, Server, train_client
from torchloom.problems.classification.config import FederatedTrainConfig
from torchloom.system.devices import usable_cores
from torchloom.system.progress import step_bar

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp.grid import Grid
    from flwr.serverapp.strategy import FedAvg

SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers are not started by another `uv run`
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",  # ray listens at all of the machine's addresses
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # after kill -9, until ray's helpers give up and end
}
PAUSE = 0.05  # seconds between two looks for replies


def run_rounds(federation: Federation, server: Server) -> None:
    """Train round by round until all are over; what comes of each is in `server`.

    Raises InputError when a client does, and KeyboardInterrupt when the run is told to stop. No process is left behind.
    """
    config, count = federation.config, len(federation.shards)
    if len(server.history) == config.federated.rounds:
        return
    os.environ.update(SETTINGS)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # ray reads it once in a process
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    over = threading.Event()
    server_app = ServerApp()

    def serve(grid: Grid, context: Context) -> None:  # noqa: ARG001
        serve_rounds(Clients(grid, count, over), config, server)

    server_app.main()(serve)
    gpus = 1 if server.device.type == "cuda" else 0
    processes = config.federated.processes or (1 if gpus else max(1, usable_cores() // config.threads))
    resources: Any = {"client_resources": {"num_cpus": 1, "num_gpus": gpus / processes}}
    with ray_running(processes, gpus):
        try:
            run_simulation(server_app, client_app(federation), count, backend_config=resources)
        finally:
            over.set()


@contextmanager
def ray_running(processes: int, gpus: int) -> Iterator[None]:
    """Ray with so many processors, for a process each, all of which end with this block, on Ctrl-C or SIGTERM too."""
    import ray

    short = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108 - paths of sockets have a hundred letters at most
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in signals}
    with tempfile.TemporaryDirectory(prefix="ray-", dir=short) as folder:
        try:
            settings: Any = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
            ray.init(num_cpus=processes, num_gpus=gpus, _temp_dir=folder, **settings)
            for number in signals:  # after ray, which has a handler of its own
                signal.signal(number, _stop)
            yield
        finally:
            ray.shutdown()
            for number, handler in before.items():
                signal.signal(number, handler)


def _stop(*_: Any) -> None:
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # it reports each client that ends now
    raise KeyboardInterrupt


# ---- the server ----------------------------------------------------------------------------------------------------


class Clients:
    """Flower's grid, with the nodes in the order of the clients' numbers. What waits for replies ends with the run."""

    def __init__(self, grid: Grid, count: int, over: threading.Event) -> None:
        from flwr.app import Message, RecordDict

        self.grid, self.over = grid, over
        while len(list(grid.get_node_ids())) < count:
            self.wait()
        self.numbers: dict[int, int] = {}
        for reply in self.ask(Message(RecordDict(), node, "query") for node in grid.get_node_ids()):
            self.numbers[reply.metadata.src_node_id] = int(reply.content["metrics"]["client"])

    def get_node_ids(self) -> list[int]:
        """For Flower's strategies, which draw from them by their place."""
        return sorted(self.numbers, key=self.numbers.__getitem__)

    def number(self, message: Message) -> int:
        """Of the client that it comes from."""
        return self.numbers.get(message.metadata.src_node_id, 0)

    def ask(self, messages: Iterable[Message]) -> list[Message]:
        """The replies, by the clients' numbers: sums of floats depend on the order."""
        waiting, replies = set(self.grid.push_messages(messages)), []
        while waiting:
            for reply in self.grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                self.check(reply)
                replies.append(reply)
            if waiting:
                self.wait()
        return sorted(replies, key=self.number)

    def check(self, reply: Message) -> None:
        if reply.has_error():
            raise RuntimeError(f"client {self.number(reply)}: {reply.error.reason}")
        if "error" in reply.content:
            raise InputError(f"client {self.number(reply)}: {reply.content['error']['message']}")

    def wait(self) -> None:
        if self.over.wait(PAUSE):
            raise RuntimeError("the run is over")


def serve_rounds(clients: Clients, config: FederatedTrainConfig, server: Server) -> None:
    """What the server does: in each round it asks some of the clients to train, and averages what they send back."""
    from flwr.app import ArrayRecord, ConfigRecord

    strategy, rounds = create_strategy(config), config.federated.rounds
    grid: Any = clients
    with step_bar() as bar:
        task = bar.add_task("rounds", total=rounds, completed=len(server.history), status="")
        while len(server.history) < rounds:
            number, scale = server.begin_round()
            random.seed(f"{config.seed} {number}")  # which Flower draws the clients of the round from
            asked = strategy.configure_train(number, ArrayRecord(server.weights), ConfigRecord({"scale": scale}), grid)
            replies = clients.ask(asked)
            arrays, figures = strategy.aggregate_train(number, replies)
            assert arrays is not None
            assert figures is not None
            chosen = [clients.number(reply) for reply in replies]
            server.end_round(dict(arrays.to_torch_state_dict()), dict(figures), chosen)
            bar.update(task, completed=number, status=f"test accuracy {server.history[-1]['test_accuracy']:.4f}")


def create_strategy(config: FederatedTrainConfig) -> FedAvg:
    from flwr.serverapp import strategy

    chosen = config.federated.strategy
    arguments = {} if chosen.proximal_mu is None else {"proximal_mu": chosen.proximal_mu}
    counts = {"min_train_nodes": 1, "min_available_nodes": 1}
    created: FedAvg = getattr(strategy, chosen.name)(config.federated.fraction, **counts, **arguments)
    return created


# ---- clients -------------------------------------------------------------------------------------------------------


def client_app(federation: Federation) -> ClientApp:
    """What each client answers to: which one it is, and what training on its own samples makes of some weights."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def tell(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"client": int(context.node_config["partition-id"])})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def train(message: Message, context: Context) -> Message:
        client, settings = int(context.node_config["partition-id"]), message.content.config_records["config"]
        weights = message.content.array_records["arrays"].to_torch_state_dict()
        given: list[Any] = [settings["server-round"], settings["scale"], settings.get("proximal-mu", 0.0)]
        try:
            trained, figures = train_client(federation, weights, client, *given)
        except InputError as error:
            return Message(RecordDict({"error": ConfigRecord({"message": error.message})}), reply_to=message)
        metrics = MetricRecord({**figures, "num-examples": len(federation.shards[client])})
        return Message(RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics}), reply_to=message)

    app.query()(tell)
    app.train()(train)
    return app
