"""This node's own settings: node.toml, where each value came from.

A value comes from a flag, else from the environment (YUMA_<KEY>), else from node.toml, else it is
the default. Everything is checked once, here; what follows holds a frozen `Settings`.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, TypeVar

from ledger.types import ChainId
from p2p.addresses import is_address, is_host, is_place
from p2p.home import ConfigError, Home, write_whole

Value = str | int | bool | tuple[str, ...]
Checked = TypeVar("Checked", bound=Value)

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True)
class Rule:
    """What a key may hold: the words for people and the test."""

    allowed: str
    holds: Callable[[Any], bool]


def _within(least: int, most: int) -> Rule:
    return Rule(f"an integer from {least} to {most}", lambda value: least <= value <= most)


def _each(allowed: str, holds: Callable[[str], bool], most: int) -> Rule:
    return Rule(
        f"a list of at most {most}, each {allowed}",
        lambda items: len(items) <= most and all(holds(item) for item in items),
    )


def _is_line(text: str) -> bool:
    return 0 < len(text) <= 4096 and text.isprintable()


def _key(default: Checked, explanation: str, rule: Rule) -> Checked:
    metadata = {"explanation": explanation, "rule": rule}
    row: Checked = field(default=default, metadata=metadata)
    return row


BOOL = Rule("true or false", lambda value: True)
NAME = Rule(
    "1 to 32 of a-z, 0-9, - and _",
    lambda value: re.fullmatch(r"[a-z0-9_-]{1,32}", value) is not None,
)
LEVEL = Rule(f"one of {', '.join(LOG_LEVELS)}", lambda value: value in LOG_LEVELS)
FORMAT = Rule(f"one of {', '.join(LOG_FORMATS)}", lambda value: value in LOG_FORMATS)
ADDRESSES = _each("such as /ip4/1.2.3.4/tcp/4040", is_address, most=16)
BOOTSTRAPS = _each(
    "such as /ip4/1.2.3.4/tcp/4040/p2p/12D3KooW...",
    lambda item: is_address(item, with_peer=True),
    64,
)
PLACE = Rule("empty, or HOST:PORT such as 127.0.0.1:4080 or [::1]:4080", is_place)
HOSTS = _each("a name such as yuma.example.org", partial(is_host, "dns"), most=16)
CHECKPOINT = Rule(
    "empty, or a height and the block's hash such as 1200:<64 hexadecimal digits>",
    lambda value: re.fullmatch(r"([1-9][0-9]{0,17}:[0-9a-f]{64})?", value) is not None,
)
SYNCS = ("blocks", "snapshot")
SYNC = Rule(f"one of {', '.join(SYNCS)}", lambda value: value in SYNCS)
MODELS = _each("a model directory, or a stored or shipped model's name", _is_line, most=32)
NETUID = r"([1-9]|[12][0-9]|3[0-2])"
"""A subnet's number, of 32."""
MINED = _each(
    "such as 1:docs-gpt, a subnet and a model as in serve",
    lambda item: _is_line(item) and re.match(NETUID + ":.", item) is not None,
    most=32,
)
JUDGED = _each(
    "such as 1, or 1:DIRECTORY with data of one's own for the subnet's task",
    lambda item: _is_line(item) and re.fullmatch(NETUID + "(:.+)?", item) is not None,
    most=32,
)
SHARES = _each(
    "such as 1=0.5, a subnet and its weight",
    lambda item: re.fullmatch(NETUID + r"=[0-9]{1,5}(\.[0-9]{1,4})?", item) is not None,
    most=32,
)

MAX_PRICE = 10**12
"""Rao per 1000 output tokens (or per tensor): a token for each."""
PRICES = _each(
    f"such as docs-gpt=10000, a model's name and rao, {MAX_PRICE} at most",
    lambda item: (
        _is_line(item)
        and re.fullmatch(r".+=(0|[1-9][0-9]{0,12})", item) is not None
        and int(item.rpartition("=")[2]) <= MAX_PRICE
    ),
    most=32,
)
AMOUNT = Rule(
    "an amount of tokens such as 2.5, with at most nine decimals",
    lambda value: re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) is not None,
)


