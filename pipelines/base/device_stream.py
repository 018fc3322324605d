"""A stream of a GPU: what is started in it runs beside training's work there. On a CPU it does nothing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

__all__ = ["DeviceStream", "current_stream"]


class DeviceStream:
    """One stream of work, which any thread may add to. Work in it runs in the order in which it was started."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def work(self) -> Iterator[None]:
        """Start what is inside in this stream instead of in the thread's own."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    @contextmanager
    def work_between(self, given: Iterable[torch.Tensor]) -> Iterator[None]:
        """Do the same with tensors of the thread's own stream, which afterwards waits for what was started inside."""
        if self._stream is None:
            yield
            return
        before = torch.cuda.current_stream(self._device)
        # The memory of these tensors must not be given to others while this stream reads it.
        for tensor in given:
            tensor.record_stream(self._stream)
        self._stream.wait_stream(before)
        with self.work():
            yield
        before.wait_stream(self._stream)

    def mark(self) -> torch.cuda.Event | None:
        """Return a mark behind all that was started so far; None on a CPU."""
        if self._stream is None:
            return None
        mark: torch.cuda.Event = self._stream.record_event()
        return mark

    def hand_over(self, tensors: Iterable[torch.Tensor], mark: torch.cuda.Event | None) -> None:
        """Let the thread's own stream wait until `mark` is reached, and use the tensors from there on.

        The host does not wait. Only up to the mark: the stream may hold the work of later steps already.
        """
        if self._stream is None or mark is None:
            return
        torch.cuda.current_stream(self._device).wait_event(mark)
        self.keep(tensors)

    def keep(self, tensors: Iterable[torch.Tensor]) -> None:
        """Keep the memory of tensors made in this stream until the thread's own stream has read them."""
        # Of a pipeline on a GPU, one kind of sample may be made on the CPU.
        for tensor in tensors:
            if self._stream is not None and tensor.is_cuda:
                tensor.record_stream(torch.cuda.current_stream(self._device))


def current_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return the stream that this thread's work on a device is started in; None for a CPU."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None
