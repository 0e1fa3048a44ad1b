"""Drafting a manifest for a folder of captures in any format."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from capture_files import MESSAGES, OWN, record

from canids_preprocess.draft import draft
from canids_preprocess.drafting.names import hint_of, kind_of_attack
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError

NOTHING = "no hint"


def command(folder: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "canids_preprocess.draft", str(folder)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


@pytest.fixture
def captures(workplace: Path) -> Path:
    """A folder of captures as they may lie there, in `data/mixed`."""
    folder = workplace / "data/mixed"
    (folder / "road").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for source, place in {
        "car_hacking_attacked.csv": "DoS_dataset.csv",
        "car_hacking_normal.txt": "normal_run_data.txt",
        "survival_free_driving.csv": "FreeDrivingData_20180323_KIA.txt",
        "otids_remote.txt": "Fuzzy_attack_dataset.txt",
        "candump.log": "night drive.log",
        "log.asc": ".hidden/log.asc",
        "road/max_speedometer_attack_1.log": "road/max_speedometer_attack_1.log",
        "road/capture_metadata.json": "road/capture_metadata.json",
    }.items():
        shutil.copy(OWN / source, folder / place)
    record(folder / "night drive.mf4", MESSAGES)
    (folder / "notes.txt").write_text("captured by night\n")
    return folder


def test_draft_is_a_manifest_that_loads(captures: Path) -> None:
    (captures / "manifest.yaml").write_text(draft(captures).text)
    captures = manifest.load("mixed", "data")
    assert {c.name: (c.format, c.vehicle, c.role, c.content, c.attack) for c in captures.values()} == {
        "DoS_dataset": ("hcrl-car-hacking", "sonata", "train", "labelled", "dos"),
        "FreeDrivingData_20180323_KIA": ("hcrl-survival", "kia", "train", "attack-free", None),
        "Fuzzy_attack_dataset": ("otids", "soul", "train", "labelled", "fuzzing"),
        "night-drive.vcan0": ("candump", "mixed", "to_score", "unlabelled", None),
        "night-drive.vcan1": ("candump", "mixed", "to_score", "unlabelled", None),
        "night-drive.mf4.0": ("mf4", "mixed", "to_score", "unlabelled", None),
        "night-drive.mf4.1": ("mf4", "mixed", "to_score", "unlabelled", None),
        "normal_run_data": ("hcrl-car-hacking", "sonata", "train", "attack-free", None),
        "road.max_speedometer_attack_1": ("road", "road", "test", "labelled", "max-speedometer"),
    }
    assert captures["road.max_speedometer_attack_1"].metadata == Path("data/mixed/road/capture_metadata.json")
    assert manifest.missing(captures, "mixed") == []


@pytest.mark.parametrize(
    ("path", "attack"),
    [
        ("FreeDrivingData_20180323_KIA.txt", None),
        ("NormalRun.log", None),
        ("normal_run_data.txt", None),
        ("Attack-free2.csv", None),
        ("ambient_dyno_drive_benign_anomaly.log", None),
        ("normal/2024-01-01.log", None),
        ("dos/normal_run.log", None),
        ("normal/dos_attack.log", "dos"),
        ("normal/DoSAttack.log", "dos"),
        ("dos/2024-01-01.log", "dos"),
        ("DoS_run3.log", "dos"),
        ("attack 2 - fuzzy.blf", "fuzzing"),
        ("2024-05 RPMSpoof#2.asc", "rpm-spoofing"),
        ("ReplayAttack7.csv", "replay"),
        ("mitm.log", "mitm"),
        ("suspension_03.log", "suppression"),
        ("MASQUERADE-1.csv", "masquerade"),
        ("fabrication.log", "fabrication"),
        ("injection 4.log", "injection"),
        ("fuel_injection.log", NOTHING),
        ("Angriff 3 - Wiedereinspielung.asc", "replay"),
        ("Unterdrückung.log", "suppression"),
        ("gefälschte_Drehzahl.log", "spoofing"),
        ("Flutung/lauf_1.log", "dos"),
        ("Angriff_1.log", "attack"),
        ("ohne Angriff.log", None),
        ("angriffsfreie Fahrt.log", None),
        ("Normalfahrt 2.log", None),
        ("run2_no_attacks.log", None),
        ("gear_attack.log", "gear-spoofing"),
        ("gear-shift.log", NOTHING),
        ("accessory-2.log", NOTHING),
        ("car-running-idle.log", NOTHING),
        ("attack_free_then_dos.log", "dos"),
        ("normal_then_attack.log", "attack"),
        ("normal/abnormal_driving.log", "attack"),
        ("unclean.log", "attack"),
        ("windows_clean.log", None),
        ("kudos.log", NOTHING),
        ("max_speedometer_attack_1_masquerade.log", "max-speedometer-masquerade"),
    ],
)
def test_attack_is_guessed_from_whole_words_and_from_the_file_before_its_folder(path: str, attack: str | None) -> None:
    hint = hint_of(Path(path))
    assert ((hint.kind or None) if hint else NOTHING) == attack


def test_an_attack_that_is_there_is_named_by_its_target_too() -> None:
    assert kind_of_attack(Path("RPM_dataset.csv")) == "rpm-spoofing"
    assert kind_of_attack(Path("rpm/drive.csv")) == "rpm-spoofing"
    assert kind_of_attack(Path("drive.csv")) == "attack"
    assert hint_of(Path("drive.log"), ["mycar", "benign"]) == ("", "benign")
    assert hint_of(Path("drive.log"), ["attacks"]) is None


def test_draft_says_what_is_to_be_checked(captures: Path) -> None:
    comments = [line.strip() for line in draft(captures).text.splitlines() if line.strip().startswith("#")]
    assert sum("attack-free by its name (" in c for c in comments) == 2
    assert sum("no labels: will be scored only" in c for c in comments) == 4
    assert sum(c.startswith("# not a capture that can be read: notes.txt: ") for c in comments) == 1


def test_draft_reads_dialects_and_says_why_it_refuses_one(tmp_path: Path) -> None:
    for path in (OWN / "dialects").iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "console.txt").write_text("  can0  123   [2]  31 2E\n" * 5)
    (tmp_path / "mixed.log").write_text("(1.0) can0 123#00 1\n(1.1) can0 123#00\n")
    (tmp_path / "drive.log.gz").write_bytes(gzip.compress((OWN / "candump.log").read_bytes()))
    text = draft(tmp_path).text
    formats = {name: entry["format"] for name, entry in yaml.safe_load(text)["captures"].items()}
    assert formats == {
        "busmaster": "busmaster",
        "can_mirgu": "can-mirgu",
        "candump_console": "candump-console",
        "crysys": "crysys",
        "daga": "daga",
        "drive.log.vcan0": "candump",
        "drive.log.vcan1": "candump",
        "hcrl_challenge": "hcrl-challenge",
        "ovms": "crtd",
        "savvycan_gvret": "gvret",
        "tab_log": "tab-log",
    }
    for file, reason in {
        "ciciov.csv": "has no times",
        "console.txt": "has no times",
        "mixed.log": "some rows have a",
    }.items():
        assert re.search(f"# not a capture that can be read: {file}.*: {reason}", text)


def test_draft_of_captures_without_labels_says_what_is_missing(tmp_path: Path) -> None:
    shutil.copy(OWN / "candump.log", tmp_path / "a.log")
    assert "# Missing: no capture to train on" in draft(tmp_path).text
    shutil.copy(OWN / "candump.log", tmp_path / "ambient.log")
    assert "# Missing" not in draft(tmp_path).text
    (tmp_path / "a.log").unlink()
    assert "# No capture to test on, so blocks of the training captures will be judged" in draft(tmp_path).text


def test_layout_of_can_train_and_test_keeps_its_roles(workplace: Path) -> None:
    for name, attacked in {"train_01/attack-free-kia.csv": 0, "test_01/dos-kia.csv": 1}.items():
        path = workplace / "data/fleet" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"timestamp,arbitration_id,data_field,attack\n1.0,123,00FF,{attacked}\n")
    text = draft(workplace / "data/fleet").text
    assert yaml.safe_load(text) == yaml.safe_load(manifest.draft("fleet", workplace / "data"))
    assert set(yaml.safe_load(text)["captures"]) == {"train_01.attack-free-kia", "test_01.dos-kia"}


def test_folders_give_roles_to_captures_in_any_format(workplace: Path) -> None:
    for source, place in {
        "python_can.csv": "train_01/ambient.csv",
        "candump.log": "train_01/drive.log",
        "car_hacking_attacked.csv": "train_01/DoS_dataset.csv",
        "survival_attacked.csv": "test_01/Fuzzy_KIA.csv",
        "log.asc": "test_01/drive.asc",
    }.items():
        path = workplace / "data/fleet" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(OWN / source, path)
    (workplace / "data/fleet/train_01/saved.csv").write_text("time;id\n")
    text = draft(workplace / "data/fleet").text
    assert "# not a capture that can be read: train_01/saved.csv: " in text
    (workplace / "data/fleet/manifest.yaml").write_text(text)
    assert {c.name: (c.format, c.role, c.content) for c in manifest.load("fleet", "data").values()} == {
        "test_01.Fuzzy_KIA": ("hcrl-car-hacking", "test_01", "labelled"),
        "test_01.drive.0": ("asc", "test_01", "unlabelled"),
        "test_01.drive.1": ("asc", "test_01", "unlabelled"),
        "train_01.DoS_dataset": ("hcrl-car-hacking", "train", "labelled"),
        "train_01.ambient": ("python-can-csv", "train", "attack-free"),
        "train_01.drive.vcan0": ("candump", "to_score", "unlabelled"),
        "train_01.drive.vcan1": ("candump", "to_score", "unlabelled"),
    }


def test_command_adds_to_a_manifest_and_never_changes_it(tmp_path: Path) -> None:
    shutil.copy(OWN / "car_hacking_normal.txt", tmp_path / "normal.txt")
    done = command(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "manifest.yaml").read_text() == done.stdout
    (tmp_path / "normal.txt").rename(tmp_path / "quiet.txt")
    done = command(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"gone: {tmp_path}/normal.txt is listed, and there is no such file" in done.stderr
    assert "manifest.yaml: quiet; all else in it is as it was" in done.stderr
    assert list(yaml.safe_load(done.stdout)["captures"]) == ["normal", "quiet"]
    (tmp_path / "manifest.yaml").write_text("mine")
    done = command(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}/manifest.yaml: 'mine' is not of type")
    assert (tmp_path / "manifest.yaml").read_text() == "mine"


MINE = """\
# of the summer    (do not sort)
contract:   "manifest/1"
captures:
    old:   {path: normal.txt, vehicle: mine, role: test, content: attack-free}   # checked
    # a note of mine
    new:
        path: "dos.csv"
        vehicle: mine
        role: train
        content: labelled      # by hand
        attacked:
            - [1, 2]
