"""Model directories: which files count, whether they are sound, their digest, whether they fit.

* A text model is config.json, model.safetensors, tokenizer.json and, where it has one, a
  chat_template.jinja. A tensor model is config.json and model.pt2, an exported program: the
  operator's own file only, never taken from a peer. What a directory of the transformers library
  consists of, `models.pretrained` says.
* The digest is that of the manifest of exactly these files: equal digests answer alike.
* A directory that holds a pickle, a link that leads out of it, or no file where one is due, or
  whose JSON asks for code to be run, is refused as a whole.
* No torch here: the daemon reads models before any worker starts.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ledger.codec import hash_of
from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models import pretrained
from models.config import (
    MAX_NAME_BYTES,
    Config,
    GptConfig,
    PretrainedConfig,
    UpstreamConfig,
    read_config,
)
from models.files import (
    CONFIG,
    MAX_CONFIG_BYTES,
    MAX_JSON_BYTES,
    MAX_TEMPLATE_BYTES,
    MAX_TOKENIZER_BYTES,
    PROGRAM,
    TEMPLATE,
    TOKENIZER,
    WEIGHTS,
    read_small,
    refuse_code_in,
    refuse_pickles,
    refuse_strangers,
)
from models.header import parameters_of, read_header
from models.manifest import Described, described
from models.processor import has_bfloat16
from models.tokenizer import load_tokenizer
from models.types import Kind

FILES = {Kind.TEXT: (CONFIG, WEIGHTS, TOKENIZER), Kind.TENSOR: (CONFIG, PROGRAM)}
"""The files of our own models that decide the answers; a directory may hold others, such as a
card."""
MAX_CONTEXT = 8192
"""Of a pretrained model: each slot can hold as many tokens, and memory for them is set aside."""
CACHE_BYTES = 2 * 2**30
"""For the slots of a pretrained model together; a larger cache is a shorter context."""
MOST_CHECKS = 2
"""Begun at once (`models.findings`)."""
PRETRAINED_BYTES = 300 * 2**20
"""What the transformers library takes beside torch."""
SHIPPED = Path(__file__).parent / "shipped"
"""Models that come with the package: they work without a network."""
WORKER_BYTES = 320 * 2**20
"""What a worker takes with a tiny model (measured: 265 MiB for text, 316 MiB for a program)."""
MEGABYTE = 2**20


@dataclass(frozen=True)
class Shape:
    """What a sound model directory holds, as far as its files' heads tell."""

    name: str
    """What its config.json calls it, or its directory."""
    config: Config
    kind: Kind
    files: tuple[str, ...]
    """Those that decide the answers."""
    parameters: int
    dtype: str
    """The numbers that it computes with."""
    weight_bytes: int
    """Once loaded."""
    rounded: str = "float32"
    """What its weights are rounded to before that, wherever it is loaded."""
    tokenizer: bytes = b""
    """Hash of tokenizer.json; none where there is none."""


@dataclass(frozen=True)
class Model:
    """A sound model directory."""

    directory: Path
    shape: Shape
    described: Described
    """Its files, hashed."""

    @property
    def config(self) -> Config:
        """Its config.json."""
        return self.shape.config

    @property
    def kind(self) -> Kind:
        """What goes in and what comes out."""
        return self.shape.kind

    @property
    def parameters(self) -> int:
        """How many numbers its weights are."""
        return self.shape.parameters

    @property
    def dtype(self) -> str:
        """The numbers that it computes with."""
        return self.shape.dtype

    @property
    def weight_bytes(self) -> int:
        """Of its weights once loaded."""
        return self.shape.weight_bytes

    @property
    def tokenizer(self) -> bytes:
        """Hash of tokenizer.json; none where there is none."""
        return self.shape.tokenizer

    @property
    def digest(self) -> Hash:
        """Its digest."""
        return self.described.manifest.digest

    @property
    def name(self) -> str:
        """What its config.json calls it, or its directory."""
        return self.shape.name

    @property
    def may_travel(self) -> bool:
        """Whether it may go to peers."""
        return _travels(self.config)


