"""A device named "cuda" that computes on the CPU: what runs on a GPU runs here without one, with real values.

Tensors on it are wrappers that say they lie on cuda:0 and hold a CPU tensor. As on a GPU, `.numpy()` and operations
that mix devices are errors. Every read of a value by the host is counted in `reads` and, inside `no_reads()`, an error.
Not there: DALI's GPU graphs (its CPU graphs take their place), the flow unit, streams that really run beside each
other.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
READERS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.equal, aten.is_nonzero}
"""Operations whose result, or its shape, the host waits for."""
MIXING = {aten._to_copy, aten.copy_, aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_}
"""Operations that take tensors of two devices on a GPU, too."""


class DeviceTensor(torch.Tensor):
    """A tensor on the stand-in. `held`: the CPU tensor with its values."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "DeviceTensor":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("cuda", 0),
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"DeviceTensor({self.held!r})"

    def record_stream(self, stream: Any) -> None:
        StandIn.active().kept.append(self.numel())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return StandIn.active().run(func, args, kwargs or {})


class StandIn(TorchDispatchMode):
    """The device. reads: names of the operations that made the host wait, in order. kept: numbers of elements of the
    tensors whose memory another stream was to keep."""

    _stack: ClassVar[list["StandIn"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.kept: list[int] = []
        self._is_strict = False

    @classmethod
    def active(cls) -> "StandIn":
        return cls._stack[-1]

    @contextmanager
    def no_reads(self) -> Iterator[None]:
        """Make every read by the host an error."""
        self._is_strict = True
        try:
            yield
        finally:
            self._is_strict = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        # 1. Who takes part, and where the result belongs.
        packet, flat = func.overloadpacket, tree_flatten((args, kwargs))[0]
        ours = [one for one in flat if isinstance(one, DeviceTensor)]
        wanted = kwargs.get("device")
        wanted = torch.device(wanted) if wanted is not None else None
        to_device = bool(ours) if wanted is None else wanted.type == "cuda"
        if packet is aten.copy_:
            to_device = isinstance(args[0], DeviceTensor)
        # 2. What a GPU refuses, and what waits for it.
        if ours and packet not in MIXING:
            strangers = [one for one in flat if type(one) is torch.Tensor and one.device.type == "cpu" and one.dim()]
            if strangers:
                raise RuntimeError(f"{func}: expected all tensors to be on the same device, found cuda:0 and cpu")
        if ours and (packet in READERS or not to_device or _has_mask(packet, args)):
            self.reads.append(str(func))
            if self._is_strict:
                raise RuntimeError(f"{func}: the host waits for the device")
        # 3. Compute on the CPU. An argument that comes back is the same tensor, so that in-place operations work.
        wrappers = {id(one.held): one for one in ours}
        plain = {name: one for name, one in kwargs.items() if name not in ("device", "pin_memory", "non_blocking")}
        if wanted is not None:
            plain["device"] = torch.device("cpu") if to_device else wanted
        args, plain = tree_map(lambda one: one.held if isinstance(one, DeviceTensor) else one, (args, plain))
        if packet in (aten._pin_memory, aten.pin_memory):
            return args[0].clone()
        if packet is aten.is_pinned:
            return False
        result = func(*args, **plain)

        def placed(one: Any) -> Any:
            if not isinstance(one, torch.Tensor) or not to_device:
                return one
            return wrappers.get(id(one)) if id(one) in wrappers else DeviceTensor(one)

        return tree_map(placed, result)


def _has_mask(packet: Any, args: Any) -> bool:
    """Whether it indexes with a mask on the device: how many values that gives, only the device knows."""
    indices = args[1] if packet is aten.index else ()
    return any(isinstance(one, DeviceTensor) and one.dtype == torch.bool for one in indices)


class Numbered(TorchFunctionMode):
    """Name the device "cuda:0" wherever a call says "cuda": torch would ask the driver for the number."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cuda:
            return args[0].to(torch.device("cuda", 0))
        if func is torch.Tensor.pin_memory:
            return args[0].clone()
        if func is torch.tensor and (kwargs or {}).get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(_numbered, (args, kwargs or {}))
        # Those that take numbers of Python start the driver before any operation.
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        if func is torch.Tensor.new_tensor and isinstance(args[0], DeviceTensor):
            return torch.tensor(args[1], dtype=args[0].dtype).to(args[0].device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], DeviceTensor):
            args = (args[0], tree_map(_listed, args[1], is_leaf=lambda one: isinstance(one, list)), *args[2:])
        return func(*args, **kwargs)


def _listed(one: Any) -> Any:
    """Return an index that is a list of numbers as a tensor, as torch would make it on the device."""
    return torch.tensor(one, dtype=None if one else torch.int64) if isinstance(one, list) else one


def _numbered(one: Any) -> Any:
    is_unnumbered = (isinstance(one, torch.device) and one.type == "cuda" and one.index is None) or (
        isinstance(one, str) and one == "cuda"
    )
    return torch.device("cuda", 0) if is_unnumbered else one


class NoStream:
    """Stream or event of the stand-in, on which everything is done at once. waited_for: streams and events."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self.waited_for: list[Any] = []

    def wait_stream(self, other: Any) -> None:
        self.waited_for.append(other)

    wait_event = wait_stream

    def record_event(self, event: Any = None) -> Any:
        return event or NoStream()

    def record(self, _: Any = None) -> None: ...

    def wait(self, _: Any = None) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True


@contextmanager
def stand_in_device(monkeypatch: Any) -> Iterator[StandIn]:
    """Put the stand-in in the place of the GPU, in this thread and in those that start meanwhile."""
    device, current = StandIn(), NoStream()
    # 1. What torch asks about a GPU.
    found = SimpleNamespace(name="stand-in", total_memory=1 << 34, major=9, minor=0, multi_processor_count=1)
    answers = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "synchronize": lambda *_: None,
        "current_stream": lambda *_: current,
        "default_stream": lambda *_: current,
        "stream": lambda _: nullcontext(),
        "Stream": NoStream,
        "Event": NoStream,
        "get_device_name": lambda *_: found.name,
        "get_device_properties": lambda *_: found,
        "is_bf16_supported": lambda *_, **__: True,
        "max_memory_allocated": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "set_sync_debug_mode": lambda mode: setattr(device, "_is_strict", mode == "error"),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    # 2. Threads: a mode holds in the thread that entered it.
    run = threading.Thread.run

    def run_inside(thread: threading.Thread) -> None:
        with Numbered(), device:
            run(thread)

    monkeypatch.setattr(threading.Thread, "run", run_inside)
    _place_dali(monkeypatch)
    # 3. From here on. Guards that would call the driver do nothing, as for tensors without values.
    torch._C._ensureCUDADeviceGuardSet()
    StandIn._stack.append(device)
    try:
        with Numbered(), device:
            yield device
    finally:
        StandIn._stack.pop()


def _place_dali(monkeypatch: Any) -> None:
    """Let DALI's CPU graphs decode; pixels are copied to the device afterwards."""
    from pipelines.decode.dali import DaliBackend

    build = DaliBackend.__init__

    def on_cpu(backend: Any, *, device: torch.device, num_threads: int) -> None:
        build(backend, device=torch.device("cpu"), num_threads=num_threads)

    monkeypatch.setattr(DaliBackend, "__init__", on_cpu)
