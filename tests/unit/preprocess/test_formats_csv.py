"""What CSV files suffer: spreadsheets, lengths that no frame has, empty lines at the end."""

from pathlib import Path

import pytest
from capture_files import read, refused, written

from canids_preprocess.formats import text

CSV = "timestamp,arbitration_id,data_field,attack\n"
PYTHON_CAN = "timestamp,arbitration_id,extended,remote,error,dlc,data\n"


@pytest.mark.parametrize(
    ("name", "content", "lost"),
    [
        ("can-train-and-test", CSV + "1672531398,1E5,00FF,0\n" * 3, "timestamps have lost their fractions"),
        ("can-train-and-test", CSV + "1.67253E+09,1E5,00FF,0\n", "timestamps have lost their fractions"),
        ("can-train-and-test", CSV + "1672531398.5,1E5,00FF,0\n" * 3, "timestamps have lost their fractions"),
        ("can-train-and-test", CSV + "0.123456,1E5,1.23E+15,0\n0.123460,1E5,00,0\n" * 2, "IDs and payloads have become"),
        ("can-train-and-test", CSV.replace("\n", "\r\n") + "0.123456,1.00E+05,00,0", "IDs and payloads have become"),
        ("python-can-csv", PYTHON_CAN + "1672531398,0x123,0,0,0,2,AAE=\n" * 3, "timestamps have lost their fractions"),
        ("python-can-csv", PYTHON_CAN + "1.67253E+09,0x123,0,0,0,2,AAE=\n" * 3, "timestamps have lost their fractions"),
        ("hcrl-survival", '1.47820E+09,0316,2,"05 21"\n' * 3, "timestamps have lost their fractions"),
    ],
)  # fmt: skip
def test_spreadsheet_is_refused_in_every_csv(tmp_path: Path, name: str, content: str, lost: str) -> None:
    assert refused(written(tmp_path, content), name).startswith(f": mangled by a spreadsheet: {lost}")


def test_slow_logs_without_fractions_are_no_spreadsheets(tmp_path: Path) -> None:
    rows = "".join(f"{1672531398 + n},1E5,00,0\n" for n in range(5))
    assert len(read(written(tmp_path, CSV + rows), "can-train-and-test")[0]) == 5
    same = PYTHON_CAN + "1672531398.123,0x123,0,0,0,3,1E+1\n" * 5
    assert len(read(written(tmp_path, same), "python-can-csv")[0]) == 5


@pytest.mark.parametrize("size", range(66))
def test_payload_of_can_train_and_test_has_a_length_that_a_frame_can_have(tmp_path: Path, size: int) -> None:
    rows = f"1.000,123,{'5A' * size},0\n+1.001,123,{'5A' * size},0\n"  # the second one is not in the usual spelling
    frames, rejects = read(written(tmp_path, CSV + rows), "can-train-and-test")
    if size in text.FD_LENGTHS:
        assert frames.select("dlc", "fd").rows() == [(size, size > 8)] * 2
    else:
        assert not len(frames)
        assert rejects["reason"].to_list() == [f"no CAN FD frame has {size} payload bytes"] * 2


@pytest.mark.parametrize("end", ["\n", "\r\n\r\n", "\n\n\n\r", "\n" * 100])
@pytest.mark.parametrize("size", [1, 17, 1 << 23])
def test_empty_lines_at_the_end_of_a_file_are_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, size: int
) -> None:
    monkeypatch.setattr(text, "_CHUNK", size)
    path = written(tmp_path, f"(1.0) can0 001#\n\n\r\n(2.0) can0 001#{end}")
    frames, rejects = read(path, "candump")
    assert (frames["line"].to_list(), rejects["line"].to_list()) == ([1, 4], [2, 3])
    path = written(tmp_path, f"{CSV}1.0,123,00,0\n\n2.0,123,00,0{end}")
    frames, rejects = read(path, "can-train-and-test")
    assert (frames["line"].to_list(), rejects["line"].to_list()) == ([2, 4], [3])
    for name in ("candump", "can-train-and-test"):
        assert refused(written(tmp_path, "\n\r\n"), name) == ": nothing but empty lines"