def open_model(directory: Path) -> Model:
    """The model in a directory, all its files checked. Raises Invalid BAD_MODEL."""
    shape = check_model(directory)
    try:
        return Model(directory, shape, described(directory, shape.files))
    except OSError as error:
        raise _unreadable(directory, error) from None


def check_model(directory: Path) -> Shape:
    """What a directory holds, its weights not read. Raises Invalid BAD_MODEL."""
    try:
        refuse_strangers(directory)
        config = read_config(read_small(directory / CONFIG, MAX_CONFIG_BYTES))
        refuse_pickles(directory)
        shape = _shape_of(directory, config)
        refuse_code_in(directory, shape.files, MAX_JSON_BYTES)
    except OSError as error:
        raise _unreadable(directory, error) from None
    return shape


def check_small(directory: Path, names: tuple[str, ...]) -> None:
    """Return if files that a peer gave, of which the weights are not looked at, can be a model's.

    Raises Invalid BAD_MODEL.
    """
    try:
        config = read_config(read_small(directory / CONFIG, MAX_CONFIG_BYTES))
        refuse_code_in(directory, names, MAX_JSON_BYTES)
    except OSError as error:
        raise _unreadable(directory, error) from None
    if not _travels(config):
        detail = f"{CONFIG} is that of a program or of an engine, which are never taken from peers"
        raise Invalid(Reason.BAD_MODEL, detail)


def _travels(config: Config) -> bool:
    """Not a program, which would run there, nor somebody else's engine, which is not here."""
    return isinstance(config, GptConfig | PretrainedConfig)


def _unreadable(directory: Path, error: OSError) -> Invalid:
    if not directory.is_dir():
        return Invalid(Reason.BAD_MODEL, f"there is no directory {directory}")
    if isinstance(error, FileNotFoundError):
        lacking = os.path.relpath(error.filename, directory)
        return Invalid(Reason.BAD_MODEL, f"{directory} lacks {lacking}, which such a model has")
    return Invalid(Reason.BAD_MODEL, f"{error.filename}: {error.strerror}")


def _shape_of(directory: Path, config: Config) -> Shape:
    if isinstance(config, GptConfig):
        return _gpt_shape(directory, config)
    if isinstance(config, PretrainedConfig):
        return _pretrained_shape(directory, config)
    if isinstance(config, UpstreamConfig):
        return Shape(config.name, config, Kind.TEXT, (CONFIG,), 0, "unknown", 0)
    size = (directory / PROGRAM).stat().st_size
    files, count = FILES[Kind.TENSOR], config.parameters
    return Shape(config.name, config, Kind.TENSOR, files, count, config.dtype, size)


def _gpt_shape(directory: Path, config: GptConfig) -> Shape:
    merges = read_small(directory / TOKENIZER, MAX_JSON_BYTES)
    tokenizer = load_tokenizer(merges)
    if tokenizer.size != config.vocabulary:
        detail = f"tokenizer.json has {tokenizer.size} tokens, config.json {config.vocabulary}"
        raise Invalid(Reason.BAD_MODEL, detail)
    parameters = parameters_of(read_header(directory / WEIGHTS))
    if parameters != config.parameters:
        detail = f"{WEIGHTS} holds {parameters} numbers, config.json wants {config.parameters}"
        raise Invalid(Reason.BAD_MODEL, detail)
    template = (TEMPLATE,) if template_of(directory) else ()
    files, size = FILES[Kind.TEXT] + template, 4 * parameters
    named = hash_of("yuma/tokenizer", merges)
    return Shape(
        config.name, config, Kind.TEXT, files, parameters, "float32", size, tokenizer=named
    )


def _pretrained_shape(directory: Path, config: PretrainedConfig) -> Shape:
    """Weights that are stored in 16 bits are those of bfloat16 everywhere, and computed with in as
    many where that is faster; those of 32 stay what they are."""
    name = directory.name
    if not name.isprintable() or not 1 <= len(name.encode(errors="replace")) <= MAX_NAME_BYTES:
        raise Invalid(Reason.BAD_MODEL, f"the directory's name {name!r:.80} is no name of a model")
    files = (CONFIG, TOKENIZER, *pretrained.files_of(directory, WEIGHTS))
    weights = pretrained.weights_of(directory, WEIGHTS)
    parameters, half = pretrained.measured(directory, weights)
    rounded = "bfloat16" if half else "float32"
    dtype, size = (rounded, 2) if half and has_bfloat16() else ("float32", 4)
    named = hash_of("yuma/tokenizer", read_small(directory / TOKENIZER, MAX_TOKENIZER_BYTES))
    size *= parameters
    return Shape(name, config, config.kind, files, parameters, dtype, size, rounded, named)


