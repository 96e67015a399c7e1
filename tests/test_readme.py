"""The README stays true: its tables and its file tree name what there is."""

import re
import tomllib
from pathlib import Path

import pytest

from gossip.topics import TOPICS
from p2p.net.protocols import PROTOCOLS
from tests.test_layers import PACKAGES, ROOT, sources

README = (ROOT / "README.md").read_text()


def tree() -> str:
    """The file tree."""
    return README.partition("## Files")[2].partition("```")[2].partition("```")[0]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_source_file_is_in_the_tree(path: Path) -> None:
    name = path.name if path.name != "__init__.py" else f"{path.parent.name}/"
    assert re.search(rf"^ *{re.escape(name)} ", tree(), re.MULTILINE)


def test_the_tree_names_nothing_that_is_not_there() -> None:
    names = {path.name for path in sources()}
    listed = re.findall(r"^ *(\S+\.py) ", tree(), re.MULTILINE)
    assert set(listed) <= names
    assert all(f"{package}/" in tree() for package in PACKAGES)


def test_no_placeholder_was_left() -> None:
    """A line of one word in capitals stands for what was to be filled in."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^[^\w\n]*[A-Z][A-Z_]+[^\w\n]*$", prose, re.MULTILINE) == []


def test_topics_and_protocols_are_in_their_tables() -> None:
    for topic in TOPICS:
        row = re.search(rf"^\| `{topic.name}` .*$", README, re.MULTILINE)
        assert row is not None
        assert f"{topic.size // 1024} KiB; {topic.rate:g} a second" in row[0]
        assert f"burst {topic.burst}" in row[0]
    for protocol in PROTOCOLS:
        assert f"| `{protocol.id}` |" in README


def test_extras_and_markers_named_in_commands_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = set(re.findall(r"\.\[(\w+)\]", README))
    assert extras <= set(project["project"]["optional-dependencies"])
    markers = {
        marker.split(":")[0] for marker in project["tool"]["pytest"]["ini_options"]["markers"]
    }
    assert set(re.findall(r"pytest -q -m (\w+)", README)) <= markers
    for module in re.findall(r"python -m (tests[\w.]+)", README):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()


def test_the_two_commands_set_up_everything_themselves() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert [command.rsplit("&& ", 1)[1] for command in commands] == [
        ".venv/bin/yuma demo",
        ".venv/bin/pytest -q",
    ]
