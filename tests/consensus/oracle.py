"""The Yuma epoch once more, slowly: plain integers and dicts, a straight reading of YUMA.md 1.2.

It shares no code with `consensus` and takes other ways where there are any: the median walks its
partitions as the reference does, products are as wide as they get, rows are dicts of what is in
them. Input and output are those of the vectors' README.
"""

from collections.abc import Callable
from typing import Any

ONE = 1 << 32
LIMIT = 2**63
"""An I32F32 has 64 bits with its sign."""
Row = dict[int, int]


def held(x: int) -> int:
    """Saturation."""
    return max(-LIMIT, min(LIMIT - 1, x))


def mul(a: int, b: int) -> int:
    return held((a * b) >> 32)


def div(a: int, b: int) -> int:
    """Towards zero; 0 by zero."""
    if b == 0:
        return 0
    quotient = (abs(a) << 32) // abs(b)
    return held(quotient if (a < 0) == (b < 0) else -quotient)


def total(values: Any) -> int:
    sum_ = 0
    for value in values:
        sum_ = held(sum_ + value)
    return sum_


def normalised(values: list[int]) -> list[int]:
    sum_ = total(values)
    return [div(value, sum_) for value in values] if sum_ else values


def to_u16(x: int) -> int:
    return max(0, min(65535, mul(x, 65535 * ONE) >> 32))


def proportion(x: int) -> int:
    return div(x * ONE, 65535 * ONE)


def exp(x: int) -> int:
    x = max(-20 * ONE, min(20 * ONE, x))
    if x == 0:
        return ONE
    if x == ONE:
        return int(2.718281828459045 * 2**23) << 9
    term = size = abs(x)
    sum_ = ONE + size
    for k in range(2, 32):
        term = div(mul(term, size), k * ONE)
        sum_ += term
    return div(ONE, sum_) if x < 0 else sum_


