"""File of the fusion baselines (contract `fusion_baselines/4`): what each of them learnt, and the observer through which they see the traffic."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from canids_shared.alarm_rule import AlarmRule
from canids_shared.contracts.model_file import FUSION_BASELINES, Arrays, check_arrays, load_arrays, save_arrays
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError
from canids_train_drl.environment.fusion_environment import Actions
from canids_train_drl.environment.observation import Observer
from canids_train_drl.environment.rollout import Fusion
from canids_train_drl.fusion_baselines.networks import Classifier, Player
from canids_train_drl.fusion_baselines.thresholds import Combined, Cusum, FixedWeight, Hysteresis

_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (FixedWeight, Combined, Hysteresis, Cusum, Classifier, Player)
}


@dataclass(frozen=True)
class FusionBaselines:
    """The fusion baselines of a variant.

    Attributes:
        fusions: each of them, by name.
        observer: how they see a window.
        budget: the false-alarm budget that they keep to.
        rules: what the alarms of each are held to.
    """

    fusions: dict[str, Any]
    observer: Observer
    budget: float
    rules: dict[str, AlarmRule]

    def save(self, path: Path, identity: Mapping[str, str] | None = None) -> None:
        """Write them whole; the same fusion baselines give the same bytes. `identity` says which run they are of."""
        arrays: Arrays = {}
        entries = {}
        for name, fusion in self.fusions.items():
            # The fields of each are JSON, but for its weights, which are arrays, and its action set.
            entry = {"kind": type(fusion).__name__, **vars(fusion)}
            if "actions" in entry:
                entry["actions"] = asdict(entry["actions"])
            if "layers" in entry:
                for number, (weight, bias) in enumerate(entry["layers"]):
                    arrays |= {f"{name}.{number}.weight": weight, f"{name}.{number}.bias": bias}
                entry["layers"] = len(entry["layers"])
            entries[name] = entry
            entry["rule"] = self.rules[name].to_json()
        header = {
            **(identity or {}),
            "contract": FUSION_BASELINES,
            "fusion_baselines": entries,
            "observer": self.observer.to_json(),
            "false_alarm_budget": self.budget,
        }
        save_arrays(path, arrays, header)

    @classmethod
    def load(cls, path: Path, observer: Observer | None = None) -> "FusionBaselines":
        """Read fusion baselines.

        Raises `CanidsError` naming the file if it is absent, damaged, of another contract, or has another observer than `observer`.
        """
        arrays, header = load_arrays(path, FUSION_BASELINES)
        fusions: dict[str, Fusion] = {}
        rules: dict[str, AlarmRule] = {}
        with reading(path, "file of fusion baselines"):
            seen = Observer.from_json(header["observer"])
            check_arrays(path, arrays, _expected(header["fusion_baselines"], arrays, len(seen.layout)))
            for name, entry in header["fusion_baselines"].items():
                kind, rules[name] = _KINDS[entry.pop("kind")], AlarmRule.from_json(entry.pop("rule"))
                if "actions" in entry:
                    entry["actions"] = Actions(**entry["actions"])
                if len(entry.get("weights", seen.detectors)) != len(seen.detectors):
                    raise ValueError("weights")
                if "weights" in entry:
                    entry["weights"] = tuple(entry["weights"])
                if "layers" in entry:
                    numbers = range(entry["layers"])
                    entry["layers"] = tuple((arrays[f"{name}.{n}.weight"], arrays[f"{name}.{n}.bias"]) for n in numbers)
                fusions[name] = kind(**entry)
            stored = cls(fusions, seen, header["false_alarm_budget"], rules)
        if observer not in (None, stored.observer):
            raise CanidsError(f"{path}: learnt from other detectors than the policy was; delete it and run again")
        return stored


def _expected(entries: dict[str, Any], arrays: Arrays, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of the weights and biases of all entries; each layer is as wide as the one before it has biases.

    Args:
        entries: as in the header.
        arrays: as in the file.
        width: components of an observation; classifiers do not see the two of the alarm state.
    """
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, entry in entries.items():
        enters = width if "actions" in entry else width - 2
        leaves = Actions(**entry["actions"]).count if "actions" in entry else 1
        for number in range(entry.get("layers", 0)):
            bias = arrays.get(f"{name}.{number}.bias")
            rows = leaves if bias is None or number == entry["layers"] - 1 else bias.size
            expected[f"{name}.{number}.weight"] = ("float32", (rows, enters))
            expected[f"{name}.{number}.bias"] = ("float32", (rows,))
            enters = rows
    return expected
