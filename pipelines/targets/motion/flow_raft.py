"""RAFT (Teed and Deng 2020) in torchvision's small form, as a flow engine. The only file that imports it.

All pairs of a clip go through the network in one batch. It learned from rendered scenes with true flow, so masks made
with it are not free of annotation: say so beside numbers that come from it.
"""

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pipelines.base.errors import UsageError
from pipelines.targets.motion.dense_flow import DenseFlow

__all__ = ["RaftFlow", "load_raft"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

STRIDE_PX = 8
MIN_SIDE_PX = 128
"""Smaller frames leave nothing of the network's coarsest level."""
_network_lock = Lock()
"""All engines of a process share one network, and torchvision's keeps the correlations of a pass in the module: two
threads at once would read each other's."""


class RaftFlow(DenseFlow):
    """Frames of any size: they are extended to a multiple of 8, at least 128, by repeating their border."""

    def __init__(self, weights: str = "default", *, num_updates: int = 12, device: str = "cpu") -> None:
        """weights: see `load_raft`. num_updates: rounds of refinement; cost grows with it."""
        self._network = load_raft(weights, device)
        self._num_updates, self._device = num_updates, device

    def pair_flow(self, gray_HW: Bytes, next_HW: Bytes) -> Floats:
        return np.asarray(self.clip_flow(np.stack([gray_HW, next_HW]))[0])

    @torch.inference_mode()
    def clip_flow(self, gray_THW: Bytes) -> Floats:
        frames_T3HW = _prepared(torch.from_numpy(np.ascontiguousarray(gray_THW))[:, None].to(self._device))
        with _network_lock:
            flow_T2HW = self._network(frames_T3HW[:-1], frames_T3HW[1:], num_flow_updates=self._num_updates)[-1]
        height, width = gray_THW.shape[1:]
        return np.asarray(flow_T2HW[..., :height, :width].permute(0, 2, 3, 1).cpu().numpy(), np.float32)

    @torch.no_grad()
    def batched(self, first_B1HW: torch.Tensor, later_B1HW: torch.Tensor) -> torch.Tensor:
        """Return the flow (B, 2, H, W) of many pairs, float32 gray (B, 1, H, W) each, on their device."""
        height, width = first_B1HW.shape[-2:]
        with _network_lock:
            pair = _prepared(first_B1HW), _prepared(later_B1HW)
            flow_B2HW: torch.Tensor = self._network(*pair, num_flow_updates=self._num_updates)[-1]
        return flow_B2HW[..., :height, :width]


def _prepared(gray_T1HW: torch.Tensor) -> torch.Tensor:
    """Return float32 (T, 3, H', W') in [-1, 1], gray three times, of gray levels (T, 1, H, W)."""
    frames = gray_T1HW.to(torch.float32) / 127.5 - 1
    height, width = (max(-(-side // STRIDE_PX) * STRIDE_PX, MIN_SIDE_PX) for side in gray_T1HW.shape[-2:])
    padding = (0, width - gray_T1HW.shape[-1], 0, height - gray_T1HW.shape[-2])
    return F.pad(frames, padding, mode="replicate").expand(-1, 3, -1, -1)


@lru_cache(maxsize=2)
def load_raft(weights: str, device: str = "cpu") -> Any:
    """The network, ready to use, loaded once per process.

    weights: "default" are torchvision's, downloaded at first use; "random" learned nothing and only shows that all
    runs; anything else is the path of a file of weights. Raises UsageError if torchvision or weights cannot be had.
    """
    try:
        from torchvision.models.optical_flow import Raft_Small_Weights, raft_small
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"engine raft: torchvision cannot be loaded ({error}). "
            "Install torchvision for this torch, or choose engine: dis."
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = raft_small(weights=None)
    if weights != "random":
        network.load_state_dict(_state(weights, Raft_Small_Weights.DEFAULT.url))
    return network.eval().requires_grad_(False).to(device)


def _state(weights: str, url: str) -> dict[str, torch.Tensor]:
    try:
        if weights == "default":
            return dict(torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True))
        return dict(torch.load(Path(weights), map_location="cpu", weights_only=True))
    except Exception as error:  # what goes wrong on the way to a file has many types
        raise UsageError(
            f"engine raft: raft_weights = {weights}; cannot be had ({type(error).__name__}: {error}). "
            f"Allowed: default, random, or the path of a file. Download {url} elsewhere and give its path, or choose "
            "engine: dis, which needs no weights."
        ) from error
