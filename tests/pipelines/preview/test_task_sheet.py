"""The preview: real tasks on hand-made shards; a section stands only where there are samples of its kind."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.preview import task_sheet as preview
from pipelines.preview.contact_sheet import PANEL_PX, Section
from pipelines.preview.task_sheet import write_sheet
from pipelines.tasks import PRETEXT_TASKS

MakeShards = Callable[..., Path]
IMAGE_TITLES = ["Relative position", "Colorization", "Exemplar"]


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> list[Section]:
    """What the next sheets are drawn of."""
    seen: list[Section] = []
    real = preview.draw_sheet

    def spy(title: str, subtitle: str, given: list[Section]) -> np.ndarray:
        seen.extend(given)
        return real(title, subtitle, given)

    monkeypatch.setattr(preview, "draw_sheet", spy)
    return seen


def test_every_pretext_task_can_be_drawn() -> None:
    assert list(preview.DRAWERS) == list(PRETEXT_TASKS)


def test_images_alone(small_shards: MakeShards, tmp_path: Path, sections: list[Section]) -> None:
    out = write_sheet(small_shards(12), tmp_path / "new" / "sheet.png", num_samples=3, canvas_px=64)
    assert [section.title for section in sections] == IMAGE_TITLES
    assert [len(section.examples) for section in sections] == [3, 3, 3]
    assert out == tmp_path / "new" / "sheet.png"
    image = cv2.imread(str(out))
    assert image.shape[0] > 6 * PANEL_PX
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]


def test_clips_alone(small_shards: MakeShards, tmp_path: Path, sections: list[Section]) -> None:
    write_sheet(small_shards(0, 3), tmp_path / "sheet.png", num_samples=2)
    assert [section.title for section in sections] == ["Motion segmentation"]
    assert all(
        "%" in example.panels[2].caption or "left out" in example.panels[2].caption for example in sections[0].examples
    )


def test_clips_of_another_folder(small_shards: MakeShards, tmp_path: Path, sections: list[Section]) -> None:
    images, clips = small_shards(12, name="images"), small_shards(0, 3, name="clips")
    write_sheet(images, tmp_path / "sheet.png", clips=clips, num_samples=2, canvas_px=64)
    assert [section.title for section in sections] == [*IMAGE_TITLES, "Motion segmentation"]


def test_of_two_folders_each_gives_its_own_kind(
    small_shards: MakeShards, tmp_path: Path, sections: list[Section]
) -> None:
    images, both = small_shards(1, 1, name="images"), small_shards(12, 3, name="both")
    write_sheet(images, tmp_path / "sheet.png", clips=both, num_samples=2, canvas_px=64)
    assert [len(section.examples) for section in sections] == [1, 1, 1, 2]


def test_answer_is_where_the_outlined_patches_are(
    small_shards: MakeShards, tmp_path: Path, sections: list[Section]
) -> None:
    """B's place is read off the drawing: the orange outline against the blue one."""
    write_sheet(small_shards(12), tmp_path / "sheet.png", num_samples=6, canvas_px=64)
    for example in sections[0].examples:
        drawn, caption = example.panels[0].picture.astype(int), example.panels[2].caption
        (ay, ax), (by, bx) = (
            np.argwhere(np.abs(drawn - color).max(-1) == 0).mean(0) for color in (preview.BLUE, preview.ORANGE)
        )
        place = caption.removeprefix("target: ").partition(" (")[0]
        step = PANEL_PX / 5
        vertical = "top" if by - ay < -step else "bottom" if by - ay > step else ""
        horizontal = "left" if bx - ax < -step else "right" if bx - ax > step else ""
        assert place == f"{vertical} {horizontal}".strip()


def test_same_seed_same_sheet(small_shards: MakeShards, tmp_path: Path) -> None:
    folder = small_shards(12)
    sheets = [
        write_sheet(folder, tmp_path / f"{index}.png", num_samples=2, seed=seed, canvas_px=64).read_bytes()
        for index, seed in enumerate((0, 0, 1))
    ]
    assert sheets[0] == sheets[1] != sheets[2]


def test_more_rows_than_samples_shows_all(small_shards: MakeShards, tmp_path: Path, sections: list[Section]) -> None:
    write_sheet(small_shards(3), tmp_path / "sheet.png", num_samples=9, canvas_px=64)
    assert sorted(example.title for example in sections[0].examples) == ["train0000", "train0001", "train0002"]


def test_validation_split_where_there_is_no_other(
    small_shards: MakeShards, tmp_path: Path, sections: list[Section]
) -> None:
    write_sheet(small_shards(4, split="val"), tmp_path / "sheet.png", num_samples=1, canvas_px=64)
    assert sections[0].examples[0].title.startswith("val")


def test_name_must_be_a_png(small_shards: MakeShards, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sheet\.jpg: need a name that ends in \.png"):
        write_sheet(small_shards(3), tmp_path / "sheet.jpg")


def test_bad_sample_is_named(small_shards: MakeShards, tmp_path: Path) -> None:
    folder = small_shards(1)
    shard = next(folder.glob("*.tar"))
    content = bytearray(shard.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 400] = bytes(400)
    shard.write_bytes(bytes(content))
    with pytest.raises(DataError, match="sample train0000: "):
        write_sheet(folder, tmp_path / "sheet.png", canvas_px=64)
    assert not (tmp_path / "sheet.png").exists()


def test_real_photos_and_videos(shared_data: Path, tmp_path: Path, sections: list[Section]) -> None:
    from pipelines.shards.build import BuildConfig, build_shards

    videos = sorted((shared_data / "videos").glob("ucf_*"))[:2]
    build_shards(BuildConfig(sources=videos, out=tmp_path / "shards"))
    write_sheet(tmp_path / "shards", tmp_path / "sheet.png", num_samples=2)
    assert len(sections[0].examples) == 2
