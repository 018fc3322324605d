"""Digests of sources: what changes them, and what does not. On a small tree of packages."""

from pathlib import Path

import pytest

from benchmarks.source_code import SourceTree, code_digest

FILES = {
    "pipelines/__init__.py": '"""Pixels."""',
    "pipelines/base/__init__.py": "",
    "pipelines/base/rng.py": '"""Numbers."""\ndef draw(seed):\n    """Return a number."""\n    return seed + 1\n',
    "pipelines/tasks/__init__.py": "from pipelines.tasks.base import Task\nfrom pipelines.tasks.left import Left\n"
    "from pipelines.tasks.right import Right\nTASKS = {'left': Left, 'right': Right}\n",
    "pipelines/tasks/base.py": "class Task:\n    pass\n",
    "pipelines/tasks/left.py": "from pipelines.base.rng import draw\nLeft = draw\n",
    "pipelines/tasks/right.py": "from pipelines.tasks.base import Task\nRight = Task\n",
    "training/__init__.py": "",
    "training/loop.py": "from pipelines.tasks import TASKS\ndef train():\n    import training.late\n    return TASKS\n",
    "training/late.py": "RATE = 1\n",
    "benchmarks/__init__.py": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def digest(tree: Path, *modules: str) -> str:
    return code_digest(SourceTree(tree).digests(modules))


def test_modules_are_followed_and_members_of_registries_only_where_asked_for(tree: Path) -> None:
    sources = SourceTree(tree)
    assert list(sources.digests(["training.loop"])) == [
        "pipelines.tasks",
        "pipelines.tasks.base",
        "training.late",
        "training.loop",
    ]
    with_left = sources.digests(["training.loop", "pipelines.tasks.left"])
    assert set(with_left) - set(sources.digests(["training.loop"])) == {"pipelines.tasks.left", "pipelines.base.rng"}


@pytest.mark.parametrize(
    ("name", "old", "new", "is_noticed"),
    [
        ("pipelines/base/rng.py", "seed + 1", "seed - 1", True),
        ("pipelines/base/rng.py", "Return a number", "Return another number", False),
        ("pipelines/base/rng.py", "Numbers", "Drawn numbers", False),
        ("pipelines/base/rng.py", "    return", "    # a reason\n\n    return", False),
        ("pipelines/tasks/right.py", "Right = Task", "Right = None", False),
        ("pipelines/tasks/base.py", "pass", "x = 1", True),
        ("pipelines/tasks/__init__.py", "'right': Right", "'other': Right", False),
        ("training/late.py", "1", "2", True),
    ],
)
def test_a_change_is_noticed_where_it_is_run(tree: Path, name: str, old: str, new: str, is_noticed: bool) -> None:
    before = digest(tree, "training.loop", "pipelines.tasks.left")
    path = tree / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (digest(tree, "training.loop", "pipelines.tasks.left") != before) == is_noticed


def test_a_module_that_is_not_there_is_an_error(tree: Path) -> None:
    with pytest.raises(KeyError):
        SourceTree(tree).digests(["training.nowhere"])
    with pytest.raises(FileNotFoundError):
        SourceTree(tree / "elsewhere")
