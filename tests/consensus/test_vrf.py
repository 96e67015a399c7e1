"""Verifiable randomness: the vectors of RFC 9381, and that nothing but the one proof is good."""

from collections.abc import Callable

import pytest
from nacl.bindings import crypto_core_ed25519_add

from consensus import vrf
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import PublicKey

VECTORS = {
    "16": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "",
        "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee"
        "1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805",
        "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff"
        "66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
    ),
    "17": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "72",
        "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3e"
        "d7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02",
        "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb"
        "5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
    ),
    "18": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "af82",
        "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c36"
        "2d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e",
        "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45"
        "2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
    ),
}
"""Of RFC 9381, appendix B.3, by the number of the example: seed, input, proof, output."""
PAIR = KeyPair.from_seed(bytes(range(32)))
ALPHA = b"an input"
PROOF = vrf.prove(PAIR.seed, ALPHA)
ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = (
    (1).to_bytes(32, "little"),
    bytes(32),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
)
"""Points of order 1, 4, 2 and 8."""


def refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except Invalid as error:
        return error.reason == Reason.BAD_RANDOMNESS
    return False


@pytest.mark.parametrize("number", VECTORS)
def test_the_examples_of_the_rfc(number: str) -> None:
    seed, alpha, proof, output = (bytes.fromhex(text) for text in VECTORS[number])
    assert vrf.prove(seed, alpha) == proof
    assert vrf.output_of(proof) == output
    assert vrf.verify(KeyPair.from_seed(seed).public, alpha, proof) == output


def test_many_inputs() -> None:
    """Half of all hashes are on no point, so these take up to some ten tries."""
    outputs = set()
    for number in range(50):
        alpha = b"%d" % number
        outputs.add(vrf.verify(PAIR.public, alpha, vrf.prove(PAIR.seed, alpha)))
    assert len(outputs) == 50


def test_a_proof_with_any_bit_flipped_is_refused() -> None:
    flips = [PROOF[:place] + bytes([PROOF[place] ^ 1 << bit]) + PROOF[place + 1 :]
             for place in range(80) for bit in range(8)]  # fmt: skip
    assert all(refused(lambda flip=flip: vrf.verify(PAIR.public, ALPHA, flip)) for flip in flips)


def test_a_proof_is_of_one_key_and_one_input() -> None:
    other = KeyPair.from_seed(bytes(32))
    assert refused(lambda: vrf.verify(other.public, ALPHA, PROOF))
    assert refused(lambda: vrf.verify(PAIR.public, ALPHA + b"\0", PROOF))
    assert refused(lambda: vrf.verify(PAIR.public, b"", PROOF))


@pytest.mark.parametrize("size", [0, 32, 79, 81])
def test_a_proof_has_80_bytes(size: int) -> None:
    assert refused(lambda: vrf.verify(PAIR.public, ALPHA, PROOF.ljust(size, b"\0")[:size]))


def test_scalars_are_reduced() -> None:
    scalar = int.from_bytes(PROOF[48:], "little")
    more = PROOF[:48] + (scalar + ORDER).to_bytes(32, "little")
    assert refused(lambda: vrf.verify(PAIR.public, ALPHA, more))
    for challenge, last in ((bytes(16), PROOF[48:]), (PROOF[32:48], bytes(32))):
        assert refused(
            lambda end=challenge + last: vrf.verify(PAIR.public, ALPHA, PROOF[:32] + end)
        )


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_points_are_in_the_main_subgroup(point: bytes) -> None:
    assert refused(lambda: vrf.verify(PublicKey(point), ALPHA, PROOF))
    assert refused(lambda: vrf.verify(PAIR.public, ALPHA, point + PROOF[32:]))
    if point != SMALL_ORDER[0]:
        key = PublicKey(crypto_core_ed25519_add(PAIR.public, point))
        assert refused(lambda: vrf.verify(key, ALPHA, PROOF))
        gamma = crypto_core_ed25519_add(PROOF[:32], point)
        assert vrf.output_of(gamma + PROOF[32:]) == vrf.output_of(PROOF)
        assert refused(lambda: vrf.verify(PAIR.public, ALPHA, gamma + PROOF[32:]))


@pytest.mark.parametrize("point", [b"\xff" * 32, (2).to_bytes(32, "little")])
def test_what_is_no_point_is_refused(point: bytes) -> None:
    assert refused(lambda: vrf.verify(PublicKey(point), ALPHA, PROOF))
    assert refused(lambda: vrf.verify(PAIR.public, ALPHA, point + PROOF[32:]))


def test_what_is_no_point_has_no_output() -> None:
    assert refused(lambda: vrf.output_of((2).to_bytes(32, "little") + PROOF[32:]))
