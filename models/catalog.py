"""Model directories: which files count, whether they are sound, their digest, whether they fit.

* A text model is config.json, model.safetensors and tokenizer.json. A tensor model is config.json
  and model.pt2, an exported program: the operator's own file only, never taken from a peer.
* The digest is that of the manifest of exactly these files: equal digests answer alike.
* A directory that holds a pickle, or whose JSON asks for code to be run, is refused as a whole.
* No torch here: the daemon reads models before any worker starts.
"""

from dataclasses import dataclass
from pathlib import Path

from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models.config import MAX_CONFIG_BYTES, Config, GptConfig, read_config
from models.files import (
    CONFIG,
    PROGRAM,
    TOKENIZER,
    WEIGHTS,
    read_small,
    refuse_code_in,
    refuse_pickles,
)
from models.header import parameters_of, read_header
from models.manifest import Described, described
from models.tokenizer import load_tokenizer
from models.types import Kind

FILES = {Kind.TEXT: (CONFIG, WEIGHTS, TOKENIZER), Kind.TENSOR: (CONFIG, PROGRAM)}
"""The files that decide the answers; a directory may hold others, such as a card."""
MAX_TOKENIZER_BYTES = 16 * 2**20
SHIPPED = Path(__file__).parent / "shipped"
"""Models that come with the package: they work without a network."""
WORKER_BYTES = 320 * 2**20
"""What a worker takes with a tiny model (measured: 265 MiB for text, 316 MiB for a program)."""
MEGABYTE = 2**20


@dataclass(frozen=True)
class Shape:
    """What a sound model directory holds, as far as its files' heads tell."""

    config: Config
    kind: Kind
    files: tuple[str, ...]
    """Those that decide the answers."""
    parameters: int
    weight_bytes: int
    """Once loaded; text weights run as float32 whatever they are stored as."""


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
    def weight_bytes(self) -> int:
        """Of its weights once loaded."""
        return self.shape.weight_bytes

    @property
    def digest(self) -> Hash:
        """Its digest."""
        return self.described.manifest.digest

    @property
    def name(self) -> str:
        """What its config.json calls it."""
        return self.config.name

    @property
    def may_travel(self) -> bool:
        """Whether it may go to peers: not a program, which would run there."""
        return self.kind is not Kind.TENSOR


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
        config = read_config(read_small(directory / CONFIG, MAX_CONFIG_BYTES))
        refuse_pickles(directory)
        shape = _shape_of(directory, config)
        refuse_code_in(directory, shape.files, MAX_CONFIG_BYTES)
    except OSError as error:
        raise _unreadable(directory, error) from None
    return shape


def _unreadable(directory: Path, error: OSError) -> Invalid:
    return Invalid(Reason.BAD_MODEL, f"{directory}: {error.strerror}: {error.filename}")


def _shape_of(directory: Path, config: Config) -> Shape:
    if isinstance(config, GptConfig):
        return _gpt_shape(directory, config)
    size = (directory / PROGRAM).stat().st_size
    return Shape(config, Kind.TENSOR, FILES[Kind.TENSOR], config.parameters, size)


def _gpt_shape(directory: Path, config: GptConfig) -> Shape:
    tokenizer = load_tokenizer(read_small(directory / TOKENIZER, MAX_TOKENIZER_BYTES))
    if tokenizer.size != config.vocabulary:
        detail = f"tokenizer.json has {tokenizer.size} tokens, config.json {config.vocabulary}"
        raise Invalid(Reason.BAD_MODEL, detail)
    parameters = parameters_of(read_header(directory / WEIGHTS))
    if parameters != config.parameters:
        detail = f"{WEIGHTS} holds {parameters} numbers, config.json wants {config.parameters}"
        raise Invalid(Reason.BAD_MODEL, detail)
    return Shape(config, Kind.TEXT, FILES[Kind.TEXT], parameters, 4 * parameters)


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


def memory_need(model: Model, slots: int) -> int:
    """About how many bytes a worker with this model takes."""
    # Twice the weights: loading holds the file's pages and the converted copy for a moment.
    return WORKER_BYTES + 2 * model.weight_bytes + _cache_bytes(model.config, slots)


def _cache_bytes(config: Config, slots: int) -> int:
    """Keys and values of all slots as float32; exported programs keep none."""
    if not isinstance(config, GptConfig):
        return 0
    return 2 * 4 * slots * config.layers * config.context * config.width


def validate_memory(model: Model, slots: int, available: int | None) -> None:
    """Return if a worker with this model fits. Raises Invalid NO_MEMORY.

    `available` is what `available_memory()` says; None, where the system tells nothing, fits.
    """
    need = memory_need(model, slots)
    if available is not None and need > available:
        detail = f"{model.name} needs {need // MEGABYTE} MB, {available // MEGABYTE} MB are free"
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
