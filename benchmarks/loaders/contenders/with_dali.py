"""DALI on the CPU, alone: decoding and nothing else (the limit that pipelines are measured by), or with a resize."""

from collections.abc import Generator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from pipelines.decode.dali import require_dali

__all__ = ["dali_loader"]

Batches = Generator[Any, None, None]


def dali_loader(encoded: Sequence[bytes], batch_size: int, num_threads: int, resize_px: int | None) -> Batches:
    """Batches without end of the images as they are, or of `resize_px` squares of them, from bytes in memory."""
    dali: Any = require_dali()
    fn, types = dali.fn, dali.types
    arrays = cycle([np.frombuffer(one, np.uint8) for one in encoded])

    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=num_threads, device_id=None)
    with pipeline:
        source = fn.external_source(lambda: list(islice(arrays, batch_size)), batch=True, no_copy=True)
        images = fn.decoders.image(source, device="cpu", output_type=types.RGB)
        if resize_px is not None:
            images = fn.resize(images, size=[resize_px, resize_px], antialias=True, interp_type=types.INTERP_LINEAR)
        pipeline.set_outputs(images)
    pipeline.build()
    while True:
        yield pipeline.run()
