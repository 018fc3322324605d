"""The network runs with random weights; that it is RAFT is torchvision's to test."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pipelines.base.errors import UsageError
from pipelines.targets.motion.flow_raft import RaftFlow, _prepared, load_raft


def gray(num_frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width), dtype=np.uint8)


def test_flow_has_the_frames_size_whatever_it_is():
    flow = RaftFlow("random", num_updates=1).clip_flow(gray(3, 50, 131))
    assert flow.shape == (2, 50, 131, 2)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


def test_threads_that_share_the_network_do_not_read_each_others_correlations():
    clips = [gray(2, height, 131) for height in (130, 200, 130, 270)]
    engines = [RaftFlow("random", num_updates=2) for _ in clips]
    alone = [engine.clip_flow(clip) for engine, clip in zip(engines, clips, strict=True)]
    with ThreadPoolExecutor(len(clips)) as pool:
        together = list(pool.map(lambda engine, clip: engine.clip_flow(clip), engines, clips))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_frames_are_extended_and_scaled():
    frames = gray(2, 130, 133)
    prepared = _prepared(torch.from_numpy(frames)[:, None])
    assert tuple(prepared.shape) == (2, 3, 136, 136)
    np.testing.assert_allclose(prepared[0, 1, :130, :133], frames[0] / 127.5 - 1, atol=1e-6)
    assert torch.equal(prepared[..., 132], prepared[..., 135])


def test_random_weights_are_the_same_ones_and_leave_the_generator_alone():
    before = torch.random.get_rng_state()
    load_raft.cache_clear()
    first = load_raft("random").feature_encoder.conv.weight.clone()
    load_raft.cache_clear()
    assert torch.equal(first, load_raft("random").feature_encoder.conv.weight)
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_from_a_file(tmp_path):
    path = tmp_path / "raft.pth"
    torch.save(load_raft("random").state_dict(), path)
    loaded, expected = load_raft(str(path)).state_dict(), load_raft("random").state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_weights_that_cannot_be_downloaded_are_a_clear_error(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    load_raft.cache_clear()
    with pytest.raises(UsageError, match=r"raft_weights = default; cannot be had \(OSError: no network\).*https://"):
        load_raft("default")


def test_a_batch_of_pairs_has_the_flow_of_each_pair():
    frames = np.random.default_rng(0).integers(0, 256, (2, 130, 140), dtype=np.uint8)
    engine = RaftFlow("random", num_updates=2)
    pairs = torch.from_numpy(frames)[:, None].float()
    found = engine.batched(pairs, pairs.flip(0))
    for row, pair in enumerate((frames, frames[::-1])):
        expected = engine.pair_flow(*pair)
        torch.testing.assert_close(found[row].permute(1, 2, 0), torch.from_numpy(expected), rtol=1e-3, atol=1e-3)
