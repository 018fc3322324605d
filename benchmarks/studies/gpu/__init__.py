"""What a GPU owner runs once: is the GPU path right, and how fast is it? Writes one JSON."""
