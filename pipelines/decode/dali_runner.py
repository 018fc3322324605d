"""Runner of a DALI graph: batch by batch, and sample by sample if a batch holds one that DALI cannot decode.

Encoded bytes and numbers in, uint8 pixels with leading axis B out, one tensor for each output of the graph.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines.decode.base import Decoded, fill_failed

__all__ = ["DaliRunner", "decode_with"]

Encoded = Sequence[npt.NDArray[np.uint8]]
Numbers = Mapping[str, npt.NDArray[np.int32]]
"""Inputs of a graph beside the bytes, by name; every array has leading axis B."""


class DaliRunner:
    """Runner of one graph, which is built for the largest batch seen so far."""

    def __init__(
        self,
        graph: Callable[[], tuple[Any, ...]],
        shapes: Sequence[tuple[int, ...]],
        device: torch.device,
        num_threads: int,
        pipeline_class: Callable[..., Any],
    ) -> None:
        """`shapes`: of one sample in each of the graph's outputs. `pipeline_class`: DALI's `Pipeline`."""
        self.shapes, self.device = shapes, device
        self._graph, self._num_threads, self._pipeline_class = graph, num_threads, pipeline_class
        self._pipeline: Any = None
        self._max_batch_size = 0
        self._held: deque[Encoded] = deque(maxlen=2)

    def run(self, encoded: Encoded, numbers: Numbers) -> list[torch.Tensor]:
        """Return pixels with leading axis B, by output. Raises RuntimeError if DALI cannot decode a sample."""
        if self._pipeline is None or len(encoded) > self._max_batch_size:
            self._build(len(encoded))
        self._pipeline.feed_input("encoded", list(encoded))
        for name, value in numbers.items():
            self._pipeline.feed_input(name, np.ascontiguousarray(value, np.int32))
        # DALI does not copy the bytes (`no_copy`), so they must outlive a run that may still be on the GPU: this one
        # and the one before.
        self._held.append(encoded)
        try:
            # In the order of torch's stream and not of this thread: the next batch is read, and its decoding begins,
            # while the GPU resizes this one (not measured on a GPU).
            is_gpu = self.device.type == "cuda"
            outputs = self._pipeline.run(torch.cuda.current_stream(self.device)) if is_gpu else self._pipeline.run()
        except RuntimeError:
            self._pipeline = None  # DALI declares a pipeline that has failed unusable
            raise
        for output, needed in zip(outputs, self.shapes, strict=True):
            odd = next((shape for shape in output.shape() if tuple(shape) != needed), None)
            if odd is not None:  # a clip with too few frames comes out shorter, without an error
                raise RuntimeError(f"gives {tuple(odd)}, need {needed}")
        return [torch.utils.dlpack.from_dlpack(output.as_tensor()) for output in outputs]

    def _build(self, batch_size: int) -> None:
        # A graph cannot grow: for a larger batch it is built anew, for a smaller one it is not.
        self._max_batch_size = max(batch_size, self._max_batch_size)
        self._pipeline = self._pipeline_class(
            batch_size=self._max_batch_size,
            num_threads=self._num_threads,
            device_id=self.device.index if self.device.type == "cuda" else None,
            prefetch_queue_depth=1,
            exec_dynamic=True,
        )
        with self._pipeline:
            self._pipeline.set_outputs(*self._graph())
        self._pipeline.build()


def decode_with(
    runner: DaliRunner, encoded: Sequence[memoryview], numbers: Numbers, failures: list[tuple[int, str]]
) -> tuple[Decoded, ...]:
    """Decode a batch: uint8 pixels, one `Decoded` for each output of the graph.

    `failures`: samples that are known to be bad; DALI does not get them.
    """
    arrays, failed = [np.frombuffer(one, np.uint8) for one in encoded], dict(failures)
    good = [index for index in range(len(arrays)) if index not in failed]
    try:
        outputs = _run(runner, arrays, numbers, good)
    except RuntimeError:
        # DALI fails a whole batch for one bad sample and does not say which: one at a time finds it.
        outputs, reasons = _run_singly(runner, arrays, numbers, good)
        failed |= reasons
        good = [index for index in good if index not in reasons]
    failures = sorted(failed.items())
    if failed:
        outputs = [_filled(pixels, len(arrays), good, list(failed)) for pixels in outputs]
    return tuple(Decoded(pixels=pixels, failures=failures) for pixels in outputs)


def _filled(pixels: torch.Tensor, num_rows: int, good: list[int], failed: list[int]) -> torch.Tensor:
    """Return all rows, the failed ones filled with good ones."""
    whole = pixels.new_empty((num_rows, *pixels.shape[1:]))
    whole[good] = pixels
    fill_failed(whole, failed)
    return whole


def _run(runner: DaliRunner, arrays: Encoded, numbers: Numbers, indices: list[int]) -> list[torch.Tensor]:
    if not indices:
        return [torch.empty((0, *shape), dtype=torch.uint8, device=runner.device) for shape in runner.shapes]
    chosen = {name: value[indices] for name, value in numbers.items()}
    return runner.run([arrays[index] for index in indices], chosen)


def _run_singly(
    runner: DaliRunner, arrays: Encoded, numbers: Numbers, indices: list[int]
) -> tuple[list[torch.Tensor], dict[int, str]]:
    rows, reasons = [_run(runner, arrays, numbers, [])], {}
    for index in indices:
        try:
            rows.append(_run(runner, arrays, numbers, [index]))
        except RuntimeError as error:
            reasons[index] = _reason(error)
    return [torch.cat(parts) for parts in zip(*rows, strict=True)], reasons


def _reason(error: RuntimeError) -> str:
    """Return the cause from DALI's message, where it follows "encountered:" after a traceback of the graph."""
    cause = str(error).partition("encountered:")[2] or str(error)
    return " ".join(cause.replace("Current pipeline object is no longer valid.", "").split())[:200]
