"""Wallet files of a home and their passwords: what every command that signs with one needs.

A password comes from --password-file, else from YUMA_WALLET_PASSWORD, else from the terminal; where
none is there to ask on, the command fails and says so.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.command import current_home
from p2p.cli.failure import Failure
from p2p.config import NAME
from p2p.home import write_whole

if TYPE_CHECKING:
    from ledger.keys import KeyPair
    from ledger.types import PublicKey
    from ledger.wallet import WalletFile

DEFAULT = "default"
VARIABLE = "YUMA_WALLET_PASSWORD"
LEAST_PASSWORD = 8
"""Letters, as NIST SP 800-63B has it: shorter ones are guessed even at Argon2id's price."""
MAX_PASSWORD_BYTES = 1024
ADDRESS_HINT = "give a wallet's name, or an address that begins with yuma1"

_PASSWORD_FILE = "p2p.cli.wallets"
"""Where a context keeps the flag."""


def check_name(name: str) -> str:
    """The name, if a wallet can have it. Raises UsageError."""
    if not NAME.holds(name):
        raise click.UsageError(f"a wallet's name has to be {NAME.allowed}, not {name!r}")
    return name


def _checked(context: click.Context, parameter: click.Parameter, name: str) -> str:
    return check_name(name)


def _keep_password_file(
    context: click.Context, parameter: click.Parameter, file: Path | None
) -> None:
    context.meta[_PASSWORD_FILE] = file


name_argument = click.argument("name", default=DEFAULT, callback=_checked)
wallet_option = click.option(
    "--wallet",
    "name",
    metavar="NAME",
    default=DEFAULT,
    callback=_checked,
    help=f"Which wallet; else {DEFAULT}.",
)
password_option = click.option(
    "--password-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    expose_value=False,
    callback=_keep_password_file,
    help=f"Holds the password; else {VARIABLE}, else you are asked.",
)
owner_argument = click.argument("owner", default=DEFAULT, metavar="[NAME|ADDRESS]")
no_password_option = click.option(
    "--no-password", is_flag=True, help="Lock with none: for networks whose tokens are worthless."
)


def path_of(name: str) -> Path:
    """Where a wallet of the current home is, or would be."""
    return current_home().wallets / f"{name}.json"


def names() -> list[str]:
    """The wallets of the current home, damaged ones too."""
    found = sorted(current_home().wallets.glob("*.json"))
    return [path.stem for path in found if path.is_file() and NAME.holds(path.stem)]


def load(name: str) -> "WalletFile":
    """A wallet of the current home, still locked. Raises Failure, OSError."""
    path = path_of(name)
    if not path.exists():
        raise Failure(
            f"there is no wallet {name} in {path.parent}",
            f"yuma wallet list shows all; make one with: yuma wallet new {name}",
        )
    return read(path)


def read(path: Path) -> "WalletFile":
    """The wallet in any file, still locked. Raises Failure, OSError."""
    from ledger.errors import Invalid
    from ledger.wallet import MAX_FILE_BYTES, WalletFile

    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    try:
        return WalletFile.decode(data)
    except Invalid as error:
        raise Failure(
            f"{path} is not a usable wallet file: {error.detail}",
            "make the wallet again from a backup or its words: yuma wallet restore NEW-NAME",
        ) from None


def check_free(path: Path) -> None:
    """Return if nothing is at a path. Raises Failure."""
    if path.exists():
        raise _taken(path)