def template_of(directory: Path) -> str:
    """The chat template of a text model; empty where it has none. Raises Invalid BAD_MODEL."""
    path = directory / TEMPLATE
    if not path.exists():
        return ""
    try:
        return read_small(path, MAX_TEMPLATE_BYTES).decode()
    except UnicodeDecodeError:
        raise Invalid(Reason.BAD_MODEL, f"{TEMPLATE} is not UTF-8 text") from None


def shipped_names() -> tuple[str, ...]:
    """The models that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}")))


def shipped_directory(name: str) -> Path:
    """Where a model that comes with the package lies. Raises Invalid BAD_MODEL."""
    if name not in shipped_names():
        known = ", ".join(shipped_names())
        raise Invalid(
            Reason.BAD_MODEL, f"no model named {name!r:.80} comes with yuma, only {known}"
        )
    return SHIPPED / name


def memory_need(shape: Shape, slots: int) -> int:
    """About how many bytes a worker with this model takes."""
    # Twice the weights: loading holds the file's pages and the converted copy for a moment.
    library = PRETRAINED_BYTES if isinstance(shape.config, PretrainedConfig) else 0
    return WORKER_BYTES + library + 2 * shape.weight_bytes + _cache_bytes(shape, slots)


def _cache_bytes(shape: Shape, slots: int) -> int:
    """Keys and values of all slots, and of what is read; what writes no text keeps none."""
    config = shape.config
    if isinstance(config, GptConfig):
        return 2 * 4 * slots * config.layers * config.context * config.width
    if isinstance(config, PretrainedConfig) and config.kind is Kind.TEXT:
        # One row more is for reading; each check that is begun has its own, in 32 bits.
        rows = config.token_bytes(number_bytes(shape)) * (slots + 1)
        return context_of(shape, config, slots) * (rows + MOST_CHECKS * config.token_bytes(4))
    return 0


def context_of(shape: Shape, config: PretrainedConfig, slots: int) -> int:
    """How many tokens a pretrained model takes in each of its slots."""
    room = CACHE_BYTES // (slots * config.token_bytes(number_bytes(shape)))
    return max(2, min(config.context, MAX_CONTEXT, room))


def number_bytes(shape: Shape) -> int:
    """Of the numbers that a text model computes with."""
    return 2 if shape.dtype == "bfloat16" else 4


def validate_memory(shape: Shape, slots: int, available: int | None) -> None:
    """Return if a worker with this model fits. Raises Invalid NO_MEMORY.

    `available` is what `available_memory()` says; None, where the system tells nothing, fits.
    """
    need = memory_need(shape, slots)
    if available is not None and need > available:
        detail = f"{shape.name} needs {need // MEGABYTE} MB, {available // MEGABYTE} MB are free"
        raise Invalid(Reason.NO_MEMORY, detail)


def available_memory(
    meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that can still be taken here: the system's, or the container's where that is less."""
    known = [size for size in (_system_memory(meminfo), _group_memory(group)) if size is not None]
    return min(known, default=None)


def _system_memory(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text().splitlines():
        key, _, rest = line.partition(":")
        if key == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _group_memory(group: Path) -> int | None:
    """What the control group (version 2) leaves; None where it sets no limit."""
    limit = group / "memory.max"
    if not limit.is_file() or not (text := limit.read_text().strip()).isdigit():
        return None
    used = int((group / "memory.current").read_text())
    return max(0, int(text) - used + _reclaimable(group / "memory.stat"))


def _reclaimable(statistics: Path) -> int:
    """File pages that the group counts as used though the system drops them at need."""
    for line in statistics.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == "inactive_file":
            return int(value)
    return 0
