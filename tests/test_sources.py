from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UsageError
from pipelines.shards.sources import SourceFile, assign_splits, find_sources, safe_key


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def source_file(key: str, label: str | None = None) -> SourceFile:
    return SourceFile(path=Path(key), source=key, key=key, kind="image", label=label, file_bytes=1, modified_ns=0)


def test_kind_follows_the_suffix_whatever_its_case(tmp_path: Path) -> None:
    sources = find_sources([touch(tmp_path, "a.JPG", "b.jpeg", "c.png", "d.webp", "e.MP4", "f.avi")])
    assert [file.kind for file in sources.files] == ["image"] * 4 + ["clip"] * 2


def test_other_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    sources = find_sources([touch(tmp_path, "a.jpg", "readme.txt", "x.csv", ".hidden.jpg", ".git/b.jpg")])
    assert [file.key for file in sources.files] == ["a"]
    assert sources.num_ignored == 2


def test_class_folders_become_labels(tmp_path: Path) -> None:
    sources = find_sources([touch(tmp_path, "dog/2.jpg", "cat/deep/1.jpg", "ant/3.jpg")])
    assert sources.labels == ("ant", "cat", "dog")
    assert [(file.source, file.label) for file in sources.files] == [
        ("ant/3.jpg", "ant"),
        ("cat/deep/1.jpg", "cat"),
        ("dog/2.jpg", "dog"),
    ]


def test_lone_wrapping_folder_is_not_a_class(tmp_path: Path) -> None:
    sources = find_sources([touch(tmp_path, "data/images/dog/2.jpg", "data/images/cat/1.jpg")])
    assert sources.labels == ("cat", "dog")


@pytest.mark.parametrize("names", [("dog/1.jpg", "cat/1.jpg", "loose.jpg"), ("only/1.jpg", "only/2.jpg")])
def test_no_labels_without_at_least_two_class_folders_for_all(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert find_sources([touch(tmp_path, *names)]).labels == ()


def test_labels_can_be_switched_off(tmp_path: Path) -> None:
    assert find_sources([touch(tmp_path, "a/1.jpg", "b/1.jpg")], labels="off").labels == ()


def test_videos_have_no_label(tmp_path: Path) -> None:
    sources = find_sources([touch(tmp_path, "a/1.jpg", "b/1.jpg", "a/v.mp4")])
    assert [file.label for file in sources.files if file.kind == "clip"] == [None]


def test_several_sources_and_single_files(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "one", "a.jpg"), touch(tmp_path / "two", "b.mp4")
    sources = find_sources([one, two / "b.mp4"])
    assert [(file.kind, file.key) for file in sources.files] == [("image", "a"), ("clip", "b")]


def test_equal_names_get_different_keys(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "one", "a.jpg", "a.png", "a_2.jpg"), touch(tmp_path / "two", "a.jpg")
    keys = [file.key for file in find_sources([one, two]).files]
    assert len(set(keys)) == 4
    assert keys[0] == "a"
    assert keys[2] == "a_2"


def test_loop_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert [file.source for file in find_sources([tmp_path]).files] == ["a/1.jpg"]


def test_linked_folder_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert [file.source for file in find_sources([tmp_path / "root"]).files] == ["link/1.jpg"]


def test_missing_path_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file or folder\. Give an image"):
        find_sources([tmp_path / "nowhere"])


def test_folder_without_images_names_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 files, but no image and no video found\. Allowed: .*\.jpg"):
        find_sources([touch(tmp_path, "a.txt", "b.tar")])


def test_empty_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no files found"):
        find_sources([tmp_path])


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("cat/0001.jpg", "cat/0001"),
        ("v1.0/my photo.final.jpg", "v1_0/my_photo_final"),
        ("bär/日本.png", "bär/日本"),
        ("a'b\n\"c.jpg", "a_b__c"),
    ],
)
def test_safe_key(source: str, key: str) -> None:
    assert safe_key(source) == key


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_key_never_breaks_webdataset_or_ustar(stem: str) -> None:
    key = safe_key(f"{stem}.jpg")
    assert "." not in key
    assert not any(character.isspace() for character in key)
    assert len(key.encode()) <= 80


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert safe_key("x" * 200 + "1.jpg") != safe_key("x" * 200 + "2.jpg")


def test_every_n_takes_the_first_of_each_class() -> None:
    files = [source_file(f"{label}{index}", label) for label in "ab" for index in range(6)]
    val = [file.key for file in assign_splits(files, "every:5") if file.split == "val"]
    assert val == ["a0", "a5", "b0", "b5"]


def test_hash_share_is_near_and_does_not_move_when_files_are_added() -> None:
    files = [source_file(f"image{index}") for index in range(4000)]
    splits = {file.key: file.split for file in assign_splits(files, "hash:0.25")}
    assert 900 < sum(split == "val" for split in splits.values()) < 1100
    fewer = {file.key: file.split for file in assign_splits(files[::3], "hash:0.25")}
    assert all(splits[key] == split for key, split in fewer.items())


def test_hash_choice_is_the_same_everywhere() -> None:
    # Golden: a change here moves samples between train and val of every user's build.
    files = assign_splits([source_file(f"{index}") for index in range(20)], "hash:0.3")
    assert [file.key for file in files if file.split == "val"] == ["2", "6", "17", "18"]


def test_no_split_by_default() -> None:
    assert {file.split for file in assign_splits([source_file("a"), source_file("b")], "none")} == {"train"}
