"""Mutations of files: of bytes, of lines, of trees (JSON, YAML). All draw from a NumPy generator."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import yaml

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]
HEADER_KEY = "canids"
LOADER, DUMPER = (getattr(yaml, name, getattr(yaml, name[1:])) for name in ("CSafeLoader", "CSafeDumper"))
HUGE_NUMBERS = [
    b"1e400",
    b"-1",
    b"9" * 40,
    b"nan",
    b"inf",
    b"4294967296",
    b"1e-320",
    b"0x7FFFFFFFFFFFFFFF",
    b"00",
    b"1,5",
]
TOKENS = [b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\n", b"\r", b"\r\n", b",", b";", b'"', b"'", b"{", b"}", b"[", b"]", b":", b" ",
          b"\t", b"#", b"(", b")", b"*", b"&", b"!", b"%", b"\\", b"-", b"\xc3\xa9", b"\xe2\x80\xa8", b"LOBJ", b"##DG", b"PAR1"]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 7, 0.5, 1e308, -1e308, float("nan"), float("inf"), 10**30, -(10**30), 1 << 40, 2**31, 1e9, 1e-9, "", " ",
    "x" * 5000, "1", "true", "nan", "a\nb", "\0", "../../x", "%s{}", "@evil", [], {}, [[]], [None], {"": None}, ["a", "a"], {"1": {"2": {}}},
]  # fmt: skip


def pick(rng: Rng, options: Any) -> Any:
    """One of some options."""
    return options[int(rng.integers(len(options)))]


# Bytes


def flip(raw: bytes, rng: Rng) -> bytes:
    changed = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        changed[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def insert(raw: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(raw) + 1))
    new = pick(rng, TOKENS) if rng.random() < 0.6 else rng.bytes(int(rng.integers(1, 40)))
    return raw[:at] + new + raw[at:]


def delete(raw: bytes, rng: Rng) -> bytes:
    at, length = int(rng.integers(len(raw))), int(rng.integers(1, max(2, len(raw) // 4)))
    return raw[:at] + raw[at + length :]


def truncate(raw: bytes, rng: Rng) -> bytes:
    return raw[: int(rng.integers(len(raw)))]


def duplicate(raw: bytes, rng: Rng) -> bytes:
    at, length = int(rng.integers(len(raw))), int(rng.integers(1, max(2, len(raw) // 2)))
    return raw[: at + length] + raw[at:]


def blank(raw: bytes, rng: Rng) -> bytes:
    at, length = int(rng.integers(len(raw))), int(rng.integers(1, max(2, len(raw) // 4)))
    length = min(length, len(raw) - at)
    return raw[:at] + pick(rng, [b"\0", b"\xff", b" "]) * length + raw[at + length :]


def exchange(raw: bytes, rng: Rng) -> bytes:
    a, b, c = sorted(int(i) for i in rng.integers(len(raw) + 1, size=3))
    return raw[:a] + raw[b:c] + raw[a:b] + raw[c:]


def number_as_text(raw: bytes, rng: Rng) -> bytes:
    """Another number where one stands as text."""
    places = [match.span() for match in re.finditer(rb"\d[\d.]*", raw[: 1 << 16])]
    if not places:
        return flip(raw, rng)
    begin, end = pick(rng, places)
    return raw[:begin] + pick(rng, HUGE_NUMBERS) + raw[end:]


def number_as_bits(raw: bytes, rng: Rng) -> bytes:
    """An extreme number over four or eight bytes, as in a length or an offset of a binary header."""
    width = int(pick(rng, [1, 2, 4, 8]))
    at = int(rng.integers(min(len(raw), pick(rng, [64, 512, 1 << 30]))))
    value = pick(
        rng, [0, 1, (1 << 8 * width) - 1, (1 << (8 * width - 1)) - 1, 1 << (8 * width - 1), int(rng.integers(256))]
    )
    return raw[:at] + (value & ((1 << 8 * width) - 1)).to_bytes(width, "little") + raw[at + width :]


BYTES: list[Mutation] = [flip, insert, delete, truncate, duplicate, blank, exchange, number_as_text, number_as_bits]


# Lines of logs and tables


def _on_line(raw: bytes, rng: Rng, change: Callable[[bytes], bytes | list[bytes]]) -> bytes:
    lines = raw.split(b"\n")
    at = int(rng.integers(len(lines)))
    new = change(lines[at])
    return b"\n".join([*lines[:at], *(new if isinstance(new, list) else [new]), *lines[at + 1 :]])


def field(raw: bytes, rng: Rng) -> bytes:
    """A field of a line exchanged, dropped, doubled, quoted or replaced."""

    def change(line: bytes) -> bytes:
        mark = next((m for m in (b",", b"\t", b"#", b" ") if m in line), b" ")
        parts = line.split(mark)
        at = int(rng.integers(len(parts)))
        match int(rng.integers(6)):
            case 0:
                other = int(rng.integers(len(parts)))
                parts[at], parts[other] = parts[other], parts[at]
            case 1:
                del parts[at]
            case 2:
                parts.insert(at, parts[at])
            case 3:
                parts[at] = b'"' + parts[at] + b'"'
            case 4:
                parts[at] = pick(
                    rng,
                    [
                        *HUGE_NUMBERS,
                        b"",
                        b"GG",
                        b"FFFFFFFF",
                        b"12.03.2021 14:05",
                        b"1,478198376E+09",
                        b"3FFFFFFF",
                        b"T",
                        b"R",
                    ],
                )
            case _:
                parts[at] = parts[at].replace(b".", b",")
        return mark.join(parts)

    return _on_line(raw, rng, change)


def line(raw: bytes, rng: Rng) -> bytes:
    """A line doubled, dropped, halved, emptied, made very long, or put elsewhere."""
    lines = raw.split(b"\n")
    at = int(rng.integers(len(lines)))
    match int(rng.integers(7)):
        case 0:
            lines.insert(at, lines[at])
        case 1:
            del lines[at]
        case 2:
            lines[at] = lines[at][: len(lines[at]) // 2]
        case 3:
            lines[at] = b""
        case 4:
            lines[at] += pick(rng, [b"0", b"F", b",", b" "]) * int(pick(rng, [300, 5000, 200_000]))
        case 5:
            lines.insert(int(rng.integers(len(lines))), lines.pop(at))
        case _:
            return b"\n".join([*lines[:at], lines[at][: len(lines[at]) // 2]])  # a half line at the end
    return b"\n".join(lines)


def digit(raw: bytes, rng: Rng) -> bytes:
    """One digit, which makes another number of the same length."""
    places = [match.start() for match in re.finditer(rb"[0-9A-Fa-f]", raw[: 1 << 16])]
    if not places:
        return insert(raw, rng)
    at = pick(rng, places)
    return raw[:at] + pick(rng, [b"0", b"1", b"9", b"A", b"f"]) + raw[at + 1 :]


def encoding(raw: bytes, rng: Rng) -> bytes:
    """Other line ends, a byte order mark, UTF-16, other digits, tabs for blanks."""
    others = [
        raw.replace(b"\n", b"\r\n"),
        raw.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + raw,
        raw.decode("latin-1").encode("utf-16"),
        raw.replace(b" ", b"\t"),
        raw.replace(b",", b";"),
        raw.replace(b"1", "１".encode(), 3),
    ]
    changed: bytes = pick(rng, others)
    return changed


LINES: list[Mutation] = [field, field, line, digit, encoding, number_as_text, *BYTES[:7]]


# Trees: JSON and YAML


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, item in items for place in _places(item, (*path, key)))]


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def changed_tree(tree: Any, rng: Rng) -> Any:
    """A tree with a value replaced, dropped, added, nested, wrapped or exchanged; it may be `tree` itself, changed."""
    places = _places(tree)
    path = pick(rng, places)
    if not path:
        return (
            pick(rng, VALUES)
            if rng.random() < 0.2
            else changed_tree(tree, rng)
            if len(places) > 1
            else pick(rng, VALUES)
        )
    parent, key = _at(tree, path[:-1]), path[-1]
    match int(rng.integers(9)):
        case 0 | 1 | 2:
            parent[key] = pick(rng, VALUES)
        case 3:
            del parent[key]
        case 4 if isinstance(parent, dict):
            parent[pick(rng, ["extra", "", "contract", "stand_in", "a.b", "é", "x" * 300])] = pick(rng, VALUES)
        case 5 if isinstance(parent, dict):
            parent[f"{key}_"] = parent.pop(key)
        case 6:
            parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
        case 7:
            other = pick(rng, places)
            if other[: len(path)] != path:  # not into itself
                parent[key] = json.loads(json.dumps(_at(tree, other), default=str))
        case _ if isinstance(parent[key], bool | int | float):
            parent[key] = -parent[key] if rng.random() < 0.5 else parent[key] * float(pick(rng, [0, 1000, 1e-6, 1e18]))
        case _:
            parent[key] = str(parent[key])
    return tree


def json_tree(raw: bytes, rng: Rng) -> bytes:
    return json.dumps(changed_tree(json.loads(raw), rng), indent=1, sort_keys=True).encode()


def yaml_tree(raw: bytes, rng: Rng) -> bytes:
    return yaml.dump(changed_tree(yaml.load(raw, LOADER), rng), Dumper=DUMPER, allow_unicode=True).encode()


def yaml_text(raw: bytes, rng: Rng) -> bytes:
    """What YAML can do beyond values: anchors, references to itself, tags, deep nesting, repeated keys."""
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    extra = [
        bomb, "a: &a [*a]\n", "? &k {a: *k}\n: 1\n", "deep: " + "[" * 5000 + "\n", "deep: " + "{a: " * 5000 + "\n", "<<: {stand_in: true}\n",
        "x: !!python/object/apply:os.system ['true']\n", "x: !!binary aGVsbG8=\n", "1: 2\n", "2021-01-01: a\n", "\ty: 1\n", "---\na: 1\n",
        "x: 0o17\n", "%YAML 9.9\n---\n", "x: 1_000\n", "yes: no\n", "? [a, b]\n: c\n",
    ]  # fmt: skip
    match int(rng.integers(4)):
        case 0:
            return raw + pick(rng, extra).encode()
        case 1:
            return pick(rng, extra).encode() + raw
        case 2:  # in the place of a value
            return _on_line(
                raw,
                rng,
                lambda t: (
                    t.partition(b":")[0]
                    + b": "
                    + pick(
                        rng,
                        [
                            b"*a",
                            b"&a",
                            b"!!set {a}",
                            b"|",
                            b">",
                            b"[",
                            b"{a: ",
                            b"2021-01-01",
                            b".nan",
                            b"1e3",
                            b"0x10",
                            b"~",
                            b"'",
                            b"@",
                            b"12:30:45",
                        ],
                    )
                ),
            )
        case _:
            return _on_line(raw, rng, lambda t: [t, t])


JSON: list[Mutation] = [*[json_tree] * 4, number_as_text, digit, *BYTES[:7]]
YAML: list[Mutation] = [*[yaml_tree] * 8, yaml_text, yaml_text, number_as_text, digit, *BYTES[:7]]


def mutated(raw: bytes, mutations: list[Mutation], rng: Rng) -> bytes:
    """`raw` after one to three mutations; those of values come first, since they need a whole file."""
    drawn = [pick(rng, mutations) for _ in range(int(pick(rng, [1, 1, 1, 2, 3])))]
    for mutation in sorted(drawn, key=[*BYTES, *LINES, yaml_text].__contains__):
        if raw:
            try:
                raw = mutation(raw, rng)
            except (
                ValueError,
                KeyError,
                TypeError,
                IndexError,
                AttributeError,
                yaml.YAMLError,
                pa.ArrowException,
                pl.exceptions.PolarsError,
            ):
                raw = flip(raw, rng)  # a mutation of the format needs more of it than an earlier one left
    return raw
