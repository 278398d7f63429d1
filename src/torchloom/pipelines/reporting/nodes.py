"""The stage that reports on all others of a task. What it needs is imported when it runs, as in all stages."""

from __future__ import annotations

import logging
from typing import Any

from torchloom.datasets.raw import Source
from torchloom.records.provenance import Lineage
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)


def report(
    lineage: Lineage, checkpoint: Checkpoint, dataloaders: LoaderPlan, source: Source | None = None, **made: Any
) -> tuple[str, str]:
    """The page on a task, and the card of its model; `made` is what else its stages have made, by name."""
    from torchloom.reporting.card import model_card
    from torchloom.reporting.page import png
    from torchloom.reporting.report import Subject, task_page

    # what the catalog would give: of a figure that it does not know, and so has not kept, the bytes of a PNG file
    made = {name: png(content) if hasattr(content, "savefig") else content for name, content in made.items()}
    subject = Subject(lineage, checkpoint, dataloaders, source, made)
    return task_page(subject), model_card(subject)
