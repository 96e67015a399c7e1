"""Keys, peer ids and key files."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, load_seed, peer_id_of, public_key_of, save_seed, verify

PAIR = KeyPair.from_seed(bytes(range(32)))


def test_a_known_key() -> None:
    """RFC 8032, 7.1, test 1: the public key and the signature of nothing."""
    pair = KeyPair.from_seed(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert pair.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert pair.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e0")


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_is_libp2ps_and_names_its_key(seed: bytes) -> None:
    pair = KeyPair.from_seed(seed)
    assert pair.peer_id == ID.from_pubkey(create_new_key_pair(seed).public_key).to_base58()
    assert public_key_of(pair.peer_id) == pair.public


@pytest.mark.parametrize(
    "text", ["", "12D3", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "0O"]
)
def test_what_is_not_an_ed25519_peer_id_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        public_key_of(text)
    assert caught.value.reason == Reason.BAD_PEER_ID


def test_a_signature_is_good_for_one_key_and_one_message() -> None:
    signature = PAIR.sign(b"message")
    verify(PAIR.public, b"message", signature)
    other = KeyPair.generate()
    for key, message, given_signature in [
        (other.public, b"message", signature),
        (PAIR.public, b"massage", signature),
        (PAIR.public, b"message", signature[:-1]),
        (PAIR.public, b"message", bytes(64)),
        (b"short", b"message", signature),
        (bytes(32), b"message", bytes(64)),
    ]:
        with pytest.raises(Invalid) as caught:
            verify(key, message, given_signature)
        assert caught.value.reason == Reason.BAD_SIGNATURE


def test_a_key_file_is_its_owners_and_is_never_overwritten(tmp_path) -> None:
    path = tmp_path / "node.key"
    save_seed(PAIR, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_seed(path) == PAIR
    with pytest.raises(FileExistsError):
        save_seed(KeyPair.generate(), path)
    assert load_seed(path) == PAIR


def test_a_damaged_key_file_is_refused(tmp_path) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(bytes(31))
    with pytest.raises(Invalid) as caught:
        load_seed(path)
    assert caught.value.reason == Reason.BAD_KEY


def test_a_peer_id_is_made_of_its_key() -> None:
    assert public_key_of(peer_id_of(PAIR.public)) == PAIR.public
