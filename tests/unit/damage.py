"""Captures damaged at random, for the tests of every reader."""

from typing import Any

from hypothesis import strategies as st

PIECES = st.sampled_from(
    [b"\0", b"\xef\xbb\xbf", b"\xff", b"\n", b"\r", b"\r\n", b",", b'"', b" ", b"#", b"0", b"1", b".", b"-", b"e", b"G",
     b"R", b"T", b";", b"//", b"(", b":", b"_", b"0" * 3000, b"LOBJ", b"##DG"]
)  # fmt: skip
PLACES = st.integers(0, 1 << 16)
DAMAGE = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), PLACES, st.just(b"")),
        st.tuples(st.just("swap"), PLACES, PLACES),
        st.tuples(st.just("insert"), PLACES, PIECES | st.binary(max_size=4)),
        st.tuples(st.just("replace"), PLACES, PIECES | st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("windows"), PLACES, st.just(b"")),
        st.tuples(st.just("first line"), PLACES, st.just(b"")),
    ),
    min_size=1,
    max_size=3,
)
Damage = list[tuple[str, int, Any]]


def damaged(raw: bytes, damage: Damage) -> bytes:
    """`raw` cut off, with bytes exchanged, inserted or overwritten, other line ends, or only some of its lines."""
    for kind, place, what in damage:
        at = place % (len(raw) + 1)
        if kind == "cut":
            raw = raw[:at]
        elif kind == "insert":
            raw = raw[:at] + what + raw[at:]
        elif kind == "replace":
            raw = raw[:at] + what + raw[at + len(what) :]
        elif kind == "windows":
            raw = raw.replace(b"\n", b"\r\n")
        elif kind == "first line":
            raw = raw.split(b"\n")[place % (raw.count(b"\n") + 1)]
        elif raw:
            low, high = sorted((at % len(raw), what % len(raw)))
            swapped = bytearray(raw)
            swapped[low], swapped[high] = swapped[high], swapped[low]
            raw = bytes(swapped)
    return raw
