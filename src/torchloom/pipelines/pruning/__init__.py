from torchloom.pipelines.pruning.pipeline import create_pipeline
from torchloom.problems.classification import Classification

__all__ = ["PARENT", "create_pipeline"]

PARENT = Classification  # what the models must be for that it starts from
