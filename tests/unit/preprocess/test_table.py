"""Any table: read by a mapping, which the draft proposes; what it proposes is right, or said to be a guess."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from capture_files import read, refused, said, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canids_preprocess.drafting.mapping import propose
from canids_preprocess.formats import text
from canids_preprocess.formats.growing import Growing, IdleTimeout
from canids_preprocess.timestamps import likely_unit
from canids_shared.errors import CanidsError

FOUR: dict[str, Any] = {
    "delimiter": ",",
    "skip": 1,
    "time": {"column": 1},
    "id": {"column": 2},
    "payload": {"column": 3},
}
LABEL: dict[str, Any] = {"column": 4, "attacked": ["T"], "normal": ["R"]}


@dataclass(frozen=True)
class Frame:
    us: int
    can_id: int
    payload: bytes
    attacked: bool


def bus(random: Random, count: int = 200) -> list[Frame]:
    """Traffic as of a bus: some twenty IDs that recur every few milliseconds, with as many bytes each time."""
    ids = random.sample(range(0x40, 0x7FF), 20)
    sizes = {i: random.choice([8, 8, 8, 4, 2]) for i in ids}
    us, made = random.randrange(10**15), []
    for _ in range(count):
        us += random.randrange(100, 1900)
        i = random.choice(ids)
        made.append(Frame(us, i, random.randbytes(sizes[i]), random.random() < 0.1))
    return made


def spelt(frames: list[Frame], random: Random) -> tuple[str, dict[str, Any]]:
    """A table of the frames in a random layout, and how each column is called."""
    delimiter = random.choice([",", ";", "\t", "|", " "])
    header, base, labelled = random.random() < 0.8, random.choice([10, 16]), random.random() < 0.6
    layout = random.choice(["packed", "spaced", "cells"] if delimiter != " " else ["packed"])
    base = 16 if layout == "packed" else base
    unit = random.choice(["s", "ms", "us", "date"] if delimiter != " " else ["s", "ms", "us"])
    prefix = random.choice(["", "0x"]) if base == 16 else ""

    def number(value: int, width: int) -> str:
        return f"{prefix}{value:0{width}X}" if base == 16 else str(value)

    def time(us: int) -> str:
        if unit == "date":
            return datetime.fromtimestamp(us // 10**6, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{us % 10**6:06d}"
        return f"{us / 1e6:.6f}" if unit == "s" else f"{us / 1e3:.3f}" if unit == "ms" else str(us)

    columns = {
        random.choice(["Time", "timestamp", "t"]): lambda f: [time(f.us)],
        random.choice(["ID", "can_id", "Arbitration ID"]).replace(" ", "_"): lambda f: [number(f.can_id, 3)],
        random.choice(["DLC", "len"]): lambda f: [str(len(f.payload))],
        random.choice(["Comment", "Name"]): lambda f: ["x"],
    }  # fmt: skip
    if labelled:
        columns["Label"] = lambda f: [random.choice(["Attack", "attack"]) if f.attacked else "Normal"]
    order = list(columns)
    random.shuffle(order)
    if layout == "cells":
        columns["cells"] = lambda f: [*(number(b, 2) for b in f.payload), *[""] * (8 - len(f.payload))]
    elif layout == "spaced":
        columns["Data"] = lambda f: [" ".join(number(b, 2) for b in f.payload)]
    else:
        columns["Data"] = lambda f: [prefix + f.payload.hex()]
    order.insert(random.randrange(len(order) + 1), "cells" if layout == "cells" else "Data")
    names = [n for c in order for n in ([f"D{i}" for i in range(8)] if c == "cells" else [c])]
    lines = [delimiter.join(names)] if header else []
    lines += [delimiter.join(cell for c in order for cell in columns[c](f)) for f in frames]
    return "\n".join(lines) + "\n", {"header": header, "labelled": labelled}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**9))
def test_proposed_mapping_is_right_or_said_to_be_a_guess(folder: Path, seed: int) -> None:
    random = Random(seed)
    frames = bus(random)
    content, layout = spelt(frames, random)
    path = written(folder, content, "table.txt")
    try:
        proposal = propose(path, likely_unit)
    except CanidsError:
        assert not layout["header"], content[:200]
        return
    back, rejects = read(path, "table", table=proposal.table)
    factor = {"ms": 1e3, "us": 1e6}.get(proposal.table["time"].get("unit", "s"), 1.0)
    right = (
        not len(rejects)
        and said(back) == [(f.can_id, False, False, False, len(f.payload), f.payload) for f in frames]
        and np.allclose(back["timestamp"].to_numpy() / factor, [f.us / 1e6 for f in frames], rtol=0, atol=2e-6)
        and back["label"].to_list() == [int(f.attacked) if "label" in proposal.table else None for f in frames]
    )
    assert right or proposal.guesses, (proposal.table, content[:300])
    if layout["header"]:
        assert right, (proposal, content[:300])
        assert ("label" in proposal.table) == layout["labelled"]
        assert len(proposal.rows) == 3


def four(folder: Path, rows: str, **table: Any) -> tuple[Any, Any]:
    return read(written(folder, "Time,ID,Data,Class\n" + rows), "table", table={**FOUR, **table})


def test_spellings_of_the_loop_and_of_single_rows_mean_the_same(tmp_path: Path) -> None:
    rows = "1.5,1A0,00FF,R\n 1.5 , 0x1A0,0x00FF,T\n1.5,1A0,00-ff,R\n1.5,1a0,0x00 0xFF,R\n1.5,1A0,,T\n1.5,18FEF100x,00:FF,R\n+1.5,1A0,00FF,R\n"
    frames, rejects = four(tmp_path, rows, label=LABEL)
    payloads = [b"\x00\xff"] * 4 + [b"", b"\x00\xff"]
    assert frames["payload"].to_list() == payloads
    assert frames["label"].to_list() == [0, 1, 0, 0, 1, 0]
    assert frames["timestamp"].to_list() == [1.5] * 6
    assert frames.select("can_id", "extended").rows()[-2:] == [(0x1A0, False), (0x18FEF100, True)]
    assert rejects.select("line", "reason").rows() == [(8, "timestamp '+1.5' is not a number of seconds")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,1,00,R", "timestamp 'x' is not a number of seconds"),
        ("1e3,1,00,R", "timestamp '1e3' is not a number of seconds"),
        ("1.0,1G,00,R", "arbitration ID '1G' is not a hexadecimal number"),
        ("1.0,20000000,00,R", "arbitration ID '20000000' has more than 29 bits"),
        ("1.0,1,000,R", "payload '000' is not a row of bytes"),
        ("1.0,1," + "00" * 9 + ",R", "no CAN FD frame has 9 payload bytes"),
        ("1.0,1,00,Q", "label 'Q' is neither attacked nor normal"),
        ("1.0,1,00,R,7", "more fields than the header has"),
        ("1.0", "not of the form 'Time,ID,Data,Class'"),
        ("", "not of the form 'Time,ID,Data,Class'"),
    ],
)
def test_bad_row_is_a_reject_with_its_line_and_reason(tmp_path: Path, row: str, reason: str) -> None:
    frames, rejects = four(tmp_path, f"1.0,1,00,R\n{row}\n1.0,1,00,T\n", label=LABEL)
    assert frames["line"].to_list() == [2, 4]
    assert rejects.select("line", "reason").rows() == [(3, reason)]


CELLS: dict[str, Any] = {
    "delimiter": ";",
    "skip": 2,
    "comment": "#",
    "time": {"column": "Zeit", "form": "time_of_day"},
    "id": {"column": "ID", "base": 10},
    "dlc": "DLC",
    "payload": {"columns": ["B0", "B1", "B2"], "base": 10},
    "channel": "Bus",
    "direction": "Dir",
    "extended": {"column": "Ext"},
    "remote": {"column": "Typ", "values": ["RTR"]},
}


def test_columns_of_bytes_flags_channel_direction_comments_and_midnight(tmp_path: Path) -> None:
    content = """recorded with a tool