def keep(path: Path, file: "WalletFile") -> None:
    """Write a wallet file that only its owner can read; refuse to overwrite one.

    Raises Failure, OSError.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # takes the name
    except FileExistsError:
        raise _taken(path) from None
    try:
        write_whole(path, file.encode())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _taken(path: Path) -> Failure:
    return Failure(f"{path} exists already, and no wallet is overwritten", "choose another name")


def keep_at_home(name: str, file: "WalletFile") -> None:
    """Keep a new wallet in the current home, which is made where there is none.

    Raises Failure, OSError.
    """
    home = current_home()
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.wallets.mkdir(mode=0o700, exist_ok=True)
    keep(path_of(name), file)


def owner_key(owner: str) -> "PublicKey":
    """The key of an address, or of a wallet of the current home. Raises Failure, OSError."""
    from ledger.address import PREFIX, public_key_of_address
    from ledger.errors import Invalid

    if owner[: len(PREFIX) + 1].lower() != f"{PREFIX}1":
        return load(check_name(owner)).public
    try:
        return public_key_of_address(owner)
    except Invalid as error:
        raise Failure(str(error), ADDRESS_HINT) from None


def unlock(name: str) -> "KeyPair":
    """The key pair of a wallet, its password taken from where the command line says, or asked for.

    Raises Failure, OSError.
    """
    from ledger.wallet import pair_of

    return pair_of(unlock_entropy(name))


def unlock_entropy(name: str) -> bytes:
    """The 32 bytes that a wallet's key and words come from. Raises Failure, OSError."""
    from ledger.errors import Invalid, Reason

    file = load(name)
    password = None
    if file.cost is not None and (password := _given()) is None:
        password = _ask(f"Password of wallet {name}")
    try:
        return file.open(password)
    except Invalid as error:
        if error.reason == Reason.WRONG_PASSWORD:
            raise Failure(f"this is not the password of wallet {name}") from None
        raise Failure(f"{path_of(name)} cannot be used: {error.detail}") from None


def new_password(no_password: bool) -> str | None:
    """The password of a new wallet; None where none is wanted. Raises Failure."""
    given_file = click.get_current_context().meta.get(_PASSWORD_FILE)
    if no_password and given_file is not None:
        raise click.UsageError("only one of --no-password and --password-file can be given")
    if no_password:
        return None
    given = _given()
    if given is None:
        return _ask(f"New password, {LEAST_PASSWORD} letters or more", new=True)
    return _strong(given)


def password_if_given() -> str | None:
    """The password of a new wallet, for which nobody is asked; None for none. Raises Failure."""
    given = _given()
    return None if given is None else _strong(given)


def _given() -> str | None:
    """The password that needs no asking, if there is one. Raises Failure, OSError."""
    file = click.get_current_context().meta.get(_PASSWORD_FILE)
    if file is None:
        given = os.environ.get(VARIABLE)
        return given if given is None else _text(os.fsencode(given), VARIABLE)
    with file.open("rb") as opened:
        text = _text(opened.read(MAX_PASSWORD_BYTES + 1), str(file))
    line = text.removesuffix("\n").removesuffix("\r")
    if "\n" in line:
        raise Failure(f"{file} has several lines, and a password is one")
    return line


def _text(data: bytes, source: str) -> str:
    if len(data) > MAX_PASSWORD_BYTES:
        raise Failure(f"the password in {source} is over {MAX_PASSWORD_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Failure(f"the password in {source} is not UTF-8 text") from None


def _strong(password: str) -> str:
    """A password that is long enough for a new wallet. Raises Failure."""
    if not password:
        raise Failure("the password is empty", "a wallet without one is made with: --no-password")
    if len(password) < LEAST_PASSWORD:
        raise Failure(
            f"the password has {len(password)} letters, at least {LEAST_PASSWORD} are due",
            "several random words are strong and easy to remember",
        )
    return password


def _ask(question: str, new: bool = False) -> str:
    """A password from the terminal, typed blindly, twice if new. Raises Failure."""
    if not on_terminal():
        raise Failure(
            "a password is due and there is no terminal to ask for it",
            f"give --password-file FILE, or set {VARIABLE}",
        )
    check = _strong if new else None
    return ask(question, hide_input=True, confirmation_prompt=new, value_proc=check)


def ask(question: str, **options: Any) -> str:
    """What somebody types at the terminal; the options are those of `click.prompt`.

    Raises Failure.
    """
    try:
        answer: str = click.prompt(question, err=True, **options)
        answer.encode()
    except UnicodeError:
        raise Failure("what was typed is not UTF-8 text") from None
    return answer


def on_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()
