"""Count the arithmetic and the memory traffic of motion masks on a device, and what a GPU could reach at most.

    python -m benchmarks.studies.motion.device_cost --out device-cost.json

Nothing is computed: the chain runs once for each batch size, on tensors of a GPU that have no values and need no GPU
(on CPU tensors Kornia takes other ways, of more operations). An operation reads its inputs from memory and writes its
outputs there; nothing is fused, and views cost nothing. Convolutions, products and solves are counted by torch's
formulas, everything else as one operation for each value that it reads or writes, whichever are more. The bounds are
those of an H200 by NVIDIA's data sheet, and a launch of 5 us an operation. A host copy is a constant copied to the
device; the host waits for each, and a CUDA graph, which would save the launches, allows none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.harness.study import Study, say
from pipelines.decode.clip_planes import NUM_CHOSEN, NUM_COLORS
from pipelines.targets.motion.device.batched_masks import mask_clips

__all__ = ["STUDY", "Cost", "bounds_of", "cost_of"]

H200_BYTES_PER_S = 4.8e12
H200_FLOP_PER_S = 67e12
"""Of float32, without tensor cores."""
LAUNCH_S = 5e-6

aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_}
FREE = {aten.detach, aten.empty, aten.empty_like, aten.new_empty, aten.lift_fresh, aten._unsafe_view}
"""Operations that launch nothing, besides views."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions:
    """Sizes of clips and batches."""

    batch_sizes: Annotated[tuple[int, ...], "clips of a batch"] = (1, 16, 64)
    height_px: Annotated[int, "of a clip"] = 240
    width_px: Annotated[int, "of a clip"] = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one call: floating-point operations, bytes read and written, operations of torch that are no view, and copies
    from the host's memory."""

    flop: float
    traffic_bytes: int
    num_operations: int
    num_host_copies: int = 0


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop, self.traffic_bytes, self.num_operations, self.num_host_copies = 0.0, 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func.overloadpacket in FREE or func.namespace == "prim":
            return result
        self.num_host_copies += func.overloadpacket in COPIES and _is_from_host((args, kwargs), result)
        read, written = _values_of((args, kwargs)), _values_of(result)
        self.num_operations += 1
        self.traffic_bytes += sum(number * size for number, size in read + written)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flop += formula(*args, **kwargs, out_val=result)
        else:
            self.flop += max(sum(number for number, _ in one) for one in (read, written))
        return result


def _is_from_host(given: Any, result: torch.Tensor) -> bool:
    sources = [one.device.type for one in tree_leaves(given) if isinstance(one, torch.Tensor)]
    return "cpu" in sources and result.device.type == "cuda"


def _values_of(tree: Any) -> list[tuple[int, int]]:
    """Return how many different values each tensor has, and the bytes of one."""
    tensors = [one for one in tree_leaves(tree) if isinstance(one, torch.Tensor)]
    return [(_num_values(one), one.element_size()) for one in tensors]


def _num_values(tensor: torch.Tensor) -> int:
    # An expanded axis shows the same memory again.
    number = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        number *= size if stride or not size else 1
    return number


def cost_of(call: Callable[[], object]) -> Cost:
    """Count one call."""
    with _Counter() as counter:
        call()
    return Cost(
        flop=counter.flop,
        traffic_bytes=counter.traffic_bytes,
        num_operations=counter.num_operations,
        num_host_copies=counter.num_host_copies,
    )


def bounds_of(cost: Cost, batch_size: int) -> dict[str, float]:
    """Return clips/s that an H200 cannot exceed by memory, by arithmetic, and by launches one after the other."""
    return {
        "by_memory_per_s": batch_size * H200_BYTES_PER_S / cost.traffic_bytes,
        "by_arithmetic_per_s": batch_size * H200_FLOP_PER_S / cost.flop,
        "by_launches_per_s": batch_size / (LAUNCH_S * cost.num_operations),
    }


def measure(options: CostOptions) -> dict[str, Any]:
    rows = []
    for batch_size in options.batch_sizes:
        with FakeTensorMode():
            shape = (batch_size, NUM_COLORS + NUM_CHOSEN, options.height_px, options.width_px)
            planes = torch.empty(shape, dtype=torch.uint8, device="cuda")
            cost = cost_of(partial(mask_clips, planes))
        row: Mapping[str, float] = {
            "batch_size": batch_size,
            "mflop_a_clip": cost.flop / batch_size / 1e6,
            "traffic_mib_a_clip": cost.traffic_bytes / batch_size / 2**20,
            "num_operations": cost.num_operations,
            "num_host_copies": cost.num_host_copies,
            **bounds_of(cost, batch_size),
        }
        rows.append(row)
        say(", ".join(f"{name} {value:,.0f}" for name, value in row.items()))
    return {"rows": rows}


STUDY = Study(
    module="benchmarks.studies.motion.device_cost",
    kind="motion_device_cost",
    label="arithmetic and bytes of motion masks on a device",
    description=__doc__,
    options=CostOptions,
    measure=measure,
    constants={"h200_bytes_per_s": H200_BYTES_PER_S, "h200_flop_per_s": H200_FLOP_PER_S, "launch_s": LAUNCH_S},
    packages=("kornia",),
)

if __name__ == "__main__":
    STUDY.main()