# the end
"""


@pytest.mark.parametrize(
    "mine",
    [
        MINE,
        MINE.replace("\n", "\r\n"),
        MINE.removesuffix("# the end\n").rstrip("\n"),
        MINE.replace('contract:   "manifest/1"\n', "") + 'contract: "manifest/1"\n',
        "contract: manifest/1\ncaptures:\n  o: {path: normal.txt, vehicle: mine, role: test, content: attack-free}\n\n\n",
    ],
)
def test_what_a_person_wrote_stays_to_the_byte(tmp_path: Path, mine: str) -> None:
    for name, source in {"normal.txt": "car_hacking_normal.txt", "dos.csv": "car_hacking_attacked.csv"}.items():
        shutil.copy(OWN / source, tmp_path / name)
    shutil.copy(OWN / "candump.log", tmp_path / "drive.log")
    (tmp_path / "manifest.yaml").write_bytes(mine.encode())
    result = draft(tmp_path)
    drives = ["drive.vcan0", "drive.vcan1"]
    assert result.added == drives if "dos.csv" in mine else ["dos", *drives]
    # Without the added lines, the text is the one that was there.
    ending = "\r\n" if "\r\n" in mine else "\n"
    kept = result.text.splitlines(keepends=True)
    old = mine.splitlines(keepends=True)
    added = [line for line in kept if line not in old and line.rstrip("\r\n") not in old]
    assert "".join(line for line in kept if line not in added).rstrip(ending) == mine.rstrip(ending)
    assert all(line.endswith(ending) for line in added)
    old_content, content = yaml.safe_load(mine), yaml.safe_load(result.text)
    assert {**content["captures"], **old_content["captures"]} == content["captures"]
    (tmp_path / "manifest.yaml").write_bytes(result.text.encode())
    again = draft(tmp_path)
    assert (again.added, again.text) == ([], result.text)


@pytest.mark.parametrize(
    "text",
    [
        "captures: {o: {vehicle: v, role: test, content: attack-free, path: a.log}}\ncontract: manifest/1\n",
        "{contract: manifest/1, captures: {o: {vehicle: v, role: test, content: attack-free, path: a.log}}}",
    ],
)
def test_a_manifest_that_cannot_be_added_to_is_refused_with_the_entry(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.yaml").write_text(text)
    shutil.copy(OWN / "candump.log", tmp_path / "drive.log")
    with pytest.raises(
        CanidsError,
        match=r"cannot be added to safely; add by hand: # one of the buses.* · # no labels.* · drive.vcan0: · path: drive",
    ):
        draft(tmp_path)
    assert (tmp_path / "manifest.yaml").read_text() == text


def bus(path: Path, ids: list[int], frames: int = 400, attack: bool = False) -> None:
    """A capture in can-train-and-test: a frame of an ID each millisecond; with an attack every tenth is injected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{i / 1000:.3f},{ids[i % len(ids)]:03X},00FF,{int(attack and i % 10 == 0)}" for i in range(frames)]
    path.write_text("timestamp,arbitration_id,data_field,attack\n" + "\n".join(rows) + "\n")