@dataclass(frozen=True)
class Settings:
    """The table of keys: name, type, default, explanation, rule."""

    network: str = _key("main", "The swarm to be part of; nodes of another never meet", NAME)
    listen: tuple[str, ...] = _key(
        ("/ip4/0.0.0.0/tcp/4040", "/ip6/::/tcp/4040"),
        "Where other nodes can dial this one",
        ADDRESSES,
    )
    announce: tuple[str, ...] = _key(
        (), "Addresses to tell others in place of those found, as behind a port forward", ADDRESSES
    )
    bootstrap: tuple[str, ...] = _key((), "Nodes to join the swarm through", BOOTSTRAPS)
    peers_target: int = _key(12, "Connections to keep up", _within(1, 256))
    connections_max: int = _key(
        512, "Connections never exceeded, each costs two file descriptors", _within(8, 65_536)
    )
    dht: bool = _key(True, "Find nodes through the Kademlia DHT", BOOL)
    mdns: bool = _key(False, "Find nodes on the local network by multicast", BOOL)
    serve: tuple[str, ...] = _key((), "Models to serve from the start", MODELS)
    slots: int = _key(8, "Requests that a model answers at once", _within(1, 256))
    threads: int = _key(1, "CPU threads of a model's worker", _within(1, 256))
    prices: tuple[str, ...] = _key(
        (), "What models cost, in rao per 1000 output tokens; others are free", PRICES
    )
    budget: str = _key("0", "Tokens that this node may pay for answers in 24 hours", AMOUNT)
    price_limit: int = _key(
        1_000_000,
        "The most rao per 1000 output tokens that this node agrees to",
        _within(0, MAX_PRICE),
    )
    share: bool = _key(True, "Give stored and served models to peers that want to have them", BOOL)
    upload_rate: int = _key(
        0, "Megabytes of models a second to all peers together, 0 for no limit", _within(0, 100_000)
    )
    models_max: int = _key(
        100, "Gigabytes of stored models at most, 0 for no limit", _within(0, 1_000_000)
    )
    mine: tuple[str, ...] = _key((), "Subnets to mine, each with the model to do it with", MINED)
    validate: tuple[str, ...] = _key((), "Subnets whose miners to judge", JUDGED)
    root: tuple[str, ...] = _key((), "How this node would share emission among subnets", SHARES)
    duplicates: bool = _key(
        True, "Ask miners what clients of this node asked, so that tests are not known by it", BOOL
    )
    free_requests: int = _key(
        6_000,
        "Requests a minute that each peer has free; a miner that gives none earns nothing",
        _within(0, 1_000_000),
    )
    validator_requests: int = _key(
        60_000, "Requests a minute for all validators, by their stake", _within(0, 1_000_000)
    )
    sync: str = _key("blocks", "How a new ledger catches up: all blocks, or a late state", SYNC)
    snapshots: bool = _key(True, "Keep a late state for others to begin with", BOOL)
    checkpoint: str = _key("", "A block that has to be in the chain", CHECKPOINT)
    gateway: str = _key(
        "127.0.0.1:4080", "Where applications and browsers reach this node; nowhere if empty", PLACE
    )
    gateway_hosts: tuple[str, ...] = _key(
        (), "Names that the gateway answers to, beside its own address and localhost", HOSTS
    )
    log_level: str = _key("info", "What the log says", LEVEL)
    log_format: str = _key("text", "Lines of the log: for people, or an object each", FORMAT)


@dataclass(frozen=True)
class Key:
    """One row of the table, as values."""

    name: str
    default: Value
    explanation: str
    rule: Rule

    @property
    def kind(self) -> type:
        """The type of its values."""
        return type(self.default)

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"YUMA_{self.name.upper()}"


@dataclass(frozen=True)
class Loaded:
    """The settings, and for each key what set it."""

    settings: Settings
    origins: Mapping[str, str]


KEYS = {
    row.name: Key(row.name, getattr(Settings, row.name), **row.metadata) for row in fields(Settings)
}


def load_settings(home: Home, flags: Mapping[str, Value], environ: Mapping[str, str]) -> Loaded:
    """The settings of a node and where each came from. Raises ConfigError."""
    in_file = _file_values(home)
    values: dict[str, Any] = {}
    origins = {}
    for key in KEYS.values():
        if key.name in flags:
            origins[key.name] = f"flag --{key.name.replace('_', '-')}"
            values[key.name] = _checked(key, flags[key.name], origins[key.name])
        elif key.variable in environ:
            origins[key.name] = f"environment {key.variable}"
            values[key.name] = parse_value(key, environ[key.variable], origins[key.name])
        elif key.name in in_file:
            origins[key.name] = f"file {home.settings}"
            values[key.name] = in_file[key.name]
        else:
            origins[key.name] = "default"
    return Loaded(Settings(**values), origins)


