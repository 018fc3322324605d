"""Evaluation canvases: every image once, in order, its centre, no randomness."""

import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base.errors import DataError, UsageError
from pipelines.read.reader import SampleReader
from pipelines.run.canvases import evaluation_canvases
from pipelines.shards.format.manifest import load_manifest
from tests.made.pictures import Stored, stored_images, write_folder


def images_of(folder, split="train"):
    return load_manifest(folder).select("image", split)


def test_every_image_once_in_table_order_with_its_label(small_shards):
    table = images_of(small_shards(images=11))
    batches = list(evaluation_canvases(table, canvas_px=16, batch_size=4))
    assert [len(batch.keys) for batch in batches] == [4, 4, 3]
    assert sum((batch.keys for batch in batches), ()) == tuple(table.keys)
    assert torch.cat([batch.labels for batch in batches]).tolist() == [index % 3 for index in range(11)]
    assert all(batch.pixels.shape[1:] == (16, 16, 3) and batch.pixels.dtype == torch.uint8 for batch in batches)


def test_pixels_are_those_of_an_antialiased_resize_of_the_centre(small_shards):
    table = images_of(small_shards(images=6, suffix="png"))
    (batch,) = evaluation_canvases(table, canvas_px=24, batch_size=6)
    reader = SampleReader(table)
    for row, pixels in enumerate(batch.pixels):
        image = np.asarray(Image.open(io.BytesIO(reader.read(row))))
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        centre = Image.fromarray(image[top : top + side, left : left + side])
        expected = np.asarray(centre.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(expected - pixels.numpy()).max() <= 1


@pytest.mark.parametrize("num_threads", [1, 4])
def test_batch_size_and_threads_do_not_change_pixels(small_shards, num_threads):
    table = images_of(small_shards(images=7))
    whole = torch.cat([batch.pixels for batch in evaluation_canvases(table, canvas_px=20, batch_size=7)])
    parts = evaluation_canvases(table, canvas_px=20, batch_size=2, num_threads=num_threads)
    torch.testing.assert_close(torch.cat([batch.pixels for batch in parts]), whole, rtol=0, atol=0)


def test_a_bad_sample_is_named(tmp_path):
    samples = stored_images(3)
    samples[1] = Stored(key="broken", suffix="jpg", encoded=b"junk", width=40, height=40)
    table = images_of(write_folder(tmp_path / "shards", samples))
    with pytest.raises(DataError, match=r"train-images-000000\.tar: sample broken: not a JPEG, PNG or WebP"):
        list(evaluation_canvases(table, canvas_px=16, batch_size=2))


def test_clips_and_wrong_sizes_are_refused(small_shards):
    folder = small_shards(images=1, clips=1)
    with pytest.raises(UsageError, match="clips, canvas_px 16"):
        evaluation_canvases(load_manifest(folder).select("clip", "train"), canvas_px=16, batch_size=2)
    with pytest.raises(UsageError, match="batch_size 0"):
        evaluation_canvases(images_of(folder), canvas_px=16, batch_size=0)


def test_leaving_early_ends_the_threads(small_shards):
    batches = evaluation_canvases(images_of(small_shards(images=12)), canvas_px=16, batch_size=2)
    next(batches)
    batches.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fourfold")]
