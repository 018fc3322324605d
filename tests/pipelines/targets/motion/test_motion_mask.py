"""Masks against the exact masks of composites: of made pictures, and of real ones and DAVIS where they are at hand."""

import cv2
import numpy as np
import pytest

from pipelines.decode.clip_planes import NUM_COLORS, chosen_frames
from pipelines.targets.motion.dense_flow import DisFlow
from pipelines.targets.motion.flow_engines import build_engine
from pipelines.targets.motion.motion_mask import VERDICTS, ClipMask, MaskSettings, mask_clip
from tests.made.composites import (
    MadeCameraPath,
    compose,
    cutout,
    iou,
    photo,
    random_composite,
    shared_images,
)

DIS = DisFlow()
STILL = MadeCameraPath()


def mask(clip: np.ndarray, engine=DIS, **settings) -> ClipMask:
    """Of a clip uint8 RGB (T, H, W, 3), as the task makes it."""
    gray = np.stack([cv2.cvtColor(clip[index], cv2.COLOR_RGB2GRAY) for index in chosen_frames(len(clip))])
    colors = np.ascontiguousarray(clip[0].transpose(2, 0, 1))
    assert len(colors) == NUM_COLORS
    return mask_clip(gray, colors, engine, MaskSettings(**settings))


def square(step_xy: tuple[float, float], camera: MadeCameraPath = STILL, size: tuple[int, int] = (240, 320), **options):
    height, width = size
    return compose(
        photo(0),
        cutout(1),
        rng=np.random.default_rng(0),
        camera=camera,
        object_height_px=height / 3,
        object_start_xy=(width * 0.45, height * 0.5),
        object_step_xy=step_xy,
        height=height,
        width=width,
        num_frames=3,
        **options,
    )


@pytest.mark.parametrize("step_xy", [(3.0, 0.0), (-2.0, 1.5), (0.0, -5.0)])
def test_a_square_over_a_static_background(step_xy):
    made = square(step_xy)
    assert iou(mask(made.clip).moving, made.mask) >= 0.85


@pytest.mark.parametrize(
    "camera",
    [
        MadeCameraPath(shift_px=(3.0, 1.0)),
        MadeCameraPath(rotation_deg=0.7),
        MadeCameraPath(zoom=1.012),
        MadeCameraPath(shift_px=(-2.0, 1.0), rotation_deg=0.4, zoom=0.99, shake_px=0.7, tilt=0.003),
    ],
)
def test_a_square_under_a_moving_camera(camera):
    made = square((-2.5, 1.5), camera)
    found = mask(made.clip)
    assert found.verdict == "usable"
    assert iou(found.moving, made.mask) >= 0.85
    assert iou(found.moving & found.is_known, made.mask & found.is_known) >= 0.9


def test_colors_make_the_mask_exact():
    """A square of one hue on a ground of others, on whole cells: every cell is right."""
    ground, pasted = photo(0)[20:260, 20:340].copy(), photo(1)[:64, :64]
    ground[..., 0] //= 3
    pasted[..., 2] //= 4
    clip = np.stack([np.roll(ground, 2 * index, axis=1) for index in range(3)])
    for index in range(3):
        clip[index, 80 + 3 * index : 144 + 3 * index, 120:184] = pasted
    expected = np.zeros((30, 40), bool)
    expected[10:18, 15:23] = True
    np.testing.assert_array_equal(mask(clip).moving, expected)


def test_slow_motion_is_seen_in_the_third_frame():
    made = square((0.8, 0.0))
    assert iou(mask(made.clip).moving, made.mask) >= 0.8


@pytest.mark.parametrize("engine", ["farneback"])
def test_other_dense_flow_finds_the_square(engine):
    made = square((3.0, 1.0))
    assert iou(mask(made.clip, build_engine(engine)).moving, made.mask) >= 0.8


@pytest.mark.parametrize("size", [(96, 128), (120, 161), (480, 640)])
def test_other_sizes(size):
    scale = size[1] / 320
    made = square((4.0 * scale, -2.0 * scale), MadeCameraPath(shift_px=(1.5 * scale, 0.0)), size)
    found = mask(made.clip)
    assert found.moving.shape == found.is_known.shape == made.mask.shape
    assert iou(found.moving, made.mask) >= 0.7


@pytest.mark.parametrize("camera", [STILL, MadeCameraPath(shift_px=(2.0, 1.0)), MadeCameraPath(zoom=1.01)])
def test_a_square_that_moves_with_the_background_is_not_found(camera):
    found = mask(square((0.0, 0.0), camera).clip)
    assert found.verdict == "usable"
    assert not (found.moving & found.is_known).any()


def test_a_repeated_frame_has_no_motion():
    found = mask(np.repeat(square((0.0, 0.0)).clip[:1], 3, axis=0))
    assert found.verdict == "usable"
    assert not found.moving.any()
    assert found.is_known.all()


