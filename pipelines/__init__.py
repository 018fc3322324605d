"""Bytes to batches: photos and videos come in, the inputs and targets of the pretext tasks go out.

`build_pipeline` (build.py) and `PipelineConfig` (pipeline_config.py) are what other packages start from.
"""
