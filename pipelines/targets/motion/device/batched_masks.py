"""Motion masks of a batch of clips as tensor code: the chain of motion_mask.py for all clips at once.

Flow comes from torch_flow.py instead of OpenCV's DIS; all other steps follow the CPU chain, with sorting in place of
halved intervals and label propagation in place of connected components. Every operation has a fixed number of steps, so
that nothing waits for a value of the device, and nothing is copied to the host.

Letters: B clips, H W size of a work frame, h w rows and columns of nodes and, in results, of cells. Planes are float32.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_lab
from kornia.contrib import connected_components
from kornia.filters import box_blur, spatial_gradient

from pipelines.decode.clip_planes import NUM_COLORS
from pipelines.targets.motion import camera_fit, motion_mask
from pipelines.targets.motion.color_model import CHROMA_STRETCH, MIN_NODES, NUM_BINS
from pipelines.targets.motion.device.torch_flow import Flow, dense_flow, sampled
from pipelines.targets.motion.mean_field import DAMPING, MARGIN, MIN_CONTRAST
from pipelines.targets.motion.motion_mask import SETTINGS, MaskSettings
from pipelines.targets.motion.pair_motion import MAX_DIFFERENCE
from pipelines.targets.motion.work_frames import CELL_PX, WORK_PER_NODE, node_grid

__all__ = ["BatchedMasks", "mask_clips"]

NUM_LABEL_STEPS = 120
"""Of label propagation: a region may wind over this many nodes and is still one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedMasks:
    """moving, is_known: bool (B, h, w), as in `ClipMask`. verdict: int64 (B,), indexes `VERDICTS`."""

    moving: torch.Tensor
    is_known: torch.Tensor
    verdict: torch.Tensor


