"""The dataset manifest: drafting it from folders, finding it, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from canids_preprocess.formats import FORMATS
from canids_shared.contracts import manifest
from canids_shared.contracts.config import load_schema
from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage

ROOT = Path(__file__).parents[3]

TRAIN: dict[str, Any] = {"format": "can-train-and-test", "vehicle": "van", "role": "train", "content": "attack-free"}
TEST: dict[str, Any] = {**TRAIN, "role": "test_known", "content": "labelled", "attack": "dos"}


def lay_out(folder: Path, *names: str) -> None:
    """Empty captures at these places."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def written(workplace: Path, captures: dict[Any, dict[str, Any]], **top: Any) -> Path:
    """A manifest by the user's hand, for the dataset `fleet`."""
    path = workplace / "data/fleet/manifest.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {name: {"path": f"{name}.csv", **entry} for name, entry in captures.items()}
    path.write_text(yaml.safe_dump({"contract": "manifest/1", "captures": entries, **top}))
    return path


def refused(dataset: str = "fleet", data_root: str = "data") -> str:
    """The one line with which the manifest is refused."""
    with pytest.raises(CanidsError) as caught:
        manifest.load(dataset, data_root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_draft_takes_vehicle_and_attack_from_the_file_and_the_scenario_from_the_folder(workplace: Path) -> None:
    lay_out(
        workplace / "data/fleet",
        "train_01/attack-free-kia.csv",
        "train_02/gear-spoofing-sonata.csv",
        "test_03_unknown/DoS-1.csv",
        "test_03_unknown/fuzzing.csv",
        "notes/rpm-kia.csv",
    )
    captures = manifest.load("fleet", "data")
    said = {c.name: (c.vehicle, c.attack, c.role, c.content) for c in captures.values()}
    assert said == {
        "train_01.attack-free-kia": ("kia", None, "train", "attack-free"),
        "train_02.gear-spoofing-sonata": ("sonata", "gear-spoofing", "train", "labelled"),
        "test_03_unknown.DoS-1": ("fleet", "DoS", "test_03_unknown", "labelled"),
        "test_03_unknown.fuzzing": ("fleet", "fuzzing", "test_03_unknown", "labelled"),
    }
    assert manifest.scenarios(captures) == ["test_03_unknown"]
    assert captures["test_03_unknown.DoS-1"].path == Path("data/fleet/test_03_unknown/DoS-1.csv")


@pytest.mark.parametrize(
    ("name", "attack", "vehicle"),
    [
        ("accessory-1", None, "fleet"),
        ("accessory", None, "fleet"),
        ("accessory-kia", None, "kia"),
        ("rpm-accessory-1", "rpm", "fleet"),
        ("speed-accessory-2", "speed", "fleet"),
        ("rpm-accessory-kia", "rpm", "kia"),
        ("rpm-accessory", "rpm", "fleet"),
        ("force-neutral-1", "force-neutral", "fleet"),
        ("targeted_payload_fuzzing-2", "targeted_payload_fuzzing", "fleet"),
        ("attack-free", None, "fleet"),
        ("attack-free-3", None, "fleet"),
        ("DoS attack-kia", "DoS-attack", "kia"),
        ("DoS-1-kia", "DoS", "kia"),
    ],
)
def test_states_of_a_vehicle_and_numbers_are_no_attacks(name: str, attack: str | None, vehicle: str) -> None:
    entry = manifest.entry_of(Path(f"train_01/{name}.csv"), "fleet")
    assert (entry.get("attack"), entry["vehicle"]) == (attack, vehicle)
    assert entry["content"] == ("labelled" if attack else "attack-free")


def test_draft_is_written_once_and_then_belongs_to_the_user(workplace: Path) -> None:
    lay_out(workplace / "data/fleet", "train_01/attack-free-kia.csv", "test_01/dos-kia.csv")
    manifest.load("fleet", "data")
    drafted = Path("results/fleet/manifest.yaml")
    drafted.write_text(drafted.read_text().replace("vehicle: kia", "vehicle: soul"))
    manifest.load.cache_clear()
    assert {c.vehicle for c in manifest.load("fleet", "data").values()} == {"soul"}


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"format": "table"}, ": 'table' belongs to 'format: table', and only there"),
        (
            {"table": {"delimiter": ",", "id": {"column": 1}, "payload": {"column": 2}}},
            ": 'table' belongs to 'format: table'",
        ),
        (
            {"format": "table", "table": {"delimiter": "::", "id": {"column": 1}, "payload": {}}},
            ".table.delimiter: '::' is not one of",
        ),
        ({"format": "table", "table": {"delimiter": ",", "id": {"colum": 1}, "payload": {}}}, "did you mean 'column'?"),
        ({"channel": []}, ".channel: [] is not valid under any of the given schemas"),
    ],
)
def test_mapping_and_channel_of_an_entry_are_checked(workplace: Path, entry: dict[str, Any], complaint: str) -> None:
    written(workplace, {"a": {**TRAIN, **entry}, "b": TEST})
    assert complaint in refused()


