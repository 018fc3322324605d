"""Digests of our own sources: modules in, one hash of all that they import out. Comments and docstrings do not count.

Members of a registry (a task, a head, an evaluation) are followed only where they are asked for or another member
imports them: the registry names all of them, and a cell runs a few.
"""

import ast
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

__all__ = ["SourceTree", "code_digest", "installed_sources"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipelines", "training", "benchmarks")
REGISTRIES = ("pipelines.tasks", "training.heads", "benchmarks.evaluations")
LISTS_OF_MEMBERS = ("TASKS", "PRETEXT_TASKS", "HEADS", "EVALUATIONS", "__all__")
"""Names in a registry that change with every member; what a stage runs of them is in its own modules."""
DIGEST_LENGTH = 16


class SourceTree:
    """The sources below a folder that holds our packages. Reads each file once."""

    def __init__(self, root: Path) -> None:
        paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
        if not paths:
            raise FileNotFoundError(root / PACKAGES[0])
        self._paths = {_module_name(path.relative_to(root)): path for path in paths}
        self._parsed: dict[str, tuple[str, frozenset[str]]] = {}
        self._members = {
            name
            for registry in REGISTRIES
            if registry in self._paths
            for name in self._read(registry)[1]
            if name.startswith(f"{registry}.") and _is_member(name)
        }

    def digests(self, modules: Collection[str]) -> dict[str, str]:
        """Return the digest of each module that these modules run, by name: their own and of all they import.

        Imports inside functions count. Raises KeyError for a module that is not there.
        """
        found: dict[str, str] = {}
        # A module, and whether a member asked for it.
        waiting = [(name, True) for name in modules]
        while waiting:
            name, is_wanted = waiting.pop()
            if name in found or (name in self._members and not is_wanted):
                continue
            found[name], imported = self._read(name)
            waiting += [(other, name in self._members) for other in sorted(imported)]
        return dict(sorted(found.items()))

    def _read(self, name: str) -> tuple[str, frozenset[str]]:
        """Return the digest of a module's own code, and the modules of ours that it imports."""
        if name not in self._parsed:
            tree = ast.parse(self._paths[name].read_text(encoding="utf-8"))
            imported = frozenset(self._imported(tree) - {name})
            self._parsed[name] = (_digest_of(tree, is_registry=name in REGISTRIES), imported)
        return self._parsed[name]

    def _imported(self, tree: ast.Module) -> set[str]:
        names: set[str] = set()
        for node in _runtime_nodes(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                # `from a import b` means the module a.b where there is one.
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {one if one in self._paths else node.module for one in inner}
        return names & set(self._paths)


@lru_cache(maxsize=1)
def installed_sources() -> SourceTree:
    """Return the sources that this process runs."""
    return SourceTree(ROOT)


def code_digest(digests: Mapping[str, str]) -> str:
    """Return one short digest of many, by module."""
    text = json.dumps(sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _module_name(path: Path) -> str:
    return path.as_posix().removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def _is_member(name: str) -> bool:
    """Return whether a module that a registry imports is a member; `base` is what all members build on."""
    return name.rpartition(".")[2] != "base"


def _runtime_nodes(tree: ast.Module) -> Iterable[ast.AST]:
    """Yield the nodes of a module without those that only type checkers read."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        waiting += node.orelse if is_for_types and isinstance(node, ast.If) else ast.iter_child_nodes(node)


def _digest_of(tree: ast.Module, *, is_registry: bool) -> str:
    """Return a digest of what a module runs. The tree is changed; it holds no comments and no lines to begin with."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Docstrings of modules, classes and functions, and texts under attributes: all are bare strings.
            node.body = [one for one in body if not _is_bare_text(one)]  # type: ignore[attr-defined]
    if is_registry:
        tree.body = [one for one in tree.body if not _lists_members(one)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:DIGEST_LENGTH]


def _is_bare_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _lists_members(node: ast.stmt) -> bool:
    """Return whether a statement of a registry imports members or lists them."""
    targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
    names = {one.id for one in targets if isinstance(one, ast.Name)}
    return isinstance(node, ast.Import | ast.ImportFrom) or bool(names & set(LISTS_OF_MEMBERS))
