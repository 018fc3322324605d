"""Build a flow engine by its name. The optional ones (RAFT, the GPU's flow unit) are imported when asked for."""

from pipelines.targets.motion.flow import DisFlow, EngineName, FarnebackFlow, FlowEngine, LucasKanade, Preset

__all__ = ["build_engine"]


def build_engine(name: EngineName, preset: Preset = "fast", raft_weights: str = "default") -> FlowEngine:
    """`preset` is for "dis" only, `raft_weights` (flow_raft.py) for "raft". Raises UsageError if it cannot be had."""
    if name == "raft":
        from pipelines.targets.motion.flow_raft import RaftFlow

        return RaftFlow(raft_weights)
    if name == "nvof":
        from pipelines.targets.motion.flow_nvof import NvofFlow

        return NvofFlow()
    if name == "lucas_kanade":
        return LucasKanade()
    return DisFlow(preset, finest_level=0) if name == "dis" else FarnebackFlow()