def test_vehicles_are_distinguished_by_their_ids_unless_a_name_says_otherwise(tmp_path: Path) -> None:
    one, other = list(range(0x100, 0x114)), list(range(0x10E, 0x122))
    bus(tmp_path / "a/run1.csv", one)
    bus(tmp_path / "a/parked.csv", one[:9])
    bus(tmp_path / "b/fuzzing.csv", [*other, *other, 0x7F0], attack=True)
    bus(tmp_path / "b/kia_run.csv", other)
    bus(tmp_path / "b/short.csv", one, frames=50)
    entries = yaml.safe_load(draft(tmp_path).text)["captures"]
    vehicles = {name: entry["vehicle"] for name, entry in entries.items()}
    dataset = tmp_path.name
    assert vehicles == {"a.parked": "a", "a.run1": "a", "b.fuzzing": "kia", "b.kia_run": "kia", "b.short": dataset}
    assert "# vehicle a is a guess: the capture has mostly the arbitration IDs of 1 more" in draft(tmp_path).text


def test_what_is_attacked_is_unknown_where_a_named_attack_has_no_attacked_frame(tmp_path: Path) -> None:
    bus(tmp_path / "suppression.csv", [1, 2])
    bus(tmp_path / "clean.csv", [1, 2], attack=True)
    bus(tmp_path / "drive.csv", [1, 2])
    text = draft(tmp_path).text
    entries = yaml.safe_load(text)["captures"]
    said = {n: (e["role"], e["content"], e.get("attack")) for n, e in entries.items()}
    assert said == {
        "suppression": ("to_score", "unlabelled", "suppression"),
        "clean": ("test", "labelled", "attack"),
        "drive": ("train", "attack-free", None),
    }
    for comment in (
        "named as an attack, but no frame is labelled as attacked, so what is attacked is unknown",
        "called attack-free (clean), but frames of it are attacked",
        "no frame is labelled as attacked: is it attack-free?",
    ):
        assert f"  # {comment}" in text


