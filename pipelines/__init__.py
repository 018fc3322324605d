"""Pipelines, from bytes to batches: photos and videos come in, inputs and targets of the pretext tasks go out.

Start with `build_pipeline` (build.py) and `PipelineConfig` (pipeline_config.py).
"""
