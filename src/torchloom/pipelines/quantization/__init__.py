from torchloom.pipelines.quantization.pipeline import create_pipeline

__all__ = ["create_pipeline"]
