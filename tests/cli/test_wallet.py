import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.address import address_of
from ledger.wallet import Draw, WalletFile, entropy_of, pair_of, seal
from p2p.cli import wallets
from p2p.cli.failure import Failure
from tests.cli.command_line import ROOT, Yuma, environment
from tests.cli.wallet_files import (
    ADDRESS,
    LOCKED,
    OPEN,
    PAIR,
    PASSWORD,
    WORDS,
    failed,
    json_of,
    put,
)


def test_new_makes_a_wallet_that_its_words_make_again(yuma: Yuma, home: Path) -> None:
    outcome = yuma("wallet", "new", YUMA_WALLET_PASSWORD=PASSWORD)
    lines = [line.split(maxsplit=1) for line in outcome.out.splitlines()]
    assert [name for name, _ in lines] == ["name", "address", "mnemonic"]
    name, address, words = (value for _, value in lines)
    assert (name, address) == ("default", address_of(pair_of(entropy_of(words)).public))
    assert outcome.err.startswith("write the 24 words down")
    path = home / "wallets" / "default.json"
    modes = [stat.S_IMODE(where.stat().st_mode) for where in (home, path.parent, path)]
    assert modes == [0o700, 0o700, 0o600]
    assert WalletFile.decode(path.read_bytes()).open(PASSWORD) == entropy_of(words)
    assert [entry.name for entry in path.parent.iterdir()] == ["default.json"]
    again = yuma("wallet", "restore", "again", "--no-password", "--json", stdin=words.encode())
    assert json_of(again) == {"name": "again", "address": address}


def test_new_in_json(yuma: Yuma) -> None:
    made = json_of(yuma("wallet", "new", "a-b_3", "--no-password", "--json"))
    assert list(made) == ["name", "address", "mnemonic"]
    assert made["name"] == "a-b_3"
    assert made["address"] == address_of(pair_of(entropy_of(made["mnemonic"])).public)


def test_no_wallet_is_overwritten(yuma: Yuma, home: Path, tmp_path: Path) -> None:
    path = put(home, "default", LOCKED)
    before = path.read_bytes()
    backup = tmp_path / "backup"
    assert yuma("wallet", "backup", str(backup)).code == 0
    for arguments in (
        ["new", "--no-password"],
        ["restore", "--no-password"],
        ["restore", "--backup", str(backup)],
        ["backup", str(path)],
    ):
        outcome = yuma("wallet", *arguments, stdin=WORDS.encode())
        assert failed(outcome, f"{path} exists already, and no wallet is overwritten")
    assert path.read_bytes() == before


def test_one_of_two_who_take_a_name_at_once_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "wallet"
    path.write_bytes(b"the other's")
    with pytest.raises(Failure, match="exists already"):
        wallets.keep(path, LOCKED)
    assert path.read_bytes() == b"the other's"


def test_a_disk_that_is_full_leaves_no_half_wallet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wallets, "write_whole", write)
    with pytest.raises(OSError, match="No space left"):
        wallets.keep(tmp_path / "wallet", LOCKED)
    assert list(tmp_path.iterdir()) == []


def test_restore_from_a_file(yuma: Yuma, tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_text(WORDS.upper().replace(" ", "\n"))
    outcome = yuma("wallet", "restore", "--mnemonic-file", str(file), "--no-password")
    assert outcome.out.splitlines()[1].split() == ["address", ADDRESS]
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (b"", "24 words are due, not 0"),
        (WORDS.replace("liar", "lair", 1).encode(), "word 3, 'lair', is not in the list"),
        (b"zoo " * 24, "their checksum is wrong"),
        (b"\x1b[31m\xff" * 3, "word 1, '\\x1b[31m"),
        (b" " * 5000, "standard input has over 4096 bytes"),
    ],
)
def test_words_that_are_none(yuma: Yuma, home: Path, words: bytes, sentence: str) -> None:
    assert failed(yuma("wallet", "restore", "--no-password", stdin=words), sentence)
    assert not home.exists()


