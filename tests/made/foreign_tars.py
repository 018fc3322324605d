"""WebDataset tars as others write them, by `tarfile` alone: layouts of img2dataset, timm's ImageNet, Hugging Face."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tests.made.media import encoded_image, picture

Layout = Literal["img2dataset", "timm", "huggingface", "classes"]
Members = Iterable[tuple[str, bytes]]


def write_tar(path: Path, members: Members, *, mtime: int = 1_700_000_000) -> Path:
    """A plain tar of these members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            tar.addfile(member, io.BytesIO(content))
    return path


def photo(seed: int) -> bytes:
    """A JPEG of 40 to 56 x 32 to 40 px."""
    return encoded_image(picture(40 + seed % 3 * 8, 32 + seed % 2 * 8, seed))


def sample(layout: Layout, tar_number: int, number: int, seed: int) -> Members:
    """The members of one sample: image, label or caption, facts."""
    image, label = photo(seed), seed * 7 % 5
    if layout == "img2dataset":
        key = f"{tar_number:05d}{number:04d}"
        facts = {"caption": "a picture", "url": f"http://x/{seed}", "key": key, "status": "success", "width": 40}
        return [(f"{key}.jpg", image), (f"{key}.txt", b"a picture"), (f"{key}.json", json.dumps(facts).encode())]
    if layout == "timm":
        key = f"n{label:08d}_{seed}"
        facts = {"label": label, "filename": f"n{label:08d}/{key}.JPEG"}
        return [(f"{key}.jpg", image), (f"{key}.cls", b"%d" % label), (f"{key}.json", json.dumps(facts).encode())]
    if layout == "huggingface":
        key = f"{number:06d}"
        return [(f"{key}.png", encoded_image(picture(40, 32, seed), "PNG")), (f"{key}.cls", b"%d\n" % label)]
    return [(f"train/class {label}/{seed}.JPEG", image)]


def write_tars(folder: Path, layout: Layout, *, num_tars: int = 3, per_tar: int = 4) -> list[Path]:
    """Tars of one layout, named as those datasets name them."""
    name = {"img2dataset": "{:05d}.tar", "timm": "imagenet1k-train-{:04d}.tar"}.get(layout, "data-{:03d}.tar")
    return [
        write_tar(
            folder / name.format(tar),
            [member for number in range(per_tar) for member in sample(layout, tar, number, tar * per_tar + number)],
        )
        for tar in range(num_tars)
    ]
