from torchloom.pipelines.federated.pipeline import create_pipeline

__all__ = ["create_pipeline"]
