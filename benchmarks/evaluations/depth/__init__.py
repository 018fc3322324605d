"""Depth prediction: RGB and measured depth come in, the trunk is fine-tuned, errors in meters and percent go out."""
