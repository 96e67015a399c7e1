import json
from pathlib import Path

import pytest

from ledger.wallet import WalletFile, entropy_of
from tests.cli.command_line import Yuma
from tests.cli.wallet_files import (
    ADDRESS,
    LOCKED,
    PASSWORD,
    WORDS,
    at_terminal,
    failed,
    json_of,
    put,
)

NO_TERMINAL = "a password is due and there is no terminal to ask for it\nhint: give --password-file"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


def test_where_a_password_comes_from(yuma: Yuma, home: Path, password_file: Path) -> None:
    put(home, "default", LOCKED)
    by_file = yuma("wallet", "sign", "m", "--password-file", str(password_file))
    by_variable = yuma("wallet", "sign", "m", YUMA_WALLET_PASSWORD=PASSWORD)
    assert by_file.code == by_variable.code == 0
    assert by_file.out == by_variable.out
    flags = ("--password-file", str(password_file))
    both = yuma("wallet", "sign", "m", *flags, YUMA_WALLET_PASSWORD="another")
    assert both.out == by_file.out
    password_file.write_bytes(PASSWORD.encode() + b"\r\n")
    assert yuma("wallet", "sign", "m", *flags).out == by_file.out


@pytest.mark.parametrize("password", ["korrekt hors", "", "x" * 1024])
def test_a_wrong_password(yuma: Yuma, home: Path, password: str) -> None:
    put(home, "default", LOCKED)
    outcome = yuma("wallet", "sign", "m", YUMA_WALLET_PASSWORD=password)
    assert failed(outcome, "this is not the password of wallet default")


def test_nobody_there_to_ask(yuma: Yuma, home: Path) -> None:
    assert yuma("wallet", "new").err.startswith(NO_TERMINAL)
    assert yuma("wallet", "restore", stdin=WORDS.encode()).err.startswith(NO_TERMINAL)
    assert not home.exists()
    put(home, "default", LOCKED)
    for arguments in (["sign", "m"], ["backup", "--show-mnemonic"]):
        outcome = yuma("wallet", *arguments)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith(NO_TERMINAL)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"7777777", "the password has 7 letters, at least 8 are due"),
        (b"one line\nanother\n", "has several lines, and a password is one"),
        (b"\xff" * 8, "is not UTF-8 text"),
        (b"x" * 1025, "is over 1024 bytes"),
    ],
)
def test_passwords_that_no_new_wallet_gets(
    yuma: Yuma, home: Path, password_file: Path, data: bytes, sentence: str
) -> None:
    password_file.write_bytes(data)
    outcome = yuma("wallet", "new", "--password-file", str(password_file))
    assert failed(outcome, sentence)
    assert not home.exists()


def test_no_password_only_when_said(yuma: Yuma, home: Path, password_file: Path) -> None:
    assert failed(yuma("wallet", "new", YUMA_WALLET_PASSWORD=""), "the password is empty")
    flags = ("--no-password", "--password-file", str(password_file))
    assert failed(yuma("wallet", "new", *flags), "only one of --no-password and", code=2)
    assert yuma("wallet", "new", "--no-password", YUMA_WALLET_PASSWORD=PASSWORD).code == 0
    kdf = json.loads((home / "wallets" / "default.json").read_bytes())["kdf"]
    assert kdf["name"] == "none"
    assert yuma("wallet", "sign", "m").code == 0


def test_a_terminal_is_asked_twice_and_shows_nothing(home: Path) -> None:
    dialogue = [
        ("New password, 8 letters or more: ", PASSWORD),
        ("Repeat for confirmation: ", "korrekt house"),
        ("New password, 8 letters or more: ", PASSWORD),
        ("Repeat for confirmation: ", PASSWORD),
    ]
    outcome = at_terminal(home, ["wallet", "new", "--json"], dialogue)
    made = json_of(outcome)
    assert "do not match" in outcome.err
    assert "korrekt" not in outcome.err
    file = WalletFile.decode((home / "wallets" / "default.json").read_bytes())
    assert file.open(PASSWORD) == entropy_of(made["mnemonic"])


def test_a_terminal_unlocks(home: Path) -> None:
    put(home, "default", LOCKED)
    for password, code in ((PASSWORD, 0), ("another", 1)):
        dialogue = [("Password of wallet default: ", password)]
        outcome = at_terminal(home, ["wallet", "sign", "m"], dialogue)
        assert outcome.code == code
        assert password not in outcome.err


def test_a_short_password_at_a_terminal(home: Path) -> None:
    outcome = at_terminal(home, ["wallet", "new"], [("New password", "short")])
    assert outcome.code == 1
    assert "the password has 5 letters" in outcome.err
    assert not home.exists()


def test_what_is_typed_is_text(home: Path) -> None:
    outcome = at_terminal(home, ["wallet", "new"], [("New password", "\udcff" * 8)])
    assert outcome.code == 1
    assert "what was typed is not UTF-8 text" in outcome.err


def test_words_at_a_terminal(home: Path) -> None:
    arguments = ["wallet", "restore", "--no-password", "--json"]
    outcome = at_terminal(home, arguments, [("The 24 words: ", WORDS)])
    assert json_of(outcome) == {"name": "default", "address": ADDRESS}
