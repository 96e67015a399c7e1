"""Model directories: which files count, whether they are sound, their digest, whether they fit.

* A text model is config.json, model.safetensors, tokenizer.json and, where it has one, a
  chat_template.jinja. A tensor model is config.json and model.pt2, an exported program: the
  operator's own file only, never taken from a peer. What a directory of the transformers library
  consists of, `models.pretrained` says.
* The digest is over the names, sizes and hashes of exactly these files: equal digests answer alike.
* No torch here: the daemon reads models before any worker starts.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ledger.codec import encode, hash_of
from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models import pretrained
from models.config import (
    MAX_CONFIG_BYTES,
    MAX_NAME_BYTES,
    Config,
    GptConfig,
    PretrainedConfig,
    read_config,
)
from models.header import parameters_of, read_header
from models.pretrained import TEMPLATE
from models.processor import has_bfloat16
from models.tokenizer import load_tokenizer
from models.types import Kind

CONFIG, WEIGHTS, TOKENIZER, PROGRAM = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "model.pt2",
)
FILES = {Kind.TEXT: (CONFIG, WEIGHTS, TOKENIZER), Kind.TENSOR: (CONFIG, PROGRAM)}
"""The files of our own models that decide the answers; a directory may hold others, such as a
card."""
MAX_TEMPLATE_BYTES = 2**16
MAX_TOKENIZER_BYTES = 16 * 2**20
MAX_CONTEXT = 8192
"""Of a pretrained model: each slot can hold as many tokens, and memory for them is set aside."""
CACHE_BYTES = 2 * 2**30
"""For the slots of a pretrained model together; a larger cache is a shorter context."""
PRETRAINED_BYTES = 300 * 2**20
"""What the transformers library takes beside torch."""
SHIPPED = Path(__file__).parent / "shipped"
"""Models that come with the package: they work without a network."""
WORKER_BYTES = 320 * 2**20
"""What a worker takes with a tiny model (measured: 265 MiB for text, 316 MiB for a program)."""
MEGABYTE = 2**20


@dataclass(frozen=True)
class Model:
    """A sound model directory."""

    directory: Path
    name: str
    """What its config.json calls it, or its directory."""
    config: Config
    kind: Kind
    digest: Hash
    parameters: int
    dtype: str
    """The numbers that it computes with."""
    weight_bytes: int
    """Once loaded."""
    tokenizer: bytes = b""
    """Hash of tokenizer.json; none where there is none."""


def open_model(directory: Path) -> Model:
    """The model in a directory, all its files checked. Raises Invalid BAD_MODEL."""
    try:
        return _opened(directory)
    except OSError as error:
        raise Invalid(
            Reason.BAD_MODEL, f"{directory}: {error.strerror}: {error.filename}"
        ) from None


def _opened(directory: Path) -> Model:
    config = read_config(_small_file(directory / CONFIG, MAX_CONFIG_BYTES))
    if isinstance(config, GptConfig):
        return _opened_gpt(directory, config)
    if isinstance(config, PretrainedConfig):
        return _opened_pretrained(directory, config)
    size = (directory / PROGRAM).stat().st_size
    digest = _digest_of(directory, FILES[Kind.TENSOR])
    kind, count = Kind.TENSOR, config.parameters
    return Model(directory, config.name, config, kind, digest, count, config.dtype, size)


def _opened_gpt(directory: Path, config: GptConfig) -> Model:
    merges = _small_file(directory / TOKENIZER, MAX_TOKENIZER_BYTES)
    tokenizer = load_tokenizer(merges)
    if tokenizer.size != config.vocabulary:
        detail = f"tokenizer.json has {tokenizer.size} tokens, config.json {config.vocabulary}"
        raise Invalid(Reason.BAD_MODEL, detail)
    parameters = parameters_of(read_header(directory / WEIGHTS))
    if parameters != config.parameters:
        detail = f"{WEIGHTS} holds {parameters} numbers, config.json wants {config.parameters}"
        raise Invalid(Reason.BAD_MODEL, detail)
    template = (TEMPLATE,) if template_of(directory) else ()
    digest = _digest_of(directory, FILES[Kind.TEXT] + template)
    kind, size = Kind.TEXT, 4 * parameters
    return Model(
        directory, config.name, config, kind, digest, parameters, "float32", size,
        hash_of("yuma/tokenizer", merges),
    )  # fmt: skip


def _opened_pretrained(directory: Path, config: PretrainedConfig) -> Model:
    """Weights that are stored in 16 bits are computed with in as many where that is faster; those
    of 32 stay what they are."""
    name = directory.name
    if not name.isprintable() or not 1 <= len(name.encode(errors="replace")) <= MAX_NAME_BYTES:
        raise Invalid(Reason.BAD_MODEL, f"the directory's name {name!r:.80} is no name of a model")
    names = (CONFIG, TOKENIZER, *pretrained.files_of(directory, WEIGHTS))
    weights = pretrained.weights_of(directory, WEIGHTS)
    parameters, half = pretrained.measured(directory, weights)
    half = half and has_bfloat16()
    digest = _digest_of(directory, names)
    dtype, size = ("bfloat16", 2) if half else ("float32", 4)
    named = hash_of("yuma/tokenizer", _small_file(directory / TOKENIZER, MAX_TOKENIZER_BYTES))
    return Model(
        directory, name, config, config.kind, digest, parameters, dtype, size * parameters, named
    )


def template_of(directory: Path) -> str:
    """The chat template of a text model; empty where it has none. Raises Invalid BAD_MODEL."""
    path = directory / TEMPLATE
    if not path.exists():
        return ""
    try:
        return _small_file(path, MAX_TEMPLATE_BYTES).decode()
    except UnicodeDecodeError:
        raise Invalid(Reason.BAD_MODEL, f"{TEMPLATE} is not UTF-8 text") from None


def _small_file(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Invalid(Reason.BAD_MODEL, f"{path.name} is over {limit} bytes")
    return data


def _digest_of(directory: Path, names: tuple[str, ...]) -> Hash:
    entries = []
    for name in sorted(names):
        with (directory / name).open("rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()
            entries.append((name, file.tell(), content))
    return hash_of("yuma/model", encode(tuple(entries)))


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
    library = PRETRAINED_BYTES if isinstance(model.config, PretrainedConfig) else 0
    return WORKER_BYTES + library + 2 * model.weight_bytes + _cache_bytes(model, slots)


def _cache_bytes(model: Model, slots: int) -> int:
    """Keys and values of all slots; what writes no text keeps none."""
    config = model.config
    if isinstance(config, GptConfig):
        return 2 * 4 * slots * config.layers * config.context * config.width
    if isinstance(config, PretrainedConfig) and config.kind is Kind.TEXT:
        return slots * context_of(model, config, slots) * config.token_bytes(number_bytes(model))
    return 0


def context_of(model: Model, config: PretrainedConfig, slots: int) -> int:
    """How many tokens a pretrained model takes in each of its slots."""
    room = CACHE_BYTES // (slots * config.token_bytes(number_bytes(model)))
    return max(2, min(config.context, MAX_CONTEXT, room))


def number_bytes(model: Model) -> int:
    """Of the numbers that a text model computes with."""
    return 2 if model.dtype == "bfloat16" else 4


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
