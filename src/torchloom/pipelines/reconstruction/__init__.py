from torchloom.pipelines.reconstruction.pipeline import create_pipeline

__all__ = ["create_pipeline"]
