"""The structure holds: who may import whom, and which file is a library's one door."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ledger", "consensus", "gossip", "models", "p2p")
MAY_IMPORT = {
    "ledger": set(),
    "consensus": {"ledger"},
    "gossip": {"ledger", "consensus"},
    "models": {"ledger"},
    "p2p": {"ledger", "consensus", "gossip", "models"},
}
DOORS = {
    "msgpack": ("ledger/codec.py",),
    "nacl": ("ledger/keys.py", "ledger/wallet.py", "consensus/vrf.py"),
    "bech32": ("ledger/address.py",),
    "mnemonic": ("ledger/wallet.py",),
    "lmdb": ("ledger/disk.py",),
    "sqlite3": ("p2p/node/cashbook.py",),
    "torch": ("models/",),
    "libp2p": ("p2p/net/", "gossip/pubsub.py"),
    "trio": ("p2p/", "gossip/pubsub.py"),
    "socket": ("p2p/", "models/worker.py"),
    "starlette": ("p2p/http/",),
    "hypercorn": ("p2p/http/",),
    "prometheus_client": ("p2p/http/",),
    "click": ("p2p/cli/",),
}
BY_UNICODE = {
    *("isalnum", "isalpha", "isdecimal", "isdigit", "isidentifier", "isnumeric", "isprintable"),
    *("isspace", "islower", "isupper", "istitle", "lower", "upper", "casefold", "title"),
    *("capitalize", "swapcase", "unicodedata"),
}
"""What Python's Unicode tables decide, which differ between its versions."""
NO_RULES = {
    "ledger/address.py": "how people write an address, of ASCII letters",
    "ledger/parts.py": "names of files",
    "ledger/wallet.py": "words and passwords of people",
}
"""Where that may be asked, as no block hangs on it."""
BANNED = ("pickle", "marshal", "shelve", "dill")


def sources() -> list[Path]:
    """Every source file of the five packages."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def imports_of(path: Path) -> set[str]:
    """The dotted names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_what_stands_left_of_it(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    used = {name.split(".")[0] for name in imports_of(path)} & set(PACKAGES)
    assert used - {package} <= MAY_IMPORT[package]


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in sources()
        if library in {name.split(".")[0] for name in imports_of(path)}
    }
    assert all(user.startswith(DOORS[library]) for user in users), users


def test_nothing_unpickles() -> None:
    for path in sources():
        assert not {name.split(".")[0] for name in imports_of(path)} & set(BANNED), path
        text = path.read_text()
        assert "torch.load(" not in text, path
        assert "allow_pickle=True" not in text, path


def test_no_rule_hangs_on_the_unicode_tables_of_a_python_version() -> None:
    asking = {
        str(path.relative_to(ROOT))
        for path in sources()
        if path.relative_to(ROOT).parts[0] in ("ledger", "consensus")
        and BY_UNICODE & (methods_of(path) | imports_of(path))
    }
    assert asking == set(NO_RULES)


def methods_of(path: Path) -> set[str]:
    """The methods that a file calls, and those of `str` that it names."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    called = {node.func for node in nodes if isinstance(node, ast.Call)}
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and (node in called or (isinstance(node.value, ast.Name) and node.value.id == "str"))
    }


def test_the_top_level_is_as_designed() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    designed = {"README.md", "pyproject.toml", *PACKAGES, "configs", "tests"}
    assert {name for name in top if not name.startswith(".")} == designed


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("p2p.node.node", {"torch"}),
        ("p2p.cli", {"torch", "libp2p", "starlette"}),
        ("models.catalog", {"torch"}),
        ("models.tasks.text", {"torch"}),
        ("models.tasks.embedding", {"torch"}),
        ("models.tasks.tensor", {"torch"}),
    ],
)
def test_what_a_process_does_not_load(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; sys.exit(bool({unwanted!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
