"""genesis.toml: a genesis as text, exactly. Amounts are tokens in quotes, for TOML's are floats.

Comments, spaces and the order of keys mean nothing; every value does, and so does the order of
accounts, stakes and subnets. A key that is not known, or one that is missing, is refused.
"""

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from ledger.address import address_of, public_key_of_address
from ledger.amounts import rao_of, tokens_text
from ledger.codec import MAX_INTEGER
from ledger.errors import Invalid
from ledger.genesis import (
    Allocation,
    Bond,
    FirstSubnet,
    Genesis,
    bad_genesis,
    genesis_state,
    in_entry,
)
from ledger.keys import peer_id_of, public_key_of
from ledger.limits import LIMITS, Limit
from ledger.params import Params
from ledger.subnets import first_settings
from ledger.tables import Hyperparameters, Task
from ledger.types import PublicKey

Value = TypeVar("Value")
Entry = TypeVar("Entry")

MAX_FILE_BYTES: Final = 8 * 2**20
"""Twice what the most accounts and stakes take."""
_QUOTED: Final = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'[^']*'""")
"""Besides, a dot is in a time only; to parse a key of 50,000 parts takes minutes."""
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def read_genesis(text: str) -> Genesis:
    """The genesis in a text, if a chain can begin with it. Raises Invalid BAD_GENESIS."""
    for number, line in enumerate(text.splitlines(), start=1):
        if _QUOTED.sub("", line).partition("#")[0].count(".") > 1:
            raise bad_genesis(f"line {number} has a key of parts, and no key here has any")
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_genesis(f"it is not TOML: {error!s:.200}") from None
    table = _Keys(found)
    params = _params(table.take("params", dict))
    genesis = Genesis(
        name=table.take("name", str),
        time=milliseconds_of(table.take("time", datetime)),
        params=params,
        accounts=_entries(table, "account", _account),
        stakes=_entries(table, "stake", _bond),
        subnets=_entries(table, "subnet", lambda keys: _subnet(keys, params)),
        admin=(public_key_of_address(table.take("admin", str)),) if "admin" in table else (),
    )
    table.end()
    genesis_state(genesis)
    return genesis