def set_value(home: Home, name: str, value: Value) -> None:
    """Put one key into node.toml; other keys and comments stay as they are. Raises ConfigError."""
    before = _file_values(home)
    value = _checked(key_of(name), value, "config set")
    old = home.settings.read_text() if home.settings.exists() else ""
    text = _with_line(old, name, f"{name} = {toml_text(value)}")
    if _parsed(home, text) != {**before, name: value}:
        raise ConfigError(f"{home.settings} is written in a way that only an editor can change")
    try:
        write_whole(home.settings, text.encode())
    except OSError as error:
        raise ConfigError(f"{home.settings} cannot be written: {error.strerror}") from None


def key_of(name: str) -> Key:
    """The row of a key. Raises ConfigError."""
    if name not in KEYS:
        raise ConfigError(f"there is no setting {name!r}, there are: {', '.join(KEYS)}")
    return KEYS[name]


def parse_value(key: Key, text: str, source: str) -> Value:
    """The value that a text stands for; commas part a list's items. Raises ConfigError."""
    value: Value = text
    if key.kind is tuple:
        value = tuple(item.strip() for item in text.split(",") if item.strip())
    elif key.kind is bool:
        truth = {"true": True, "1": True, "false": False, "0": False}
        value = truth.get(text.lower(), text)
    elif key.kind is int and re.fullmatch(r"-?[0-9]{1,18}", text):
        value = int(text)
    return _checked(key, value, source)


def toml_text(value: Value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)  # TOML's basic strings take all of JSON's escapes


def plain_text(value: Value) -> str:
    """A value as `config get` prints and `config set` takes it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return value if isinstance(value, str) else toml_text(value)


def template(values: Mapping[str, Value]) -> str:
    """A node.toml that explains every key and sets those given."""
    lines = [
        "# Settings of this node. A flag, or YUMA_<KEY> in the environment, wins over this file."
    ]
    for key in KEYS.values():
        lines += ["", f"# {key.explanation}: {key.rule.allowed}."]
        lines.append(f"# {key.name} = {toml_text(key.default)}")
        if key.name in values:
            lines.append(f"{key.name} = {toml_text(values[key.name])}")
    return "\n".join(lines) + "\n"


def chain_of(network: str) -> ChainId:
    """The id that everything signed in a network carries."""
    from ledger.codec import encode, hash_of  # msgpack: not for commands that never hash

    return ChainId(hash_of("poi/genesis", encode((network,)))[:16])


def as_json(settings: Settings) -> dict[str, Any]:
    """Settings as JSON takes them."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(settings).items()
    }


def _file_values(home: Home) -> dict[str, Value]:
    try:
        return _parsed(home, home.settings.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{home.settings} cannot be read: {error}") from None


def _parsed(home: Home, text: str) -> dict[str, Value]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{home.settings} is not TOML: {error}") from None
    values = {}
    for name, value in found.items():
        if name not in KEYS:
            known = ", ".join(KEYS)
            raise ConfigError(f"{home.settings} has an unknown key {name!r}, known are: {known}")
        values[name] = _checked(KEYS[name], value, str(home.settings))
    return values


def _checked(key: Key, value: Any, source: str) -> Value:
    plain: Any = tuple(value) if type(value) is list else value
    fits = type(plain) is key.kind
    if fits and key.kind is tuple:
        fits = all(type(item) is str for item in plain)
    if not fits or not key.rule.holds(plain):
        found = plain_text(plain) if fits else str(value)
        raise ConfigError(f"{source}: {key.name} has to be {key.rule.allowed}, not {found!r:.120}")
    checked: Value = plain
    return checked


def _with_line(text: str, name: str, line: str) -> str:
    """A TOML text where this line assigns the key: in the old place, at its comment, or last."""
    lines = text.rstrip("\n").split("\n")
    start = _line_of(lines, rf'\s*"?{name}"?\s*=')
    if start is not None:
        lines[start : _end_of_value(lines, start)] = [line]
    elif (comment := _line_of(lines, rf"#\s*{name}\s*=")) is not None:
        lines.insert(comment + 1, line)
    else:
        lines.append(line)
    return "\n".join(lines) + "\n"


def _line_of(lines: list[str], pattern: str) -> int | None:
    return next((index for index, line in enumerate(lines) if re.match(pattern, line)), None)


def _end_of_value(lines: list[str], start: int) -> int:
    """The line after an assignment, which may go over several."""
    for end in range(start + 1, len(lines) + 1):
        try:
            tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
        return end
    return start + 1
