"""Frames written in every dialect of text, for the tests of the readers and for bench/formats.py."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from canids_preprocess.formats import text


@dataclass(frozen=True)
class Frame:
    """A frame at `us` microseconds; `length` is that of the payload, or the one that a remote frame asks for."""

    us: int
    can_id: int
    extended: bool
    payload: bytes
    remote: bool = False
    fd: bool = False
    length: int = 0
    label: int = 0

    @property
    def seconds(self) -> str:
        return f"{self.us // 10**6}.{self.us % 10**6:06d}"

    @property
    def dlc(self) -> int:
        return self.length if self.remote else len(self.payload)

    @property
    def spaced(self) -> str:
        return self.payload.hex(" ").upper()


Writer = Callable[[list[Frame]], str]


def rows(line: Callable[[Frame], str], header: str = "", end: str = "\n") -> Writer:
    return lambda frames: header + "".join(line(f) + end for f in frames)


def candump(frame: Frame, behind: str = "") -> str:
    digits = f"{frame.can_id:08X}" if frame.extended else f"{frame.can_id:03X}"
    data = f"R{frame.length}" if frame.remote else ("#0" if frame.fd else "") + frame.payload.hex().upper()
    return f"({frame.seconds}) can0 {digits}#{data}{behind}"


def console(frame: Frame, time: str, interface: str = "can0  ") -> str:
    digits = f"{frame.can_id:08X}" if frame.extended else f"{frame.can_id:03X}"
    length = f"[{frame.dlc:02d}]" if frame.fd else f"[{frame.dlc}]"
    return f" {time}  {interface}{digits}   {length}  {'remote request' if frame.remote else frame.spaced}"


def console_by_delta(frames: list[Frame]) -> str:
    """As `candump -t d`: the gaps alternate, as on a bus."""
    return "".join(console(f, f"({gap:.6f})") + "\n" for f, gap in zip(frames, gaps_of(frames), strict=True))


def gaps_of(frames: list[Frame]) -> list[float]:
    times = [f.us / 1e6 for f in frames]
    return [0.0, *(b - a for a, b in pairwise(times))]


def gvret(direction: str = "Rx,", lower: bool = False) -> Callable[[Frame], str]:
    def line(f: Frame) -> str:
        cells = "".join(f"{b:02X}," for b in f.payload)
        row = f"{f.us},{f.can_id:08X},{'true' if f.extended else 'false'},{direction}0,{f.dlc},{cells}"
        return row.lower() if lower else row

    return line


def busmaster(decimal: bool) -> Writer:
    def line(f: Frame) -> str:
        tenths = f.us // 100
        clock = f"{tenths // 36_000_000 % 24}:{tenths // 600_000 % 60}:{tenths // 10_000 % 60}:{tenths % 10_000:04d}"
        kind = ("x" if f.extended else "s") + ("r" if f.remote else "")
        data = " ".join(str(b) if decimal else f"{b:02X}" for b in f.payload)
        return f"{clock} Rx 1 {f.can_id if decimal else f'0x{f.can_id:03X}'} {kind} {f.dlc} {data}"

    base = "DEC" if decimal else "HEX"
    header = f"***BUSMASTER Ver 2.4.0***\n***PROTOCOL CAN***\n***[START LOGGING SESSION]***\n***{base}***\n***SYSTEM MODE***\n"
    return rows(line, header + "***<Time><Tx/Rx><Channel><CAN ID><Type><DLC><DataBytes>***\n")


def asc(base: str) -> Writer:
    decimal = base == "dec"

    def line(f: Frame) -> str:
        number = (f"{f.can_id}" if decimal else f"{f.can_id:X}") + ("x" if f.extended else "")
        data = " ".join(str(b) if decimal else f"{b:02X}" for b in f.payload)
        if f.fd:
            code = text.FD_LENGTHS.index(len(f.payload))
            return f" {f.seconds} CANFD 1 Rx {number} 1 0 {code if decimal else f'{code:x}'} {f.dlc} {data} 0 0 303000 0 0 0 0 0"
        kind = f"r {f.length}" if f.remote else f"d {f.dlc}"
        return f" {f.seconds} 1  {number}  Rx   {kind} {data}  Length = 0 BitCount = 0 ID = {f.can_id}{'x' if f.extended else ''}"

    return rows(line, f"date Thu Sep 2 09:37:49 am 2021\nbase {base}  timestamps absolute\ninternal events logged\n")


def decimal_columns(f: Frame) -> str:
    return ",".join(map(str, [f.can_id, *f.payload, "ATTACK" if f.label else "BENIGN", "x", "x"]))


def attacked(f: Frame) -> str:
    cells = "".join(f"{b:02x}," for b in f.payload)
    return f"{f.seconds},{f.can_id:04x},{f.dlc},{cells}{'T' if f.label else 'R'}"


CHALLENGE = "Timestamp,Arbitration_ID,DLC,Data,Class,SubClass\n"
DAGA = "timestamp,CAN_ID,DLC,PAYLOAD_HEX,PAYLOAD_BIN,ANOMALY\n"
CICIOV = "ID," + ",".join(f"DATA_{n}" for n in range(8)) + ",label,category,specific_class\n"
GVRET = "Time Stamp,ID,Extended,Dir,Bus,LEN,D1,D2,D3,D4,D5,D6,D7,D8\n"
TABS = "ParserFlags\tCh\tCounter\tT/R\tTime\tFlags\tCAN ID\tLen\tData\tParser Name\tdefault\n"
CTT = "timestamp,arbitration_id,data_field,attack\n"
ATTACKED = "Timestamp,CAN ID,DLC,DATA[0],DATA[1],DATA[2],DATA[3],DATA[4],DATA[5],DATA[6],DATA[7],Flag\n"


@dataclass(frozen=True)
class Dialect:
    """A writer, and which frames it can write."""

    name: str
    write: Writer
    remote: bool = False
    fd: bool = False
    by_value: bool = True
    labels: bool = False
    whole: bool = False
    unit_us: int = 1
    timed: bool = True


DIALECTS = {
    "candump": Dialect("candump", rows(candump), remote=True, fd=True, by_value=False),
    "mirgu": Dialect("can-mirgu", rows(lambda f: candump(f, f" {f.label}")), remote=True, fd=True, by_value=False, labels=True),
    "console": Dialect("candump-console", rows(lambda f: console(f, f"({f.seconds})")), remote=True, fd=True, by_value=False),
    "console-bare": Dialect("candump-console", rows(lambda f: console(f, f.seconds, "")), remote=True, fd=True, by_value=False),
    "console-RX0": Dialect("candump-console", rows(lambda f: console(f, f"({f.seconds})", "RX0 ")), fd=True, by_value=False),
    "console-x": Dialect("candump-console", rows(lambda f: console(f, f"({f.seconds})", "can0  RX - -  ")), by_value=False),
    "console-untimed": Dialect("candump-console", rows(lambda f: console(f, "")), remote=True, by_value=False, timed=False),
    "gvret": Dialect("gvret", rows(gvret(), GVRET), by_value=False),
    "gvret-old": Dialect("gvret", rows(gvret(""), GVRET.replace("Dir,", ""), "\r\n"), by_value=False),
    "gvret-lower": Dialect("gvret", rows(gvret(lower=True), "\ufeff" + GVRET.lower()), by_value=False),
    "crtd": Dialect("crtd", rows(lambda f: f"{f.seconds} 1R{29 if f.extended else 11} {f.can_id:03X} {f.spaced}", "1.0 CXX OVMS\n"), by_value=False),
    "crysys": Dialect("crysys", rows(lambda f: f"{f.seconds} {f.can_id:0{8 if f.extended else 4}X} {100 if f.remote else '000'} {f.dlc} {f.spaced}"), remote=True, by_value=False),
    "busmaster": Dialect("busmaster", busmaster(decimal=False), remote=True, by_value=False, unit_us=100),
    "busmaster-dec": Dialect("busmaster", busmaster(decimal=True), remote=True, by_value=False, unit_us=100),
    "tabs": Dialect("tab-log", rows(lambda f: f"1\t0\t7\tRX\t{f.us // 1000}\t\t0x{f.can_id:08x}\t{f.dlc}\t0x{f.spaced} \tDefault\t", TABS), unit_us=1000),
    "challenge": Dialect("hcrl-challenge", rows(lambda f: f"{f.seconds},{f.can_id:03X},{f.dlc},{f.spaced},{'Attack' if f.label else 'Normal'},x", CHALLENGE), labels=True),
    "daga-bits": Dialect("daga", rows(lambda f: f"{f.seconds},{f.can_id:X},{8 * f.dlc},{f.payload.hex()},0,{bool(f.label)}", DAGA), labels=True),
    "daga-bytes": Dialect("daga", rows(lambda f: f"{f.seconds},{f.can_id:X},{f.dlc},{f.payload.hex()},0,{bool(f.label)}", DAGA), labels=True),
    "ciciov": Dialect("ciciov", rows(decimal_columns, CICIOV), labels=True, whole=True, timed=False),
    "asc-hex": Dialect("asc", asc("hex"), remote=True, fd=True, by_value=False),
    "asc-dec": Dialect("asc", asc("dec"), remote=True, fd=True, by_value=False),
    "can-train-and-test": Dialect("can-train-and-test", rows(lambda f: f"{f.seconds},{f.can_id:03X},{f.payload.hex()},{f.label}", CTT), fd=False, labels=True),
    "car-hacking": Dialect("hcrl-car-hacking", rows(attacked, ATTACKED), labels=True),
}  # fmt: skip