def test_folder_without_captures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match="no such folder"):
        draft(tmp_path / "nowhere")
    (tmp_path / "a.json").write_text(json.dumps({}))
    with pytest.raises(CanidsError, match="no capture that can be read"):
        draft(tmp_path)


def test_a_name_never_writes_yaml(workplace: Path) -> None:
    folder = workplace / "data/evil\nrole: x"
    folder.mkdir(parents=True)
    for name in (
        "a\ncaptures: {}.log",
        "b\u2028c.log",
        "d\x85e: f.csv",
        "no.log",
        "'q\" #: [*&!%@`,.log",
        "2024-01-31.log",
    ):
        shutil.copy(OWN / "candump.log", folder / name)
    (folder / "x\ny: 1.txt").write_text("no capture\n")
    os_name = folder.as_posix().encode() + b"/\xff.log"
    Path(os.fsdecode(os_name)).write_bytes((OWN / "candump.log").read_bytes())
    result = command(folder)
    assert result.returncode == 0, result.stderr
    text = (folder / "manifest.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert set(content) == {"contract", "captures"}
    assert {entry["path"] for entry in content["captures"].values()} == {
        "no.log",
        "'q\" #: [*&!%@`,.log",
        "2024-01-31.log",
    }
    names = ("no", "-q-------------", "2024-01-31")
    assert set(content["captures"]) == {f"{name}.vcan{bus}" for name in names for bus in (0, 1)}
    assert text.count("a name with characters that cannot be printed; rename it") == 5
    manifest.read(folder / "manifest.yaml", folder)


def test_table_in_no_format_gets_a_mapping_and_shows_how_it_is_read(workplace: Path) -> None:
    folder = workplace / "data/fleet"
    folder.mkdir(parents=True)
    rows = [
        f"{n / 500:.4f};0x{0x100 + n % 7:03X};{n % 256:02X}-{n % 7:02X}-A0;{'Attack' if n > 90 else 'Normal'}"
        for n in range(150)
    ]
    (folder / "drive.txt").write_text("\n".join(["recorded by some tool", "Zeit;CAN-ID;Data;Class", *rows]) + "\n")
    done = command(folder)
    assert done.returncode == 0, done.stderr
    entry = yaml.safe_load(done.stdout)["captures"]["drive"]
    assert (entry["format"], entry["content"]) == ("table", "labelled")
    assert entry["table"] == {
        "delimiter": ";",
        "skip": 2,
        "time": {"column": "Zeit"},
        "id": {"column": "CAN-ID"},
        "payload": {"column": "Data"},
        "label": {"column": "Class", "attacked": ["Attack"], "normal": ["Normal"]},
    }
    assert "# line 3: 0.0000;0x100;00-00-A0;Normal → 0.000000 s, ID 100, DLC 3, 00 00 A0, label 0" in done.stdout
    assert "label 1" in done.stdout
    assert manifest.table_in(folder / "manifest.yaml") == {
        **entry["table"],
        "id": {"column": "CAN-ID", "base": 16},
        "payload": {"column": "Data", "base": 16},
        "time": {"column": "Zeit", "form": "number"},
    }


def test_log_of_several_buses_gets_an_entry_for_each(tmp_path: Path) -> None:
    rows = "".join(f"({n / 500:.4f}) can{n % 2} {0x100 + n % 7:X}#0011\n" for n in range(300))
    (tmp_path / "drive.log").write_text(rows)
    captures = yaml.safe_load(draft(tmp_path).text)["captures"]
    assert {name: (entry["path"], entry["channel"]) for name, entry in captures.items()} == {
        "drive.can0": ("drive.log", "can0"),
        "drive.can1": ("drive.log", "can1"),
    }
