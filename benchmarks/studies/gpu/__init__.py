"""Check of a GPU, run once by its owner: is the GPU path right, and how fast is it? Writes one JSON."""
