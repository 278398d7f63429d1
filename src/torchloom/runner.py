"""A runner for `kedro run --runner torchloom.runner.SkipUnchanged`."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from torchloom.records.provenance import records_of


class SkipUnchanged(SequentialRunner):
    """Runs a node only when it would make other outputs than those that are there.

    A node is skipped when its parameters, its code, the versions of its packages and the contents of its inputs are
    those that made its outputs, and these are as it wrote them. See torchloom/records/provenance.py.
    """

    def _run(self, pipeline: Pipeline, catalog: Any, hook_manager: Any = None, run_id: str | None = None) -> None:
        records = records_of(catalog)
        for node in pipeline.nodes:
            known = node.namespace in records.namespaces
            reasons = records.stale(node, catalog) if known else ["is your own, of which no records are kept"]
            if reasons:
                self._logger.info("%s: %s", node.name, "; ".join(reasons))
                super()._run(Pipeline([node]), catalog, hook_manager, run_id)
            else:
                self._logger.info("Skipping node: %s: nothing has changed", node.name)
