from torchloom.pipelines.federation.pipeline import create_pipeline

__all__ = ["APART", "create_pipeline"]

APART = True  # Flower asks for older packages than all else, and so for an environment of its own
