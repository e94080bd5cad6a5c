"""Names are plain words, and what tests share lies in tests/support."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import ROOT

FOLDERS = ("app", "bench", "migrations", "tests")
PRIVATE = {
    *("told", "tell", "said", "moment", "lane", "express", "curfew"),
    *("nudge", "knock", "farewell", "zygote", "leash", "tally", "wish"),
}
"""Words that say nothing to who does not know us."""
BARE = {"seen", "made", "kept", "found"}
"""Words that, alone, do not name what they hold."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def is_plain(name: str) -> bool:
    words = {word.lower() for word in _WORD.findall(name)}
    singular = {word.removesuffix(ending) for word in words for ending in ("", "s", "es")}
    return not singular & PRIVATE and name.strip("_").lower() not in BARE


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The names that a module defines and the keywords it passes, with their lines. A test's own name may be any."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if not name.startswith("test_"):
                yield node.lineno, name
            case ast.ClassDef(name=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_is_a_private_word(folder: str) -> None:
    paths = modules(folder)
    assert paths
    files = [str(path.relative_to(ROOT)) for path in paths if not is_plain(path.stem)]
    others = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in paths
        for line, name in names(ast.parse(path.read_text()))
        if not is_plain(name)
    ]
    assert files + others == []


@pytest.mark.parametrize("name", ["told", "_made", "Found", "TALLY", "wishes", "next_moment", "TwoLanes", "is_told"])
def test_a_private_word_is_recognised_however_it_is_written(name: str) -> None:
    assert not is_plain(name)


@pytest.mark.parametrize("name", ["found_rows", "first_seen_at", "planes", "expression", "intelligence", "_row"])
def test_a_plain_name_may_contain_its_letters(name: str) -> None:
    assert is_plain(name)


def imports(pattern: str) -> list[str]:
    """What tests and benches import whose name matches `pattern`, with the file."""
    return [
        f"{path.relative_to(ROOT)}: {module}"
        for folder in ("tests", "bench")
        for path in modules(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _imported(node)
        if re.search(pattern, module)
    ]


def test_no_module_imports_from_a_test_module() -> None:
    assert imports(r"^tests\.(\w+\.)?test_") == []


def test_no_test_imports_a_private_name_of_ours() -> None:
    assert imports(r"^(app|bench|tests)\.(\w+\.)*_(?!_)") == []


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