def test_draft_says_which_files_it_does_not_list(workplace: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay_out(
        workplace / "data/fleet", "train_01/attack-free-kia.csv", "train_01/drive.log", "train_01/.x", "test_01/a.csv"
    )
    manifest.load("fleet", "data")
    assert caplog.messages[1:] == [
        "it does not list train_01/drive.log; make manifest DIR=data/fleet drafts one of all formats"
    ]


def test_moved_data_means_another_data_root(workplace: Path) -> None:
    lay_out(workplace / "data/fleet", "train_01/attack-free-kia.csv", "test_01/dos-kia.csv")
    before = manifest.load("fleet", "data")
    assert manifest.missing(before, "fleet") == []
    (workplace / "data").rename(workplace / "elsewhere")
    assert [m.split(";")[0] for m in manifest.missing(before, "fleet")] == [
        "dataset 'fleet', capture 'test_01.dos-kia': no file data/fleet/test_01/dos-kia.csv",
        "dataset 'fleet', capture 'train_01.attack-free-kia': no file data/fleet/train_01/attack-free-kia.csv",
    ]
    after = manifest.load("fleet", "elsewhere")
    assert after.keys() == before.keys()
    assert manifest.missing(after, "fleet") == []


@pytest.mark.parametrize("content", [(), ("captures/dos-kia.csv", "train_01/readme.txt")])
def test_folder_without_captures_is_refused(workplace: Path, content: tuple[str, ...]) -> None:
    lay_out(workplace / "data/fleet", *content)
    assert refused().startswith("dataset 'fleet': no manifest, and no captures")
    assert "data_root" in refused()
    assert not Path("results").exists()


def test_capture_that_a_drafted_manifest_does_not_list_is_refused(workplace: Path) -> None:
    lay_out(workplace / "data/fleet", "train_01/attack-free-kia.csv", "test_01/dos-kia.csv")
    manifest.load("fleet", "data")
    lay_out(workplace / "data/fleet", "test_02/fuzzing-kia.csv")
    manifest.load.cache_clear()
    assert refused().startswith(
        "results/fleet/manifest.yaml does not list data/fleet/test_02/fuzzing-kia.csv; add them, or delete"
    )


def test_written_manifest_comes_before_a_draft(workplace: Path) -> None:
    lay_out(workplace / "data/fleet", "train_01/attack-free-kia.csv", "test_01/dos-kia.csv")
    written(workplace, {"a": TRAIN, "b": TEST})
    assert list(manifest.load("fleet", "data")) == ["a", "b"]
    assert not Path("results").exists()


@pytest.mark.parametrize("name", [*manifest.SPLITS, manifest.LEFT_OUT])
def test_scenario_named_like_a_split_is_refused(workplace: Path, name: str) -> None:
    written(workplace, {"a": TRAIN, "b": {**TEST, "role": name}})
    assert refused().startswith(f"data/fleet/manifest.yaml: captures.b.role: a scenario cannot be named '{name}'")


@pytest.mark.parametrize(
    ("captures", "complaint"),
    [
        ({"b": TEST}, "needs at least one capture with role 'train'"),
        ({"a": {**TRAIN, "vehicel": "van"}, "b": TEST}, "unknown key 'data/fleet/manifest.yaml.captures.a.vehicel'; did you mean 'vehicle'?"),
        ({"a": {k: v for k, v in TRAIN.items() if k != "vehicle"}, "b": TEST}, "captures.a: 'vehicle' is a required"),
        ({"a": {**TRAIN, "format": "csv"}, "b": TEST}, "captures.a.format: 'csv' is not one of"),
        ({"a": {**TRAIN, "content": "unlabelled"}, "b": TEST}, "captures.a: an unlabelled capture cannot be trained"),
        ({"a": {**TRAIN, "format": "simulated"}, "b": TEST}, "captures.a: needs 'path', or 'format: simulated'"),
        ({"a": {**TRAIN, "simulation": {"duration": 5}}, "b": TEST}, "captures.a: 'simulation' belongs to"),
        ({"a": {**TRAIN, "attack": "dos"}, "b": TEST}, "captures.a: has the attack 'dos', so its content is not 'attack-free'"),
        ({"a": TRAIN, "b": {**TEST, "format": "asc", "metadata": "m.json"}}, "captures.b.metadata: belongs to 'format: road'"),
        ({"a": TRAIN, "b": {**TEST, "attacked": [[1, 2], [4, 3]]}}, "captures.b.attacked: [4, 3] does not end after it begins"),
        ({"a": TRAIN, "b": {**TEST, "attacked": [[1, 2, 3]]}}, "captures.b.attacked.0.2: 3 is not of type 'string'"),
        ({"a": TRAIN, "b": {**TEST, "attacked": [[-1, 2]]}}, "captures.b.attacked.0.0: -1 is less than"),
        ({"a": TRAIN, "b": {**TEST, "attacked": []}}, "captures.b.attacked: []"),
        ({"a": {**TRAIN, "attacked": [[1, 2]]}, "b": TEST}, "captures.a: has 'attacked' intervals, so its content is 'labelled'"),
        ({"a/b": TRAIN, "b": TEST}, "'a/b' does not match"),
        ({"a": TRAIN, "b": {**TEST, "role": "test\n"}}, "captures.b.role: 'test\\n' does not match"),
        ({"a": TRAIN, "b": {**TEST, "path": "a\nb"}}, "captures.b.path: 'a\\nb' does not match"),
        ({"a": TRAIN, "b": {**TEST, "timestamp_unit": "min"}}, "captures.b.timestamp_unit: 'min' is not one of"),
        ({"a": TRAIN, "b": {**TEST, "path": None, "vehicle": False}}, "vehicle: False is not of type 'string'; put it in quotes"),
        ({False: TRAIN, "b": TEST}, "captures: key False is not text; put it in quotes"),
        ({2024: TRAIN, "b": TEST}, "captures: key 2024 is not text; put it in quotes"),
        ({"a\n": TRAIN, "b": TEST}, r"captures: 'a\n' does not match"),
        ({"a": {**TRAIN, "vehicle": "van\n"}, "b": TEST}, r"captures.a.vehicle: 'van\n' does not match"),
        ({"captures": TRAIN, "b": TEST}, "captures: 'captures' is reserved; choose another name"),
        ({"a" * 250: TRAIN, "b": TEST}, "a' is too long"),
        ({"a": {**TRAIN, "path": "a{b}.csv"}, "b": TEST}, "captures.a.path: 'data/fleet/a{b}.csv': rename what has braces"),
        ({"a": {**TRAIN, "path": "a\n.csv"}, "b": TEST}, r"captures.a.path: 'a\n.csv' does not match"),
        ({"a": TRAIN, "b": {**TEST, "path": "b<captures>.csv"}}, "captures.b.path: 'data/fleet/b<captures>.csv': rename what"),
    ],
)  # fmt: skip
def test_wrong_entry_is_named(workplace: Path, captures: dict[Any, dict[str, Any]], complaint: str) -> None:
    written(workplace, captures)
    assert complaint in refused()
    assert "data/fleet/manifest.yaml" in refused()


HOSTED: dict[str, Any] = {
    "a": {"path": "a.csv", "vehicle": "van", "role": "host", "content": "attack-free"},
    "b": {
        **{
            "format": "injected",
            "vehicle": "van",
            "role": "train",
            "content": "labelled",
            "attack": "dos",
            "host": "a",
        },
        "injection": {"part": [0, 20]},
    },
    "c": {
        **{"format": "injected", "vehicle": "van", "role": "test", "content": "attack-free", "host": "a"},
        "injection": {"part": [20, 30]},
    },
}


def hosted(workplace: Path, **changes: dict[str, Any]) -> None:
    path = workplace / "data/fleet/manifest.yaml"
    path.parent.mkdir(parents=True)
    captures = {name: {**HOSTED.get(name, {}), **changes.get(name, {})} for name in {**HOSTED, **changes}}
    path.write_text(yaml.safe_dump({"contract": "manifest/1", "captures": captures}))


def test_injected_captures_have_a_host_which_is_no_scenario(workplace: Path) -> None:
    hosted(workplace)
    captures = manifest.load("fleet", "data")
    assert manifest.scenarios(captures) == ["test"]
    assert captures["b"].injection == {"seed": 0, "episodes": 4, "episode_s": 2, "stealth": "mixed", "part": [0, 20]}
    assert manifest.missing(captures, "fleet")[0].startswith("dataset 'fleet', capture 'a': no file")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"b": {"host": "x"}}, "captures.b.host: no capture 'x' with role 'host'"),
        ({"a": {"role": "train"}}, "captures.b.host: no capture 'a' with role 'host'"),
        ({"b": {"path": "b.csv"}}, "captures.b: needs 'path', or 'format: simulated' and no path"),
        ({"a": {"injection": {}}}, "captures.a: 'host' and 'injection' belong to 'format: injected', and both only there"),
        ({"a": {"content": "labelled"}}, "captures.a: a host must be an attack-free recording"),
        ({"b": {"vehicle": "bus"}}, "captures.b: the vehicle is not its host's, 'van'"),
        ({"c": {"content": "labelled"}}, "captures.c: injected captures are 'labelled' with an attack, or 'attack-free' parts"),
        ({"c": {"injection": {"part": [19, 30]}}}, "captures.c.injection.part: overlaps that of 'b', and frames of a host"),
        ({"b": {"injection": {}}}, "captures.c.injection.part: overlaps that of 'b', and frames of a host"),
        ({"a": {"channel": "all"}}, "captures.a.channel: a host is one bus, so it names one"),
        ({"b": {"channel": "can0"}}, "captures.b: 'channel', 'timestamp_unit' and 'assume_rate' of an injected capture"),
        ({"d": {"path": "a.csv", "vehicle": "van", "role": "test", "content": "attack-free"}}, "captures.a.path: 'd' has the same file"),
    ],
)  # fmt: skip
def test_wrong_injection_is_named(workplace: Path, changes: dict[str, dict[str, Any]], complaint: str) -> None:
    hosted(workplace, **changes)
    assert complaint in refused()


