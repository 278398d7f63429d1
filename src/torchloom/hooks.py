"""What Kedro calls around a run: parameters are checked before it, and all else is the run's; see records/running.py.

Each command imports this module, so what only runs need is imported within the functions.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines

from torchloom.config import own
from torchloom.config.checks import check_parameters
from torchloom.config.entries import is_task, namespaces_in
from torchloom.config.loader import ConfigLoader, check_entries, credentials_of, read_parameters
from torchloom.errors import InputError, is_news
from torchloom.system.addresses import addresses_in
from torchloom.system.locks import command
from torchloom.system.notebooks import after_each_cell, log_as_the_project_says, shell
from torchloom.system.processes import check_beginning
from torchloom.tasks import all_blocks, readers_of, start_of

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

    from torchloom.records.running import Run

logger = logging.getLogger(__name__)


class ProjectHooks:
    def __init__(self) -> None:
        self.run: Run | None = None
        self.context: KedroContext | None = None
        atexit.register(self.interrupted)
        after_each_cell(self.interrupted)

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check every parameter of every task; Kedro itself ignores unknown tasks and blocks."""
        log_as_the_project_says(Path(context.config_loader.conf_source))
        logging.getLogger("kedro.pipeline.node").addFilter(_is_news)
        loader = context.config_loader
        if isinstance(loader, ConfigLoader):
            loader.check_files()
        parameters = read_parameters(context.config_loader)
        inputs = {name for pipeline in pipelines.values() for name in pipeline.inputs()}
        read = {name.removeprefix("params:").partition(".")[0] for name in inputs if name.startswith("params:")}
        inherited = loader.inherited if isinstance(loader, ConfigLoader) else lambda _: None
        check_parameters(parameters, all_blocks(), read, inherited)
        models = {name: _from_here(parameters[name], context.project_path) for name in ("predict", "serve")}
        sweep = {**parameters["sweep"], "environment": context.env}
        context.config_loader["parameters"] = {**parameters, **models, "sweep": sweep}
        self.context = context
        if sys.argv[1:2] == ["mlflow"]:  # a command of kedro-mlflow
            from torchloom.records.tracking import open_mlflow

            open_mlflow(context)

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Tell the entries of files at an address which that is, and by which credentials, and those of files that
        tasks start from which these are."""
        assert self.context is not None
        loader = self.context.config_loader
        parameters = read_parameters(loader)
        blocks = {f"{name}.preprocess": parameters[name]["preprocess"] for name in readers_of(parameters)}
        for key, block in {**blocks, "predict": parameters["predict"]}.items():
            if addresses := addresses_in(block):
                owner, _, kind = key.partition(".")
                options = credentials_of(loader, block.get("credentials"), f"{key}.credentials")
                catalog.load(f"{owner}_remote" if kind else f"{owner}.remote").told(kind or owner, addresses, options)
        for name, block in parameters.items():
            if is_task(name, block) and (start := start_of(block)):
                entry: Any = catalog.get(f"{name}.start_checkpoint")
                entry.told(start, self.context.project_path)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        check_beginning()
        self._finish("interrupted")  # one before it in this process, of which nothing was heard any more
        assert self.context is not None
        check_entries(self.context.config_loader, catalog, sorted(pipeline.datasets()))
        if {node.namespace for node in pipeline.nodes} & namespaces_in(self.context.params):
            from torchloom.records.running import Run

            self.run = Run(run_params, pipeline, catalog, self.context)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        if self.run:
            self.run.begin(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        if self.run:
            self.run.saved(dataset_name, node)

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """What the user's own code raises is told as such, in one message."""
        if told := own.explained(error, node.name, self.run.records.names(node) if self.run else ()):
            raise told from error
        if isinstance(error, InputError) and (full := _in_full(error.message, node)) != error.message:
            raise InputError(full) from error.__cause__

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        self._finish("failed", error=str(error))
        if error.__cause__:
            logger.debug("the whole way to the error", exc_info=error.__cause__)
        if not isinstance(error, InputError) and isinstance(error.__cause__, InputError):
            # the catalog wraps what goes wrong while it saves
            raise error.__cause__

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Say what the run made and where it lies."""
        if self.run:
            lines = self.run.summary()
            self._finish("finished")
            logger.info("\n".join(lines))

    def interrupted(self) -> None:
        """When the process, or a notebook's cell, ends in the middle of a run: by Ctrl-C, or by what else is no mistake
        of the run's own."""
        if self.run:
            again = "the same cell" if shell() else re.sub(r"(\.train\.resume)=never", r"\1=auto", command())
            self._finish("interrupted")
            logger.warning(
                "interrupted. What is finished stays, and training goes on from its last state with:\n%s", again
            )

    def _finish(self, ended: str, **more: Any) -> None:
        if self.run:
            run, self.run = self.run, None
            run.finish(ended, **more)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the log about an error says what no message will say."""
    error = sys.exc_info()[1]
    return is_news(record) and not (record.levelno >= logging.ERROR and error and own.explained(error, "", own.named()))


def _in_full(message: str, node: Node) -> str:
    """A message that begins with a key of one of the task's blocks, by its full key: a run has many tasks."""
    blocks = {key.partition(".")[2] for key in all_blocks() if key.partition(".")[0] == node.namespace}
    first = re.match(r"\w+(?=[.:])", message)
    return f"{node.namespace}.{message}" if first and first[0] in blocks else message


def _from_here(block: dict[str, Any], project: Path) -> dict[str, Any]:
    """The folder `models` of the project as a process that works below it, or elsewhere, reaches it."""
    if Path(block["models"]).is_absolute():
        return block
    return {**block, "models": os.path.relpath(project / block["models"])}