def test_two_frames_are_enough():
    made = square((4.0, 0.0))
    assert iou(mask(made.clip[:2]).moving, made.mask) >= 0.8


@pytest.mark.parametrize("at", [1, 2])
def test_a_cut_is_named_and_empty(at):
    """Before the third frame only if that is looked at: where all is slow."""
    other = compose(photo(5), None, rng=np.random.default_rng(1), camera=STILL, num_frames=3)
    found = mask(np.concatenate([square((0.0, 0.0)).clip[:at], other.clip[at:]]))
    assert found.verdict == "cut"
    assert not found.moving.any()
    assert not found.is_known.any()


def test_a_clip_without_texture_is_named_and_empty():
    found = mask(np.full((3, 96, 128, 3), 90, np.uint8))
    assert found.verdict == "no_texture"
    assert not found.moving.any()
    assert not found.is_known.any()


def test_verdicts_are_numbered_with_usable_first():
    """`TaskBatch.num_left_out` counts what is not 0."""
    assert VERDICTS == ("usable", "no_texture", "cut")


@pytest.mark.parametrize("step_px", [1.5, 3.0])
@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_flat_ground_before_an_object_does_not_move_along(step_px, noise):
    flat = np.full_like(photo(0), 120)
    flat[:60] = photo(0)[:60]  # corners for the camera's motion
    options = {"rng": np.random.default_rng(0), "camera": STILL, "noise": noise, "num_frames": 3}
    place = {"object_height_px": 60.0, "object_start_xy": (160, 150), "object_step_xy": (step_px, 0.0)}
    made = compose(flat, cutout(1), **options, **place)
    found = mask(made.clip).moving
    assert np.count_nonzero(found & ~made.mask) <= 0.2 * np.count_nonzero(made.mask)
    # Three quarters of the frame have no flow to speak of. Where it is noise besides, the camera may be taken for the
    # object's motion, and nothing is found.
    assert iou(found, made.mask) >= (0.7 if (step_px, noise) == (3.0, 0.5) else 0.0)


def test_what_flickers_is_not_known_and_not_moving():
    clip = square((0.0, 0.0), MadeCameraPath(shift_px=(1.0, 0.5))).clip.copy()
    clip[:, 96:144, 96:160] = np.random.default_rng(1).integers(0, 256, (3, 48, 64, 3))
    found = mask(clip)
    assert (found.moving & found.is_known).mean() < 0.01
    assert found.is_known[13:17, 13:19].mean() < 0.5
    assert found.is_known[1:-1, 1:8].all()


def test_a_border_that_leaves_the_view_is_not_known():
    is_known = mask(square((0.0, 0.0), MadeCameraPath(shift_px=(-9.0, 0.0))).clip).is_known
    assert not is_known[:, 0].any()
    assert is_known[:, 12:].mean() > 0.95


def test_an_object_that_leaves_the_frame_is_found():
    made = square((-11.0, 0.0))
    assert iou(mask(made.clip).moving, made.mask) >= 0.5


def test_cells_of_middling_odds_are_unknown():
    made = square((-2.5, 1.5), MadeCameraPath(shift_px=(3.0, 1.0)))
    all_known = mask(made.clip, unknown_above=0.0, unknown_below=0.0)
    wide = mask(made.clip, unknown_above=-6.0, unknown_below=6.0)
    assert all_known.is_known.mean() > wide.is_known.mean()
    np.testing.assert_array_equal(all_known.moving, wide.moving)


def real_composites(num: int, kind: str, *, with_object: bool = True):
    photos, cutouts = shared_images("photos1k.tar", 500, 500 + num), shared_images("cutouts.tar", 0, 282)[1::2]
    if not photos or not cutouts:
        pytest.skip("no photos and cut-outs beside the repository")
    for index, background in enumerate(photos):
        rng = np.random.default_rng([index, 1, 3])
        pasted = cutouts[rng.integers(len(cutouts))] if with_object else None
        yield random_composite(background, pasted, rng, kind=kind)


def test_real_photos_and_cutouts_under_a_moving_camera():
    ious = [iou(mask(made.clip).moving, made.mask) for made in real_composites(20, "all")]
    # 0.79 on 60 of them; masks of a few cells, where one cell is a third, spread the mean of 20.
    assert np.mean(ious) >= 0.7


@pytest.mark.parametrize("kind", ["static", "shift", "all"])
def test_real_photos_under_a_moving_camera_alone(kind):
    found = [mask(made.clip) for made in real_composites(10, kind, with_object=False)]
    assert {one.verdict for one in found} == {"usable"}
    assert np.mean([one.moving & one.is_known for one in found]) <= 0.005
    assert np.mean([one.is_known for one in found]) >= 0.9
