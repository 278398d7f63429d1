from torchloom.pipelines.federation.pipeline import create_pipeline
from torchloom.problems.classification import Classification

__all__ = ["APART", "PARENT", "create_pipeline"]

APART = True  # Flower asks for older packages than all else, and so for an environment of its own
PARENT = Classification  # what the models must be for that it starts from