@torch.no_grad()
def mask_clips(planes: torch.Tensor, settings: MaskSettings = SETTINGS, flow: Flow = dense_flow) -> BatchedMasks:
    """Find the moving cells of all clips, given planes uint8 (B, 3 + N, H, W) of clip_planes.py with N = 2 or 3.

    flow: from float32 (B, 1, H, W) twice to float32 (B, 2, H, W), see torch_flow.py.
    """
    # 1. Work frames.
    height, width = planes.shape[-2:]
    cells, nodes = (-(-height // CELL_PX), -(-width // CELL_PX)), node_grid(height, width)
    gray = _shrunk(planes[:, NUM_COLORS:], nodes, WORK_PER_NODE)
    first, following = gray[:, :1], gray[:, 1:]
    texture = _halved(spatial_gradient(_padded(first), normalized=False)[:, 0, :, 1:-1, 1:-1].norm(dim=1, keepdim=True))
    trust = _trust(texture)
    # 2. Motion to the next frame or, where that is slow, to the one after it.
    guess = WORK_PER_NODE * flow(_halved(first), _halved(following[:, :1]))
    is_slow = _speed(guess, trust) < settings.slow_px
    later = torch.where(is_slow[:, None, None, None], following[:, -1:], following[:, :1])
    stray, change, misfit, in_view = _measured(first, later, flow(first, later), trust)
    # 3. Odds of nodes, then cells.
    odds = _motion_odds(stray, change, misfit, texture, settings)
    odds = _segmented(odds, _colors(planes[:, :NUM_COLORS], nodes), settings)
    flickers = _flickers(odds, change, misfit, settings)
    share = torch.where(flickers, torch.zeros_like(odds), torch.sigmoid(odds))
    moving, unsure = _to_cells(share, cells) >= 0.5, _to_cells(odds.masked_fill(flickers, 0), cells)
    is_sure = (unsure <= settings.unknown_above) | (unsure >= settings.unknown_below)
    known = is_sure & (moving | (_to_cells(in_view, cells) >= 0.5))
    # 4. Clips that are flat or cut have neither.
    is_flat = (texture > motion_mask.MIN_SLOPE).float().mean((1, 2, 3)) < motion_mask.MIN_TEXTURE_RATIO
    is_cut = (misfit > motion_mask.MAX_MISFIT).float().mean((1, 2, 3)) > motion_mask.MAX_MISFIT_RATIO
    verdict = torch.where(is_flat, 1, torch.where(is_cut, 2, 0))
    is_usable = (verdict == 0)[:, None, None]
    return BatchedMasks(moving=moving[:, 0] & is_usable, is_known=known[:, 0] & is_usable, verdict=verdict)


def _shrunk(planes: torch.Tensor, nodes: tuple[int, int], per_node: int) -> torch.Tensor:
    bottom, right = (-side % CELL_PX for side in planes.shape[-2:])
    planes = F.pad(planes.float(), (0, right, 0, bottom), mode="replicate")
    return F.interpolate(planes, (nodes[0] * per_node, nodes[1] * per_node), mode="area").round()


def _halved(planes: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(planes, WORK_PER_NODE)


def _padded(plane: torch.Tensor) -> torch.Tensor:
    """Return the plane with a margin of one mirrored pixel, as OpenCV's filters see it."""
    return F.pad(plane, (1, 1, 1, 1), mode="reflect")


def _blur3(plane: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(_padded(plane), 3, stride=1)


def _trust(texture: torch.Tensor) -> torch.Tensor:
    square = texture * texture
    inner = _border(texture) + camera_fit.INNER_TRUST
    return inner * (square / (square + camera_fit.TRUSTED_SLOPE**2)) + 1e-3


def _border(like: torch.Tensor) -> torch.Tensor:
    """Return `border_closeness` (h, w), made on the device."""
    height, width = like.shape[-2:]
    down, right = (torch.arange(side, device=like.device, dtype=torch.float32) for side in (height, width))
    distance = 1 + torch.minimum(torch.minimum(down, down.flip(0))[:, None], torch.minimum(right, right.flip(0)))
    return torch.exp(-distance / (camera_fit.BORDER_RATIO * width))


def _places(like: torch.Tensor, step: float = 1.0) -> torch.Tensor:
    """Return (h, w, 3): x and y from the middle, times `step`, and 1."""
    height, width = like.shape[-2:]
    x = (torch.arange(width, device=like.device) - 0.5 * (width - 1)) * step
    y = (torch.arange(height, device=like.device) - 0.5 * (height - 1)) * step
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), torch.ones_like(x).expand(height, -1)], -1)


def _camera(flow: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
    """Return affine motions (B, 3, 2) in (x, y, 1) of nodes, by reweighted least squares as in `fit_camera`."""
    step, unit = camera_fit.FIT_STEP, 0.5 * flow.shape[-1]
    places = _places(flow, 1 / unit)[::step, ::step].reshape(-1, 3).double()
    found = flow[..., ::step, ::step].flatten(2).transpose(1, 2).double()
    trusted = trust[:, 0, ::step, ::step].flatten(1).double()
    weight, motion = trusted, torch.zeros(len(flow), 3, 2, dtype=torch.float64, device=flow.device)
    ridge = 1e-9 * torch.eye(3, dtype=torch.float64, device=flow.device)
    for turn in range(camera_fit.NUM_FIT_STEPS):
        off = (found - places @ motion).norm(dim=2)
        order = off.argsort(dim=1)
        before = trusted.gather(1, order).cumsum(1)
        at = (before < 0.5 * before[:, -1:]).sum(1, keepdim=True)
        noise = off.gather(1, order.gather(1, at.clamp(max=off.shape[1] - 1)))
        square = (1.5 * noise).clamp(min=camera_fit.MIN_NOISE_PX) ** 2
        weight = trusted * (square / (square + off * off)) ** 2 if turn else trusted
        weighted = weight[..., None] * places
        # Without the check of `solve`, which would wait for the device. The ridge keeps it from being singular.
        motion = torch.linalg.solve_ex(places.T @ weighted + ridge, weighted.transpose(1, 2) @ found).result
    return torch.cat([motion[:, :2] * (1 / unit), motion[:, 2:]], 1).float()


def _camera_shift(camera: torch.Tensor, like: torch.Tensor, step: float = 1.0) -> torch.Tensor:
    return torch.einsum("hwk,bkc->bchw", _places(like, step), camera)


def _speed(flow: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
    stray = (flow - _camera_shift(_camera(flow, trust), flow)).norm(dim=1, keepdim=True)
    is_far = stray > _otsu(stray)
    mean: torch.Tensor = (stray * is_far).sum((1, 2, 3)) / is_far.sum((1, 2, 3)).clamp(min=1)
    return mean


def _measured(
    first: torch.Tensor, later: torch.Tensor, flow: torch.Tensor, trust: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return stray motion, change, misfit and share in view (B, 1, h, w), as in `PairMotion`."""
    of_nodes = _halved(flow)
    camera = _camera(of_nodes, trust)
    shift = _camera_shift(camera, first, 1 / WORK_PER_NODE)
    height, width = first.shape[-2:]
    x = torch.arange(width, device=first.device) + shift[:, :1]
    y = torch.arange(height, device=first.device)[:, None] + shift[:, 1:]
    in_view = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).float()
    change, misfit = (
        _halved(_blur3((sampled(later, one) - first).abs().clamp(max=MAX_DIFFERENCE) * in_view))
        for one in (shift, flow)
    )
    stray = (of_nodes - _camera_shift(camera, of_nodes)).norm(dim=1, keepdim=True)
    return stray, change, misfit, _halved(in_view)


def _otsu(values: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, 1, 1): Otsu's threshold of values (B, 1, h, w) of at least 0, after a 3 x 3 mean."""
    values = _blur3(values).flatten(1)
    top = values.amax(1, keepdim=True).clamp(min=1e-6)
    levels = (values * (255 / top)).clamp(0, 255).long()
    counts = torch.zeros(len(values), 256, device=values.device, dtype=torch.float64)
    counts.scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.float64))
    low = counts.cumsum(1)
    sums = (counts * torch.arange(256, device=values.device)).cumsum(1)
    high, total = low[:, -1:] - low, sums[:, -1:]
    apart = low * high * (sums / low.clamp(min=1) - (total - sums) / high.clamp(min=1)) ** 2
    return (apart.argmax(1, keepdim=True) * top / 255).float()[..., None, None]


def _log_odds(value: torch.Tensor, threshold: torch.Tensor, least: float) -> torch.Tensor:
    most = motion_mask.MAX_LOG_ODDS
    return torch.log((value + least) / (threshold + least)).clamp(-most, most)


def _motion_odds(
    stray: torch.Tensor, change: torch.Tensor, misfit: torch.Tensor, texture: torch.Tensor, settings: MaskSettings
) -> torch.Tensor:
    # 1. Stray motion, where the flow explains the later frame better than the camera does.
    evidence = stray * ((change + 0.5) / (change + misfit + 1)) ** settings.motion_power
    median = stray.flatten(1).median(1).values[:, None, None, None].clamp(min=motion_mask.MIN_NOISE_PX)
    threshold = torch.minimum(settings.threshold_ratio * _otsu(evidence), settings.max_noise_ratio * median)
    odds = _log_odds(evidence, threshold.clamp(min=settings.least_px), 1e-6)
    odds = torch.where(odds > 0, odds * _kept(texture, camera_fit.TRUSTED_SLOPE, settings.flat_ratio), odds)
    # 2. Differences that the camera leaves.
    differs = _log_odds(change, _otsu(change).clamp(min=settings.least_change), 1.0)
    kept = _kept(texture, motion_mask.VISIBLE_SLOPE, settings.flat_ratio)
    odds = odds + settings.change_weight * torch.where(differs < 0, differs * kept, differs)
    # 3. Objects are in the middle more often than at the border.
    return odds - settings.border_cost * _border(odds)


def _kept(texture: torch.Tensor, slope: float, ratio: float) -> torch.Tensor:
    return 1 - ratio * (slope**2 / (texture * texture + slope**2))


def _colors(planes: torch.Tensor, nodes: tuple[int, int]) -> torch.Tensor:
    """Return stretched Lab colors (B, 3, h, w) in [0, 255], as `node_colors`."""
    lab = rgb_to_lab(_shrunk(planes, nodes, 1) / 255)
    light, chroma = (lab[:, :1] * (255 / 100)).round(), lab[:, 1:].round()
    return torch.cat([light, (128 + chroma * CHROMA_STRETCH)], 1).clamp(0, 255)


def _segmented(motion: torch.Tensor, colors: torch.Tensor, settings: MaskSettings) -> torch.Tensor:
    """Return log odds (B, 1, h, w), from motion, color and neighbours."""
    bins = (colors * (NUM_BINS / 256)).clamp(max=NUM_BINS - 1).long()
    color = ((bins[:, 0] * NUM_BINS + bins[:, 1]) * NUM_BINS + bins[:, 2]).flatten(1)
    ties, opinion, odds = _ties(colors, settings.smoothness), torch.tanh(motion / 2), motion
    near_nodes, core_nodes, most = motion_mask.NEAR_NODES, motion_mask.CORE_NODES, motion_mask.MAX_LOG_ODDS
    # Kornia mirrors a frame once: in one of fewer nodes than half the window, the window is as large as that allows.
    window = min(near_nodes, 2 * min(motion.shape[-2:]) - 1)
    for _ in range(settings.num_rounds):
        share = 0.5 + 0.5 * opinion
        core = share * box_blur(share, (core_nodes, core_nodes)) ** 2
        near = (box_blur(share, (window, window)) * (near_nodes / 4)).clamp(max=1) + 0.02
        of_color = _color_odds(color, core.flatten(1), ((1 - share) * near).flatten(1)).gather(1, color)
        own = motion + settings.color_weight * of_color.view_as(motion).clamp(-most, most)
        odds, opinion = _smoothed(own, ties, opinion, settings.num_sweeps)
    return odds


def _color_odds(color: torch.Tensor, moving: torch.Tensor, still: torch.Tensor) -> torch.Tensor:
    """Return log odds (B, 512) that a node of each color moves, as `color_odds`."""
    counts = torch.zeros(len(color), 2, NUM_BINS**3, device=color.device)
    counts.scatter_add_(2, color[:, None].expand(-1, 2, -1), torch.stack([moving, still], 1))
    totals = counts.sum(2, keepdim=True) + 1e-6
    blurred = counts.view(-1, 1, NUM_BINS, NUM_BINS, NUM_BINS)
    # 0.25, 0.5, 0.25, made on the device: the host would wait for a copy.
    kernel = 0.5 - 0.25 * torch.arange(-1, 2, device=color.device).abs()
    for shape in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
        blurred = F.conv3d(blurred, kernel.view(1, 1, *shape), padding=tuple(side // 2 for side in shape))
    shares = blurred.view_as(counts) / totals + 1 / totals[:, :1].clamp(min=MIN_NODES)
    return torch.log(shares[:, 0] / shares[:, 1])


def _ties(colors: torch.Tensor, smoothness: float) -> torch.Tensor:
    """Return (B, 25, h, w): how much each neighbour in 5 x 5 nodes counts; 0 outside of the frame and for itself."""
    height, width = colors.shape[-2:]
    right, down = colors[..., :-1, 1:] - colors[..., :-1, :-1], colors[..., 1:, :-1] - colors[..., :-1, :-1]
    contrast = (right * right + down * down).sum((1, 2, 3)) / ((height - 1) * (width - 1))
    offsets = torch.arange(-MARGIN, MARGIN + 1, device=colors.device)
    distance = torch.sqrt((offsets[:, None] ** 2 + offsets**2).float()).flatten()
    most = torch.where(distance > 0, smoothness * 8 / 24 / distance.clamp(min=1), 0.0)
    off = _neighbours(colors) - colors[:, :, None]
    square = (off * off).sum(1) / contrast.clamp(min=MIN_CONTRAST)[:, None, None, None]
    inside = _neighbours(torch.ones_like(colors[:1, :1]))[:, 0]
    return most[:, None, None] * inside * (1 + square / 8) ** -8


def _neighbours(planes: torch.Tensor) -> torch.Tensor:
    """Return (B, C, 25, h, w): the values around every node, 0 outside of the frame."""
    batch, channels, height, width = planes.shape
    side = 2 * MARGIN + 1
    return F.unfold(planes, side, padding=MARGIN).view(batch, channels, side * side, height, width)


def _smoothed(
    own: torch.Tensor, ties: torch.Tensor, opinion: torch.Tensor, num_sweeps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log odds with the neighbours' opinions added, and opinions, as `smooth_odds`."""
    odds = own
    for _ in range(num_sweeps):
        odds = own + (ties * _neighbours(opinion)[:, 0]).sum(1, keepdim=True)
        half = (0.5 * odds).clamp(-3, 3)
        square = half * half
        opinion = opinion + DAMPING * (half * (27 + square) / (27 + 9 * square) - opinion)
    return odds, opinion


def _flickers(odds: torch.Tensor, change: torch.Tensor, misfit: torch.Tensor, settings: MaskSettings) -> torch.Tensor:
    """Return which nodes lie in a region of likely motion that flow explains no better than the camera does."""
    label = connected_components((odds > 0).float(), NUM_LABEL_STEPS).long().flatten(1)
    # Labels count the nodes of the whole batch; the clip's own start at 1.
    size = odds[0].numel()
    start = torch.arange(len(odds), device=odds.device)[:, None] * size
    label = torch.where(label > 0, label - start, 0).clamp(0, size)
    sums = [
        torch.zeros(len(odds), size + 1, device=odds.device).scatter_add_(1, label, one.flatten(1))
        for one in (change, misfit)
    ]
    explained = sums[0] > settings.min_change_ratio * sums[1]
    explained[:, 0] = True  # label 0 is what stays
    return ~explained.gather(1, label).view_as(odds)


def _to_cells(values: torch.Tensor, cells: tuple[int, int]) -> torch.Tensor:
    if cells[0] <= values.shape[-2]:
        return F.interpolate(values, cells, mode="area")
    return F.interpolate(values, cells, mode="bilinear", align_corners=False)
