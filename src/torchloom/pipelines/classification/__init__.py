from torchloom.pipelines.classification.pipeline import create_pipeline

__all__ = ["create_pipeline"]