def test_list(yuma: Yuma, home: Path) -> None:
    outcome = yuma("wallet", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "there is no wallet; make one with: yuma wallet new\n"
    put(home, "open", OPEN)
    put(home, "locked", LOCKED)
    damaged = put(home, "damaged", LOCKED)
    damaged.write_bytes(damaged.read_bytes().replace(b"yuma1", b"yuma2"))
    put(home, "huge", LOCKED).write_bytes(bytes(10**6))
    put(home, "Not A Name", LOCKED)
    (home / "wallets" / "directory.json").mkdir()
    rows = [line.split(maxsplit=2) for line in yuma("wallet", "list").out.splitlines()]
    assert [(name, address) for name, address, _ in rows] == [
        ("NAME", "ADDRESS"),
        ("damaged", "-"),
        ("huge", "-"),
        ("locked", ADDRESS),
        ("open", ADDRESS),
    ]
    states = [state.partition(":")[0] for *_, state in rows]
    assert states == ["STATE", "damaged", "damaged", "locked", "no password"]
    listed = json_of(yuma("wallet", "list", "--json"))["wallets"]
    assert listed[2] == {"name": "locked", "address": ADDRESS, "password": True, "fault": ""}
    assert "is not a usable wallet file: it has over 4096 bytes" in listed[1]["fault"]
    assert listed[0]["address"] is None


def test_a_damaged_wallet_is_one_sentence(yuma: Yuma, home: Path, tmp_path: Path) -> None:
    path = put(home, "default", OPEN)
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 2'))
    for arguments in (
        ["sign", "m"],
        ["backup", str(tmp_path / "b")],
        ["backup", "--show-mnemonic"],
    ):
        outcome = yuma("wallet", *arguments)
        assert failed(outcome, f"{path} is not a usable wallet file: its version is 2, and not 1")
    other = seal(bytes(32), None, Draw(b"s" * 16, b"n" * 24))
    path.write_bytes(WalletFile(PAIR.public, None, other.draw, other.ciphertext).encode())
    assert failed(yuma("wallet", "sign", "m"), "the address in it is not that of its words")
    path.write_bytes(LOCKED.encode().replace(b"8192", b"10737418240"))
    assert failed(yuma("wallet", "sign", "m"), "its kdf asks for more than a wallet may")


def test_sign_and_verify(yuma: Yuma, home: Path, tmp_path: Path) -> None:
    put(home, "w", OPEN)
    message = tmp_path / "message"
    message.write_bytes(b"m\xff\n")
    signed = json_of(yuma("wallet", "sign", "--wallet", "w", "--file", str(message), "--json"))
    assert signed["address"] == ADDRESS
    assert len(bytes.fromhex(signed["signature"])) == 64
    piped = yuma("wallet", "sign", "--wallet", "w", "-", stdin=b"m\xff\n")
    assert piped.out.split() == ["address", ADDRESS, "signature", signed["signature"]]
    command = ("wallet", "verify", ADDRESS, signed["signature"])
    good = yuma(*command, "--file", str(message))
    assert (good.code, good.out, good.err) == (0, f"{ADDRESS} signed this message\n", "")
    said = json_of(yuma(*command, "-", "--json", stdin=b"m\xff\n"))
    assert said == {"address": ADDRESS, "valid": True, "fault": ""}
    assert failed(yuma(*command, "m"), "the signature does not match its key and content")
    bad = yuma(*command, "m", "--json")
    assert (bad.code, json.loads(bad.out)["valid"]) == (1, False)


@pytest.mark.parametrize(
    ("address", "signature", "sentence"),
    [
        (ADDRESS[:-1], "00" * 64, "the text is not an address: its checksum is wrong"),
        (PAIR.peer_id, "00" * 64, "the text is not an address"),
        (ADDRESS, "00" * 63, "the signature does not match"),
        (ADDRESS, "base64==", "the signature is not hexadecimal"),
    ],
)
def test_what_cannot_be_verified(yuma: Yuma, address: str, signature: str, sentence: str) -> None:
    assert failed(yuma("wallet", "verify", address, signature, "m"), sentence)


def test_backup_and_back(yuma: Yuma, home: Path, tmp_path: Path) -> None:
    path, copy = put(home, "w", LOCKED), tmp_path / "copy"
    outcome = yuma("wallet", "backup", "w", str(copy))
    note = f"wrote wallet w to {copy}; its password stays the same\n"
    assert (outcome.code, outcome.out, outcome.err) == (0, "", note)
    assert copy.read_bytes() == path.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    path.unlink()
    restored = json_of(yuma("wallet", "restore", "w", "--backup", str(copy), "--json"))
    assert restored == {"name": "w", "address": ADDRESS}
    assert path.read_bytes() == copy.read_bytes()
    said = json_of(yuma("wallet", "backup", "w", str(tmp_path / "third"), "--json"))
    assert said == {"name": "w", "address": ADDRESS, "file": str(tmp_path / "third")}
    copy.write_bytes(copy.read_bytes()[:-1])
    outcome = yuma("wallet", "restore", "v", "--backup", str(copy))
    assert failed(outcome, f"{copy} is not a usable wallet file")
    assert yuma("wallet", "backup", "w", "/no/where/b").err == (
        "No such file or directory: /no/where/b\n"
    )


def test_backup_shows_the_words_after_the_password(yuma: Yuma, home: Path) -> None:
    put(home, "w", LOCKED)
    shown = yuma("wallet", "backup", "w", "--show-mnemonic", YUMA_WALLET_PASSWORD=PASSWORD)
    assert shown.out.splitlines()[2].split(maxsplit=1) == ["mnemonic", WORDS]
    wrong = yuma("wallet", "backup", "w", "--show-mnemonic", YUMA_WALLET_PASSWORD="another")
    assert failed(wrong, "this is not the password of wallet w")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["new", "Default"], "a wallet's name has to be 1 to 32 of a-z"),
        (["new", "../x"], "a wallet's name has to be"),
        (["new", ""], "a wallet's name has to be"),
        (["sign", "--wallet", "a/b", "m"], "a wallet's name has to be"),
        (["sign"], "give a MESSAGE, or - for standard input, or --file FILE"),
        (["sign", "m", "--file", "README.md"], "give a MESSAGE, or -"),
        (["verify", ADDRESS, "00"], "give a MESSAGE, or -"),
        (["backup"], "give a FILE to write, or --show-mnemonic"),
        (["backup", "a", "b", "c"], "unexpected argument 'b'"),
        (["backup", "a/b", "c"], "a wallet's name has to be"),
        (["backup", "--show-mnemonic", "a", "b"], "unexpected argument 'b'"),
        (["restore", "--backup", "README.md", "--no-password"], "--backup goes with neither"),
        (["new", "--password-file", "/no/where"], "'/no/where' does not exist"),
    ],
)
def test_wrong_usage(yuma: Yuma, home: Path, arguments: list[str], sentence: str) -> None:
    assert failed(yuma("wallet", *arguments), sentence, code=2)
    assert not home.exists()


def test_a_wallet_that_is_not_there(yuma: Yuma, home: Path) -> None:
    sentence = f"there is no wallet nine in {home}/wallets"
    assert failed(yuma("wallet", "sign", "--wallet", "nine", "m"), sentence)
    assert failed(yuma("wallet", "backup", "nine", "file"), sentence)


def test_a_message_that_never_ends(yuma: Yuma) -> None:
    outcome = yuma("wallet", "sign", "-", stdin=bytes(2**26 + 1))
    assert failed(outcome, "standard input has over 67108864 bytes")


def test_wallet_commands_load_nothing_heavy(home: Path) -> None:
    script = """
import sys
from p2p.cli import failure, yuma
failure.run(yuma, ["wallet", "list"])
print("early", *{"nacl", "mnemonic", "bech32", "msgpack"} & set(sys.modules))
failure.run(yuma, ["wallet", "new", "--no-password"])
failure.run(yuma, ["wallet", "sign", "m"])
print("late", *{"torch", "libp2p", "starlette", "trio", "numpy", "lmdb"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        cwd=ROOT,
        env=environment(YUMA_HOME=str(home)),
        check=True,
    )
    lines = done.stdout.decode().splitlines()
    assert "early" in lines
    assert lines[-1] == "late"