Zeit;Bus;Dir;ID;Ext;Typ;DLC;B0;B1;B2
23:59:59,5;can0;Rx;291;no;DATA;3;0;10;255
23:59:59,6;can0;TxRq;291;no;DATA;1;7;;
23:59:59,75;can0;Tx;291;no;DATA;1;7;;0
# a note
00:00:00,25;;Rx;"291";YES;RTR;2;;;
00:00:00,5;can1;Rx;291.0;no;DATA;16;1;2;
00:00:00,5;can1;Rx;291;no;DATA;2;1;2;3
00:00:00,5;can1;Rx;291;no;DATA;2;1;;
00:00:00,75;can1;Rx;291;no;DATA;2;1;2
"""
    frames, rejects = read(written(tmp_path, content), "table", table=CELLS)
    assert said(frames) == [
        (0x123, False, False, False, 3, b"\x00\x0a\xff"),
        (0x123, False, False, False, 1, b"\x07"),
        (0x123, True, True, False, 2, b""),
        (0x123, False, False, False, 2, b"\x01\x02"),
        (0x123, False, False, False, 2, b"\x01\x02"),
    ]
    assert (frames["timestamp"] - 86400).to_list() == [-0.5, -0.25, 0.25, 0.5, 0.75]
    assert frames["channel"].to_list() == ["can0", "can0", None, "can1", "can1"]
    assert rejects.select("line", "reason").rows() == [
        (9, "more bytes than the DLC says"),
        (10, "1 payload bytes, but a DLC of 2"),
    ]


@pytest.mark.parametrize(
    ("form", "written_as"),
    [
        ("date", "2024-02-29T13:14:15.250"),
        ("date", "2024-02-29 14:14:15,25+01:00"),
        ("date_dmy", "29.02.2024 13:14:15.25"),
        ("date_mdy", "2/29/2024 13:14:15.25"),
    ],
)
def test_dates_are_seconds_since_1970(tmp_path: Path, form: str, written_as: str) -> None:
    table = {**FOUR, "delimiter": ";", "time": {"column": 1, "form": form}}
    frames, _ = read(written(tmp_path, f"t;i;d\n{written_as};1;00\n"), "table", table=table)
    assert frames["timestamp"].to_list() == [datetime(2024, 2, 29, 13, 14, 15, 250000, UTC).timestamp()]


def test_dates_that_follow_each_other_are_each_read_as_alone(tmp_path: Path) -> None:
    # The day of the row above, another day of as many or more characters, other separators, parts that are out of range or missing.
    times = [
        "2024-02-28 23:59:59.9",
        "2024-02-28 23:59:59.95",
        "2024-02-29 00:00:00",
        "2024-02-29T00:00:00.5",
        "2024-02-29 1:2:3.25",
    ]
    times += [
        "2024-02-29 01:02:61",
        "2024-02-29 01:02",
        "2024-02-29 01:02:04Z",
        "2024-02-29 01:02:05.000001",
        "2024-2-29 01:02:06",
        "2024-2-29 01:02:07.5",
    ]
    times += [
        "2024-02-29 01:02:08,5",
        "2024-02-29",
        "2024-02-29 01:02:09.",
        "2024-02-290 01:02:10",
        "2024-02-29  01:02:11",
    ]

    def seconds(rows: list[str]) -> dict[str, float]:
        lines = [f"{row};100;{n:02x}" for n, row in enumerate(rows)]
        mapping = {**FOUR, "delimiter": ";", "skip": 0, "time": {"column": 1, "form": "date"}}
        frames, _ = read(written(tmp_path, "\n".join([*lines, ""])), "table", table=mapping)
        return {rows[payload[0]]: t for payload, t in frames.select("payload", "timestamp").iter_rows()}

    alone = {row: second for time in times for row, second in seconds([time]).items()}
    assert seconds(times) == alone
    assert len(alone) == 11
    assert alone["2024-02-29 1:2:3.25"] == datetime(2024, 2, 29, 1, 2, 3, 250000, UTC).timestamp()


@pytest.mark.parametrize("base", [10, 16])
def test_a_byte_a_column_is_read_in_every_spelling(tmp_path: Path, base: int) -> None:
    cells = [*map(str, range(256)), "007", "0", "1234", "256", "999", "-1", "1.5", "ff", " 8", '"9"', "x", ""]

    def byte(cell: str) -> int | None:
        text = cell.strip(' "')
        try:
            return value if (value := int(text, base)) < 256 and text.isalnum() else None
        except ValueError:
            return None

    rows = [f"{n}.5,100,1,{cell}" for n, cell in enumerate(cells)]
    mapping = {**FOUR, "skip": 0, "dlc": 3, "payload": {"columns": [4], "base": base}}
    frames, rejects = read(written(tmp_path, "\n".join([*rows, ""])), "table", table=mapping)
    wanted = {n: byte(cell) for n, cell in enumerate(cells)}
    assert dict(zip((frames["timestamp"] - 0.5).to_list(), map(list, frames["payload"]), strict=True)) == {
        n: [value] for n, value in wanted.items() if value is not None
    }
    assert len(rejects) == sum(value is None for value in wanted.values())


def test_times_since_the_row_above_and_counters_that_begin_again(tmp_path: Path) -> None:
    rows = "0,1,00,R\n5,1,0,R\n3,1,00,R\n"
    frames, rejects = four(tmp_path, rows, time={"column": 1, "form": "delta"})
    assert frames["timestamp"].to_list() == [0.0, 8.0], "the interval of a bad row counts too"
    assert len(rejects) == 1
    frames, _ = four(tmp_path, "90,1,00,R\n98,1,00,R\n3,1,00,R\n", time={"column": 1, "wraps": 100})
    assert frames["timestamp"].to_list() == [90.0, 98.0, 103.0]
    without = {key: value for key, value in FOUR.items() if key != "time"}
    path = written(tmp_path, "Time,ID,Data\n-,1,00\n-,1,00\n")
    assert "has no times" in refused(path, "table", table=without)
    assert read(path, "table", table=without, assume_rate=10.0)[0]["timestamp"].to_list() == [0.0, 0.1]


def test_labels_by_values_of_one_kind(tmp_path: Path) -> None:
    rows = "1,1,00,DoS\n2,1,00,normal\n3,1,00,Fuzzy\n"
    assert four(tmp_path, rows, label={"column": "class", "normal": ["Normal"]})[0]["label"].to_list() == [1, 0, 1]
    assert four(tmp_path, rows, label={"column": "class", "attacked": ["DoS"]})[0]["label"].to_list() == [1, 0, 0]


def test_pieces_of_a_table_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{n}.5,{n % 50:03X},{n % 256:02x},{'RT'[n % 2]}\n" for n in range(60)) + "9,1,00 11,Q\n61,001,05,R"
    whole = four(tmp_path, rows, label=LABEL)
    monkeypatch.setattr(text, "_CHUNK", 50)
    again = four(tmp_path, rows, label=LABEL)
    assert [len(part) for part in whole] == [61, 1]
    assert all(a.equals(b) for a, b in zip(whole, again, strict=True))
    path = Growing.of(tmp_path / "capture", IdleTimeout(at_end=True))
    assert len(read(path, "table", table={**FOUR, "label": LABEL})[0]) == 60, "the last line has no line end yet"


def test_last_payload_that_was_cut_is_a_reject(tmp_path: Path) -> None:
    frames, rejects = four(tmp_path, "1,1,0011,\n2,1,0011,\n3,1,00")
    assert len(frames) == 2
    assert rejects["line"].to_list() == [4]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"id": {"column": "AID"}}, "table.id.column: no column 'AID' in line 1; the names are time, id, data, class"),
        ({"id": {"column": 3}}, "table.payload.column: column 3 has a meaning already"),
        ({"payload": {"base": 10}}, "table.payload: give either 'column'"),
        ({"label": {"column": 4}}, "table.label: needs values that mean 'attacked'"),
        ({"remote": {"column": 4}}, "table.remote: remote frames have no payload, so 'dlc' is needed too"),
    ],
)
def test_mapping_that_does_not_fit_is_refused(tmp_path: Path, table: dict[str, Any], complaint: str) -> None:
    path = written(tmp_path, "Time,ID,Data,Class\n1,1,00,R\n")
    assert complaint in refused(path, "table", table={**FOUR, **table})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("just some words\n" * 20, "no column holds times that rise from row to row"),
        ("a,b\n1,2\n" * 20, "is no table of three columns or more"),
        ("".join(f"Time,ID,Data\n{n},{n % 7:03X},zz\n" for n in range(20)), "no column"),
        (
            "Time,ID,Data\n" + "".join(f"{99 - n},{n % 7:03X},00{n:02X}FF00\n" for n in range(90)),
            "times count backwards",
        ),
    ],
)
def test_what_is_no_table_of_frames_is_refused_with_the_reason(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(CanidsError, match=complaint):
        propose(written(tmp_path, content), likely_unit)