def test_dataset_without_a_scenario_is_judged_on_select(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANIDS_PREPROCESS_PYTHON", "")
    written(workplace, {"a": TRAIN})
    stage = Stage("preprocess", {"datasets": ["fleet"]}, ROOT / "modules/preprocess/config.schema.yaml")
    assert manifest.scenarios(stage.captures["fleet"]) == []
    assert stage.scenarios("fleet") == ["select"]
    assert stage.splits("fleet") == list(manifest.SPLITS)


@pytest.mark.parametrize(
    "twice", ["  dos:\n    vehicle: van\n", "  normal:\n    vehicle: van\n    role: train\n    vehicle: bus\n"]
)
def test_key_that_is_there_twice_is_refused_with_its_line(workplace: Path, twice: str) -> None:
    path = written(workplace, {"dos": TRAIN})
    path.write_text(f"contract: manifest/1\ncaptures:\n  dos:\n    vehicle: van\n{twice}")
    key, first = ("dos", 3) if "dos" in twice else ("vehicle", 6)
    line = 5 if "dos" in twice else 8
    assert refused() == f"data/fleet/manifest.yaml, line {line}: key '{key}' repeats line {first}"


def test_anchors_and_merged_keys_are_no_repetitions(workplace: Path) -> None:
    path = written(workplace, {"a": TRAIN, "b": TEST})
    entry = "path: a.csv, vehicle: van, content: attack-free"
    path.write_text(
        f"contract: manifest/1\ncaptures:\n  a: &a {{{entry}, role: train}}\n  b: &b {{<<: *a, role: test}}\n  c: {{<<: *b, path: c.csv}}\n"
    )
    assert [(c.name, c.role) for c in manifest.load("fleet", "data").values()] == [
        ("a", "train"), ("b", "test"), ("c", "test")
    ]  # fmt: skip


def test_format_metadata_and_attacked_intervals(workplace: Path) -> None:
    plain = {k: v for k, v in TEST.items() if k != "format"}
    entries = {
        "a": TRAIN,
        "b": plain,
        "c": {**plain, "metadata": "m.json"},
        "d": {**plain, "attacked": [[1, 2.5], [4, 9, "replay"]]},
    }
    written(workplace, entries)
    captures = manifest.load("fleet", "data")
    assert {c.name: (c.format, c.metadata, c.attacked) for c in captures.values()} == {
        "a": ("can-train-and-test", None, ()),
        "b": ("auto", None, ()),
        "c": ("road", Path("data/fleet/m.json"), ()),
        "d": ("auto", None, ((1.0, 2.5), (4.0, 9.0, "replay"))),
    }
    assert "dataset 'fleet', capture 'c': no file data/fleet/m.json; is data_root right?" in manifest.missing(
        captures, "fleet"
    )


def test_formats_of_the_schema_are_those_that_can_be_read() -> None:
    schema = load_schema(Path(manifest.__file__).with_name("manifest.schema.yaml"))
    named = schema["properties"]["captures"]["additionalProperties"]["properties"]["format"]["enum"]
    assert set(named) == {*FORMATS, "auto", "simulated", "injected"}


def test_wrong_contract_is_refused(workplace: Path) -> None:
    written(workplace, {"a": TRAIN, "b": TEST}, contract="manifest/2")
    assert "data/fleet/manifest.yaml.contract: 'manifest/1' was expected" in refused()


@pytest.mark.parametrize("content", [b"captures: [", b"\xff\xfe", b"", b"text"])
def test_what_is_no_manifest_is_refused(workplace: Path, content: bytes) -> None:
    written(workplace, {}).write_bytes(content)
    assert refused().startswith("data/fleet/manifest.yaml")


@pytest.mark.parametrize("dataset", ["simulated", "simulated_hours"])
def test_simulated_vehicles_are_built_in(workplace: Path, dataset: str) -> None:
    captures = manifest.load(dataset, "data")
    assert all(c.path is None and c.simulation and c.simulation["duration"] > 0 for c in captures.values())
    assert all(c.simulation and {"seed", "episodes", "episode_s"} <= c.simulation.keys() for c in captures.values())
    assert manifest.missing(captures, dataset) == []
    assert len(manifest.scenarios(captures)) >= 2
    assert not list(workplace.iterdir())


def test_a_manifest_includes_captures_of_other_datasets(workplace: Path) -> None:
    lay_out(workplace / "data/cars", "train_01/attack-free-kia.csv", "train_02/DoS-kia.csv", "test_01/DoS-kia.csv")
    for name in ("free", "b"):
        lay_out(workplace / "data/hosted", f"{name}.csv")
    hosted(workplace)
    (workplace / "data/fleet").rename(workplace / "data/injected")
    written(
        workplace,
        {"log": {**TRAIN, "role": "unseen", "path": "../logs/a.log"}},
        include={"cars": {"captures": ["train_02*"]}, "injected": {"roles": ["train"], "as_role": "unseen"}},
    )
    captures = manifest.load("fleet", "data")
    assert {name: (c.name, c.role, str(c.path), c.host) for name, c in captures.items()} == {
        "cars.train_02.DoS-kia": ("cars.train_02.DoS-kia", "train", "data/cars/train_02/DoS-kia.csv", None),
        "injected.b": ("injected.b", "unseen", "None", "injected.a"),
        "injected.a": ("injected.a", "host", "data/injected/a.csv", None),
        "log": ("log", "unseen", "data/fleet/../logs/a.log", None),
    }
    assert manifest.scenarios(captures) == ["unseen"]
    # The included dataset is drafted as if it were read alone.
    assert Path("results/cars/manifest.yaml").exists()


def test_a_file_beside_a_folder_that_does_not_exist_is_found(workplace: Path) -> None:
    lay_out(workplace / "data/benign", "wrx/idle.log")
    written(workplace, {"a": {**TRAIN, "path": "../benign/wrx/idle.log"}})
    builtin = Path("data/fleet/manifest.yaml")
    captures = manifest.read(builtin, Path("data/leaderboard"))
    assert captures["a"].path == Path("data/benign/wrx/idle.log")
    assert manifest.missing(captures, "leaderboard") == []


@pytest.mark.parametrize(
    ("include", "complaint"),
    [
        ({"cars": {"captures": ["train_03*"]}}, "data/fleet/manifest.yaml: include.cars.captures: 'train_03*' names no capture with a role of train; they are: train_02.DoS-kia"),
        ({"cars": {"roles": ["host"]}}, "data/fleet/manifest.yaml: include.cars.captures: '*' names no capture with a role of host; they are: none"),
        ({"cars": {"as_role": "left_out"}}, "data/fleet/manifest.yaml: captures.cars.train_02.DoS-kia.role: a scenario cannot be named 'left_out'"),
        ({"cars": {"role": "train"}}, "unknown key 'data/fleet/manifest.yaml.include.cars.role'; did you mean 'roles'?"),
        ({"bikes": {}}, "dataset 'bikes': no manifest, and no captures"),
        ({"fleet": {}}, "include: fleet includes fleet, and so itself"),
        ({"cars": {"as_role": "test"}}, "needs at least one capture with role 'train'"),
    ],
)  # fmt: skip
def test_what_cannot_be_included_is_named(workplace: Path, include: dict[str, Any], complaint: str) -> None:
    lay_out(workplace / "data/cars", "train_02/DoS-kia.csv")
    written(workplace, {}, include=include)
    assert complaint in refused()


def test_the_built_in_leaderboard_has_training_captures_of_four_vehicles_and_no_test_capture(workplace: Path) -> None:
    folders = (
        "hcrl_sa/train_02_x/DoS-kia.csv",
        "hcrl_sa/train_01_x/attack-free-kia.csv",
        "hcrl_sa/test_01_x/DoS-kia.csv",
    )
    lay_out(workplace / "data", *folders, "ctt_a/train_01/accessory-1.csv", "ctt_c/train_01/accessory-1.csv")
    captures = manifest.load("leaderboard", "data")
    assert {c.vehicle for c in captures.values() if c.role == "train"} == {"kia", "ctt_a", "ctt_c"}
    assert {c.vehicle for c in captures.values() if c.role != "train"} == {"wrx", "x250"}
    assert manifest.scenarios(captures) == [manifest.UNSEEN]