class _Keys:
    """A table of TOML of which every key must be taken, once, with its type."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._left = dict(values)

    def take(self, name: str, kind: type[Value]) -> Value:
        """The value of a key. Raises Invalid BAD_GENESIS."""
        if name not in self._left:
            raise bad_genesis(f"{name} is missing")
        value = self._left.pop(name)
        if type(value) is not kind:
            raise bad_genesis(f"{name} is not {_KINDS[kind]}")
        return value

    def integer(self, name: str) -> int:
        """An integer that is not negative and has 63 bits at most. Raises Invalid BAD_GENESIS."""
        value = self.take(name, int)
        if not 0 <= value <= MAX_INTEGER:
            raise bad_genesis(f"{name} is out of range")
        return value

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def end(self) -> None:
        """Whether all was taken. Raises Invalid BAD_GENESIS."""
        if self._left:
            raise bad_genesis(f"{', '.join(self._left)!r:.80} is not known")


_KINDS: Final = {
    str: "a text in quotes",
    int: "an integer",
    dict: "a table",
    list: "a list of tables",
    datetime: "a time such as 2026-01-01T00:00:00Z",
}


def _entries(table: _Keys, kind: str, read: Callable[[_Keys], Entry]) -> tuple[Entry, ...]:
    """The [[kind]] tables. Raises Invalid BAD_GENESIS, with kind and number."""
    entries = []
    for number, found in enumerate(table.take(kind, list) if kind in table else (), start=1):
        try:
            if type(found) is not dict:
                raise bad_genesis("it is not a table")
            keys = _Keys(found)
            entries.append(read(keys))
            keys.end()
        except Invalid as error:
            raise in_entry(f"{kind} {number}", error) from None
    return tuple(entries)


def _params(found: dict[str, Any]) -> Params:
    keys = _Keys(found)
    try:
        values = {name: _constant(keys, name, limit) for name, limit in LIMITS.items()}
        keys.end()
    except Invalid as error:
        raise in_entry("params", error) from None
    return Params(**values)


def _constant(keys: _Keys, name: str, limit: Limit) -> int:
    return rao_of(keys.take(name, str)) if limit.tokens else keys.integer(name)


def _account(keys: _Keys) -> Allocation:
    return Allocation(public_key_of_address(keys.take("address", str)), _amount(keys))


def _bond(keys: _Keys) -> Bond:
    coldkey = public_key_of_address(keys.take("address", str))
    return Bond(coldkey, public_key_of(keys.take("hotkey", str)), _amount(keys))


def _subnet(keys: _Keys, params: Params) -> FirstSubnet:
    owner = public_key_of_address(keys.take("owner", str))
    hotkey, netuid = public_key_of(keys.take("hotkey", str)), keys.integer("netuid")
    settings = asdict(first_settings(params))
    for name in settings:
        if name in keys:
            settings[name] = keys.integer(name)
    return FirstSubnet(
        netuid, owner, hotkey, Hyperparameters(**settings), _neurons(keys), _task(keys)
    )


def _neurons(keys: _Keys) -> tuple[PublicKey, ...]:
    found = keys.take("neurons", list) if "neurons" in keys else []
    if not all(type(one) is str for one in found):
        raise bad_genesis("neurons is not a list of peer ids")
    return tuple(map(public_key_of, found))


def _task(keys: _Keys) -> tuple[Task, ...]:
    if "task" not in keys:
        return ()
    parameters = keys.take("parameters", str) if "parameters" in keys else ""
    return (Task(keys.take("task", str), parameters),)


def _amount(keys: _Keys) -> int:
    return rao_of(keys.take("tokens", str))


def milliseconds_of(time: datetime) -> int:
    """A time with its zone as Unix milliseconds. Raises Invalid BAD_GENESIS."""
    if time.tzinfo is None:
        raise bad_genesis("time has no zone: it ends in Z, or in an offset such as +02:00")
    whole, rest = divmod(time - _1970, _MILLISECOND)
    if rest:
        raise bad_genesis("time is finer than milliseconds")
    return whole


def time_text(milliseconds: int) -> str:
    """Unix milliseconds, of a year up to 9999, as UTC."""
    time = _1970 + milliseconds * _MILLISECOND
    return time.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


# --- writing


def write_genesis(genesis: Genesis) -> str:
    """A text that `read_genesis` takes for this genesis, each constant explained."""
    return "\n".join([
        f"# The genesis of the network {genesis.name}: what all its nodes share. The chain's id is",
        "# a hash over every value here, and over the order of accounts, stakes and subnets.",
        "# Amounts are tokens; durations are blocks.",
        f'name = "{genesis.name}"',
        f"time = {time_text(genesis.time)}",
        *(f'admin = "{address_of(key)}"  # says which nodes are let in' for key in genesis.admin),
        "\n[params]",
        *(_constant_lines(genesis.params, name, limit) for name, limit in LIMITS.items()),
        *map(_account_lines, genesis.accounts),
        *map(_bond_lines, genesis.stakes),
        *(_subnet_lines(genesis.params, row) for row in genesis.subnets),
        "",
    ])  # fmt: skip


def _constant_lines(params: Params, name: str, limit: Limit) -> str:
    value: int = getattr(params, name)
    text = f'"{tokens_text(value)}"' if limit.tokens else str(value)
    return f"# {limit.explanation}.\n{name} = {text}"


def _account_lines(row: Allocation) -> str:
    return _lines("account", address=address_of(row.key), tokens=tokens_text(row.amount))


def _bond_lines(row: Bond) -> str:
    return _lines(
        "stake",
        address=address_of(row.coldkey),
        hotkey=peer_id_of(row.hotkey),
        tokens=tokens_text(row.amount),
    )


def _subnet_lines(params: Params, row: FirstSubnet) -> str:
    defaults = asdict(first_settings(params))
    settings = asdict(row.hyperparameters)
    changed = {name: value for name, value in settings.items() if value != defaults[name]}
    return _lines(
        "subnet",
        netuid=row.netuid,
        owner=address_of(row.owner),
        hotkey=peer_id_of(row.hotkey),
        **changed,
        **({"neurons": [peer_id_of(key) for key in row.neurons]} if row.neurons else {}),
        **{name: text for task in row.task for name, text in _task_words(task)},
    )


def _task_words(task: Task) -> list[tuple[str, str]]:
    return [("task", task.name), ("parameters", task.parameters)]


def _lines(kind: str, **values: str | int | Sequence[str]) -> str:
    """A table of a list; its keys are our own words. JSON's texts and lists are TOML's too."""
    lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
    return "\n".join((f"\n[[{kind}]]", *lines))