def median(stake: list[int], score: list[int], minority: int, high: int) -> int:
    """By partitions around a pivot (math.rs:975)."""
    partition, low = list(range(len(stake))), 0
    for _ in range(len(stake) + 1):
        if len(partition) <= 1:
            return score[partition[0]] if partition else 0
        pivot = score[partition[len(partition) // 2]]
        lower = [i for i in partition if score[i] < pivot]
        upper = [i for i in partition if score[i] > pivot]
        below, above = total(stake[i] for i in lower), total(stake[i] for i in upper)
        if minority < low + below and lower:
            partition, high = lower, low + below
        elif high - above <= minority and upper:
            partition, low = upper, high - above
        else:
            return pivot
    return 0


def consensus_of(weights: list[Row], stake: list[int], kappa: int) -> list[int]:
    rows = [row for row, one in zip(weights, stake, strict=True) if one > 0]
    power = normalised([one for one in stake if one > 0])
    sum_ = total(power)
    return [
        median(power, [row.get(j, 0) for row in rows], sum_ - kappa, sum_)
        for j in range(len(weights))
    ]


def columns(rows: list[Row], into: Callable[[list[int]], int]) -> list[int]:
    return [into([row[j] for row in rows if j in row]) for j in range(len(rows))]


def by_column(rows: list[Row], divisors: list[int]) -> list[Row]:
    return [
        {j: div(value, divisors[j]) if divisors[j] else value for j, value in row.items()}
        for row in rows
    ]


def counting(given: dict[str, Any], permits: list[bool]) -> list[Row]:
    """Step 5."""
    registered, rows = given["block_at_registration"], []
    for i, entries in enumerate(given["weights"]):
        row = {j: value * ONE for j, value in sorted(entries)} if permits[i] else {}
        if i != given["owner_uid"] or given["dense"]:
            row.pop(i, None)
        row = {j: v for j, v in row.items() if not given["last_update"][i] <= registered[j]}
        if given["commit_reveal"]:
            row = {j: v for j, v in row.items() if not given["commit_blocks"][i] < registered[j]}
        sum_ = total(row.values())
        rows.append({j: div(v, sum_) for j, v in row.items()} if sum_ else row)
    return rows


def target_of(weights: Row, clipped: Row, ratio: int) -> Row:
    """Step 10."""
    return {j: weights[j] + mul(ratio, clipped[j] - weights[j]) for j in weights}


def alpha(given: dict[str, Any], weight: int, bond: int, consensus: int) -> int:
    """Liquid Alpha's share."""
    low, high = proportion(given["alpha_low"]), proportion(given["alpha_high"])
    moved = weight - consensus if weight >= bond else bond - weight
    moved = max(0, min(ONE, moved))
    slope = div(given["steepness"] * ONE, -100 * ONE)
    sigmoid = div(ONE, held(ONE + exp(mul(slope, moved - ONE // 2))))
    return max(low, min(high, low + mul(sigmoid, high - low)))


def averaged(target: list[Row], old: list[Row], share: Callable[[int, int], int]) -> list[Row]:
    """What is above 0 of share * new + (1 - share) * old."""
    rows = []
    for i, (new, bonds) in enumerate(zip(target, old, strict=True)):
        row = {}
        for j in sorted(new.keys() | bonds.keys()):
            a = share(i, j)
            row[j] = min(ONE, mul(a, new.get(j, 0)) + mul(ONE - a, bonds.get(j, 0)))
        rows.append({j: value for j, value in row.items() if value > 0})
    return rows


def bonds_of(
    given: dict[str, Any], target: list[Row], s: list[int], c: list[int], incentive: list[int]
) -> tuple[list[int], list[Row]]:
    """Step 11: dividends and bonds."""
    n, lms = given["n"], given["lms"]
    last = lms + 1 if lms else max(0, given["current_block"] - given["tempo"])
    unit = proportion if given["yuma3"] else lambda value: value * ONE
    old = [
        {j: unit(v) for j, v in row if given["block_at_registration"][j] < last}
        for row in given["bonds"]
    ]
    constant = ONE - div(given["bonds_moving_average"], 1_000_000)
    if given["yuma3"]:

        def share(i: int, j: int) -> int:
            if given["liquid_alpha"] and any(c):
                return alpha(given, target[i].get(j, 0), old[i].get(j, 0), c[j])
            return constant

        new = averaged(target, old, share)
        norm = by_column(new, columns(new, total))
        earned = [total(mul(v, incentive[j]) for j, v in row.items()) for row in norm]
        return normalised([mul(earned[i], s[i]) for i in range(n)]), new
    old = by_column(old, columns(old, total))
    bought = [{j: mul(v, s[i]) for j, v in row.items()} for i, row in enumerate(target)]
    bought = by_column(bought, columns(bought, total))
    new = averaged(bought, old, lambda _i, _j: constant)
    new = by_column(new, columns(new, total))
    earned = [total(mul(v, incentive[j]) for j, v in row.items()) for row in new]
    return normalised(earned), by_column(new, columns(new, lambda column: max(column, default=0)))


def permits_of(stake: list[int], most: int) -> list[bool]:
    """Step 3: the `most` largest; of equals those with the higher uids."""
    best = sorted(range(len(stake)), key=lambda uid: (stake[uid], uid), reverse=True)[:most]
    return [uid in best and stake[uid] > 0 for uid in range(len(stake))]


def rao(shares: list[int], emission: int) -> list[int]:
    return [share * emission >> 32 for share in shares]


def epoch(given: dict[str, Any]) -> dict[str, Any]:
    """All output fields of one step."""
    n, owner = given["n"], given["owner_uid"]
    uids = range(n)
    active = [given["last_update"][i] + given["activity_cutoff"] >= given["current_block"]
              for i in uids]  # fmt: skip
    raw = [one if one >= given["min_stake"] or i == owner else 0
           for i, one in enumerate(given["total_stake"])]  # fmt: skip
    stake = [((one << 64) // max(1, sum(raw))) >> 32 for one in raw]
    permits = [bool(p) or i == owner for i, p in enumerate(given["validator_permits"])]
    top = permits_of(stake, given["max_allowed_validators"])
    new_permits = [top[i] or i == owner for i in uids]
    s = normalised([stake[i] if active[i] and permits[i] else 0 for i in uids])
    weights = counting(given, permits)
    c = consensus_of(weights, s, proportion(given["kappa"]))
    clipped = [{j: min(v, c[j]) for j, v in row.items()} for row in weights]
    rank = [total(mul(s[i], clipped[i].get(j, 0)) for i in uids) for j in uids]
    incentive = normalised(rank)
    ratio = proportion(given["bonds_penalty"])
    target = [target_of(weights[i], clipped[i], ratio) for i in uids]
    dividends, bonds = bonds_of(given, target, s, c, incentive)
    both = [incentive[i] + dividends[i] for i in uids]
    server, validator, combined = (
        [div(one, total(both)) for one in values] for values in (incentive, dividends, both)
    )
    if not any(both):
        server, validator, combined = incentive, *[s if any(s) else stake] * 2
    trust = [total(row.values()) for row in clipped]

    def u16s(values: list[int]) -> list[int]:
        return list(map(to_u16, values))

    def pairs(rows: list[Row]) -> list[list[list[int]]]:
        full = [{j: row.get(j, 0) for j in uids} if given["dense"] else row for row in rows]
        return [[[j, v] for j, v in row.items()] for row in full]

    return {
        "stake_bits": stake,
        "active": list(map(int, active)),
        "active_stake_bits": s,
        "new_permits": list(map(int, new_permits)),
        "consensus_bits": c,
        "validator_trust_bits": trust,
        "prerank_bits": [total(mul(s[i], weights[i].get(j, 0)) for i in uids) for j in uids],
        "rank_bits": rank,
        "incentive_bits": incentive,
        "dividends_bits": dividends,
        "weights_norm_bits": pairs(weights),
        "ema_bonds_bits": pairs(bonds),
        "stake_weight_u16": u16s(stake),
        "consensus_u16": u16s(c),
        "validator_trust_u16": u16s(trust),
        "incentive_u16": u16s(incentive),
        "dividends_u16": u16s(dividends),
        "server_emission": rao(server, given["emission"]),
        "validator_emission": rao(validator, given["emission"]),
        "combined_emission": rao(combined, given["emission"]),
        "bonds_u16": [
            [[j, to_u16(v)] for j, v in row] if new_permits[i] else []
            for i, row in enumerate(pairs(bonds))
        ],
    }
