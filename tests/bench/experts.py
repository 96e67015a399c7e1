"""Two small experts from nothing: one of Python source, one of Spanish text, one tokenizer.

`python -m tests.bench.experts DIR` writes DIR/python and DIR/spanish (some minutes each on one
core), DIR/gate.json, the texts they were made of, and what is measured on later. The Spanish text
is Debian's package manpages-es; the mixed file is a module on PyPI commented in Spanish.
"""

import gzip
import hashlib
import re
import subprocess
import sys
import sysconfig
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from models.tokenizer import train_tokenizer
from tests.bench.common import ROOT

VOCABULARY = 1024
STEPS = 700
TOKENIZER_CHARACTERS = 250_000
"""Of each corpus, which the tokenizer is made from."""
HELD_OUT_SHARE = 16
"""One file of so many is for measuring only, as its name falls."""
GROUND_CHARACTERS = 16_000
"""Of each held-out ground."""
MIXED = "aletheia-genetic-optimizers==2.3.3"
MIXED_FILE = "aletheia_genetic_optimizers/genetic_optimizer/__init__.py"
TUNING_FILE = "aletheia_genetic_optimizers/population_methods/__init__.py"
"""What a constant was chosen by, so that the mixed file stays unseen."""
SKIPPED = ("test", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages", "tests")


def python_files() -> Iterator[tuple[str, str]]:
    """Names and texts of the standard library's modules."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if not set(SKIPPED) & set(name.parts):
            yield str(name), path.read_bytes().decode(errors="ignore")


def spanish_files(work: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the manual pages in Spanish."""
    subprocess.run(["apt-get", "download", "-qq", "manpages-es"], cwd=work, check=True)
    (package,) = work.glob("manpages-es_*.deb")
    subprocess.run(["dpkg", "-x", package.name, "manpages"], cwd=work, check=True)
    for path in sorted((work / "manpages" / "usr" / "share" / "man").rglob("*.gz")):
        text = plain(gzip.decompress(path.read_bytes()).decode(errors="ignore"))
        if len(text) > 500:  # others only name another page
            yield path.name.removesuffix(".gz"), text


def plain(roff: str) -> str:
    """A manual page without what is for the printer."""
    lines = []
    for line in roff.splitlines():
        if line.startswith(('.\\"', "'\\\"", ".TH", ".de", ".if", ".ie", ".el", ".ds", ".nr")):
            continue
        heading = re.match(r"\.S[HS] +(.*)", line)
        if heading:
            line = "\n" + heading[1]
        line = re.sub(r"^\.(TP|PP|P|br|nf|fi|in|RS|RE|IP|sp|ad|hy|PD|EX|EE|UE|ME|LP)\b.*", "", line)
        line = re.sub(r"^\.(BR?|IR?|RB|RI|BI|IB|SM|UR|MT|I) +", "", line)
        line = re.sub(r"\\f[BIPR]|\\f\(..|\\&|\\c|\\/|\\,", "", line)
        lines.append(line.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def is_held_out(name: str) -> bool:
    """Whether a file is for measuring only."""
    return hashlib.blake2b(name.encode()).digest()[0] % HELD_OUT_SHARE == 0


def write_corpus(files: Iterator[tuple[str, str]], place: Path) -> str:
    """Write the files to learn from; the first characters of those held out."""
    held_out = []
    for name, text in files:
        if is_held_out(name):
            held_out.append(text[:4000])
        else:
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return "\n".join(held_out)[:GROUND_CHARACTERS]


def write_texts(place: Path) -> None:
    """Write both corpora, and the held-out texts: each expert's ground, and the mixed files."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "held-out").mkdir(exist_ok=True)
    grounds = {
        "python": write_corpus(python_files(), place / "texts" / "python"),
        "spanish": write_corpus(spanish_files(place), place / "texts" / "spanish"),
    }
    for name, text in grounds.items():
        (place / "held-out" / name).write_text(text)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), MIXED],
        check=True,
    )
    (wheel,) = place.glob("aletheia*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(place / "wheel")])
    for name, file in (("mixed", MIXED_FILE), ("tuning", TUNING_FILE)):
        (place / "held-out" / name).write_text((place / "wheel" / file).read_text())


def write_tokenizer(place: Path) -> None:
    """Write the tokenizer that both share, of about as much text of each."""
    texts = []
    for name in ("python", "spanish"):
        room = TOKENIZER_CHARACTERS
        files = sorted((place / "texts" / name).rglob("*"), key=lambda path: hash_of(path.name))
        for path in files:
            if path.is_file() and room > 0:
                texts.append(path.read_text()[: min(room, 8000)])
                room -= len(texts[-1])
    (place / "tokenizer").mkdir(exist_ok=True)
    train_tokenizer(texts, VOCABULARY).save(place / "tokenizer" / "tokenizer.json")


def hash_of(name: str) -> bytes:
    """What orders files as if shuffled."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def command_of(place: Path, name: str, steps: int) -> list[str]:
    """What trains one expert."""
    return [
        sys.executable, "-m", "models.train", "--size", "expert", "--name", f"{name}-expert",
        "--steps", str(steps), "--tokenizer", str(place / "tokenizer"),
        "--corpus", str(place / "texts" / name), "--out", str(place / name),
    ]  # fmt: skip


def make(place: Path, steps: int) -> None:
    """Make all that is not there yet."""
    if not (place / "tokenizer" / "tokenizer.json").is_file():
        write_texts(place)
        write_tokenizer(place)
    if not (place / "gate.json").is_file():
        grounds = [str(place / "texts" / name) for name in ("python", "spanish")]
        command = [sys.executable, "-m", "models.gate", "--out", str(place / "gate.json"), *grounds]
        subprocess.run(command, cwd=ROOT, check=True)
    for name in ("python", "spanish"):
        if not (place / name / "card.json").is_file():
            subprocess.run(
                ["nice", "-n", "19", *command_of(place, name, steps)], cwd=ROOT, check=True
            )


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m tests.bench.experts", description=__doc__)
    parser.add_argument("place", type=Path, metavar="DIR")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    make(options.place.absolute(), options.steps)
