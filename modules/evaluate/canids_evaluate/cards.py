"""A model card for every trained model (rule `cards`), Markdown after Mitchell et al. (2019), "Model Cards for Model Reporting".

python -m canids_evaluate.cards --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": {}, "simulated": []}'
    --vgae_large cards/vgae_large.md … --metrics eval_large/metrics.json … --window_baselines metrics.json --window_baseline_curves curves.json
    --trainings …/benchmark.tsv … --fit … --fuse … --calibrate …

The YAML at the head has keys of Hugging Face's model cards (`modelcard.md` of their Hub's documentation), so that a card can
lie beside a published model file as it is. Values there are those of `metrics.json`; in the text they are rounded.
"""

from typing import Any

import yaml

from canids_evaluate.judging.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read
from canids_evaluate.pages.card_data import Split, Subject, split_of
from canids_evaluate.pages.card_limits import limits
from canids_evaluate.pages.rows import label, plain
from canids_evaluate.pages.tables import COLUMNS, UNDEFINED, Table, number, with_interval
from canids_evaluate.planning import CARDS
from canids_evaluate.runs.trainings import KINDS, read_training
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of, write_text
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

_HUB_METRICS = {
    "f1": "f1",
    "precision": "precision",
    "recall": "recall",
    "auroc": "roc_auc",
    "mcc": "matthews_correlation",
}
"""Metric here → its id on the Hub."""
_TAGS = ["can-bus", "intrusion-detection", "automotive"]
_KINDS: dict[str, tuple[str, str, list[str]]] = {
    "vgae": (
        "Variational graph autoencoder (Kipf and Welling 2016), unsupervised: a window that it reconstructs badly is unlike normal traffic.",
        "graph-ml",
        ["graph-neural-networks", "anomaly-detection"],
    ),
    "gat": (
        "Graph attention network (Veličković et al. 2018) with jumping knowledge (Xu et al. 2018), supervised: attacked window or not.",
        "graph-ml",
        ["graph-neural-networks"],
    ),
    "dqn": (
        "Deep Q-network (double: van Hasselt et al. 2016; dueling: Wang et al. 2016): decides on the alarm from what the two detectors say, window by window.",
        "reinforcement-learning",
        ["reinforcement-learning", "sensor-fusion"],
    ),
}
"""Kind → what it is, the Hub's task, tags."""
_ROLE = {"vgae": "`fit`, attack-free windows alone", "gat": "`fit`", "dqn": "`fuse`, which the detectors never saw"}


def front_matter(subject: Subject) -> dict[str, Any]:
    """Metadata in the form of Hugging Face's model cards; undefined metrics are left out."""
    training = subject.training
    _, task, tags = _KINDS[training.kind]
    results = [
        {
            "task": {"type": task, "name": "Detection of attacks on a CAN bus, by window"},
            "dataset": {"type": subject.dataset, "name": f"{subject.dataset}, {plain(scenario)}", "split": scenario},
            "metrics": [
                {"type": hub, "name": COLUMNS.get(metric, metric.upper()), "value": values[metric]}
                for metric, hub in _HUB_METRICS.items()
                if values[metric] is not None
            ],
        }
        for scenario, values in subject.scenarios.items()
    ]
    distilled = ["knowledge-distillation"] if subject.teacher else []
    return {
        "library_name": "canids",
        "pipeline_tag": task,
        "tags": [*_TAGS, *tags, *distilled],
        "metrics": list(_HUB_METRICS.values()),
        "model-index": [{"name": f"{subject.dataset}/{training.run}", "results": results}],
    }


def card(subject: Subject) -> str:
    """The whole card."""
    training = subject.training
    sections = {
        "Model details": _details(subject),
        "Intended use": _use(subject),
        "Factors": _factors(subject),
        "Metrics": _metrics(subject),
        "Evaluation data": _evaluation_data(subject),
        "Training data": _training_data(subject),
        "Quantitative analyses": _analyses(subject),
        "Caveats and limits": "\n".join(f"- {sentence}" for sentence in limits(subject)),
    }
    head = yaml.safe_dump(front_matter(subject), sort_keys=False, allow_unicode=True)
    text = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"---\n{head}---\n\n# {training.run} on {subject.dataset}\n\n{_KINDS[training.kind][0]}\n\n{text}\n"


def _list(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


def _details(subject: Subject) -> str:
    training, header = subject.training, subject.training.header
    steps = "epochs" if "epoch" in training.history.columns else "evaluations on `select`"
    facts = {
        "Kind": f"{KINDS[training.kind]}, {training.variant}",
        "Parameters": f"{training.parameters:,}",
        "Trained": f"seed {training.seed}, {len(training.history)} {steps}, code `{training.code}`",
        "Teacher": f"`{subject.teacher}`" if subject.teacher else "none",
        "Inference": f"{training.latency_ms:.2f} ms a window on {training.device}",
        "Weights": f"`model.safetensors`, SHA-256 `{subject.weights}`",
    }
    if training.kind == "dqn":
        facts["Hidden layers"] = ", ".join(map(str, header["hidden"]))
        facts["Observes"] = ", ".join(header["layout"])
    else:
        facts["Input"] = (
            f"graphs of windows of {header['window']:g} {header['window_unit']}: {len(header['node_features'])} features of "
            f"nodes (arbitration IDs), {len(header['edge_features'])} of edges"
        )
    return _list(facts)


def _use(subject: Subject) -> str:
    training = subject.training
    part = (
        "It decides on the alarm for what the two detectors of its variant say"
        if training.kind == "dqn"
        else f"It is one of the two detectors behind the policy `{subject.policy}`"
    )
    return (
        f"Research on the detection of attacks on a CAN bus, window by window, offline. {part}. Captures are scored by the policy's run:\n\n"
        f"```\nmake score CAPTURE=drive.log RUN=experimentruns/{subject.dataset}/{subject.policy}\n```"
    )


def _alphabetical(name: str) -> tuple[str, str]:
    # Names that differ by case alone (`DoS`, `dos`) have one order too, in every process.
    return name.casefold(), name


def _factors(subject: Subject) -> str:
    tested: dict[str, list[str]] = {}
    for scenario, values in subject.scenarios.items():
        for attack in values["per_attack"]:
            tested.setdefault(attack, []).append(scenario)
    attacks = sorted({*subject.learnt.attacks, *tested}, key=_alphabetical)
    vehicles: dict[str, list[str]] = {}
    for scenario in subject.scenarios:
        for vehicle in subject.vehicles_in(scenario):
            vehicles.setdefault(vehicle, []).append(scenario)
    names = sorted({*subject.learnt.vehicles, *vehicles}, key=_alphabetical)

    def table(kind: str, rows: list[str], learnt: dict[str, int], judged: dict[str, list[str]]) -> str:
        lines = [
            [n, ", ".join(judged.get(n, [])) or UNDEFINED, f"{learnt[n]:,}" if n in learnt else UNDEFINED] for n in rows
        ]
        return Table([kind, "Test scenarios", "Windows learnt from"], lines, names=2).markdown()

    return "\n\n".join(
        [
            table("Vehicle", names, subject.learnt.vehicles, vehicles),
            table("Attack", attacks, subject.learnt.attacks, tested)
            if attacks
            else "No attacks, neither in training nor in tests.",
        ]
    )


def _metrics(subject: Subject) -> str:
    config, thresholds = subject.metrics["config"], subject.metrics["thresholds"][subject.method]
    free = subject.calibrate.free
    points = []
    if thresholds["budget"] is None:
        points.append("Operating point of the results below: its own alarms, no threshold set afterwards.")
    else:
        points.append(
            f"Operating point of the results below: score above {thresholds['budget']:.6g}, set so that at most {config['false_alarm_rate']:.2%} "
            f"of the {free:,} attack-free `calibrate` windows alarm."
        )
    if thresholds["f1"] is not None:
        points.append(f"Beside it: score above {thresholds['f1']:.6g}, where F1 on `calibrate` is best (`F1-optimal`).")
    points.append(
        f"Intervals: 95 %, {config['bootstrap']} bootstrap resamples of whole attack episodes and of attack-free pieces of {config['bootstrap_block']:g} s. "
        f"{UNDEFINED}: undefined."
    )
    return "\n".join(f"- {point}" for point in points)


def _evaluation_data(subject: Subject) -> str:
    rows = []
    for scenario, values in subject.scenarios.items():
        for capture, found in values["per_capture"].items():
            source = subject.sources.get(capture, {})
            cells = [str(source.get("vehicle", UNDEFINED)), source.get("attack") or UNDEFINED]
            cells += [f"{found[key]:,}" for key in ("n_windows", "n_attacked", "n_episodes")]
            rows.append([scenario, capture, *cells, f"`{str(source.get('sha256', UNDEFINED))[:16]}`"])
    header = ["Scenario", "Capture", "Vehicle", "Attack", "Windows", "Attacked", "Episodes", "SHA-256 (first 16)"]
    return Table(header, rows, names=4).markdown()


def _training_data(subject: Subject) -> str:
    learnt, calibrate = subject.learnt, subject.calibrate
    text = f"Learnt from {_ROLE[subject.training.kind]}: {_counts(learnt)}. Thresholds from `calibrate`: {_counts(calibrate)}. "
    text += "Both are blocks of the same captures, apart in time:\n\n"
    rows = [
        [
            name,
            str(s.get("vehicle", UNDEFINED)),
            s.get("attack") or UNDEFINED,
            f"{s.get('rows_read', 0):,}",
            f"`{str(s['sha256'])[:16]}`",
        ]
        for name, s in ((c, subject.sources[c]) for c in learnt.captures if c in subject.sources)
    ]
    return text + Table(["Capture", "Vehicle", "Attack", "Frames", "SHA-256 (first 16)"], rows, names=3).markdown()


def _counts(split: Split) -> str:
    joined = (
        f", {split.auxiliary_captures:,} of them of simulated auxiliary_captures" if split.auxiliary_captures else ""
    )
    return f"{split.windows:,} windows ({split.free:,} attack-free, {split.attacked:,} attacked{joined})"


def _analyses(subject: Subject) -> str:
    whole, parts = [], []
    for scenario, values in subject.scenarios.items():
        cells = [with_interval(m, number(m, values[m]), values["intervals"][m]) for m in COLUMNS]
        whole.append([scenario, *cells, number("f1", values["f1_optimal"]["f1"])])
        for attack, found in values["per_attack"].items():
            parts.append([scenario, attack, *(number(m, found[m]) for m in COLUMNS), f"{found['n_attacked']:,}"])
    text = f"As {label(subject.method)} in `metrics.json`:\n\n"
    text += Table(["Scenario", *COLUMNS.values(), "F1-optimal F1"], whole).markdown()
    if parts:
        text += "\n\nBy kind of attack (its windows and the attack-free ones of the same captures):\n\n"
        text += Table(["Scenario", "Attack", *COLUMNS.values(), "Attacked windows"], parts, names=2).markdown()
    return text


def _subjects(call: Call) -> list[Subject]:
    inputs = call.inputs
    metrics = {}
    for path in inputs["metrics"]:
        content = read(path, METRICS_CONTRACT)
        metrics[content["variant"]] = content
    (baselines,), (curves,) = inputs["window_baselines"], inputs["window_baseline_curves"]
    others, sources = read(baselines, METRICS_CONTRACT)["scenarios"], read(curves, CURVES_CONTRACT).get("sources", {})
    fit, fuse, calibrate = (GraphStore(inputs[name][0]) for name in ("fit", "fuse", "calibrate"))
    learnt = {"vgae": split_of(fit, attack_free=True), "gat": split_of(fit), "dqn": split_of(fuse)}
    set_on = split_of(calibrate)
    simulated = call.constants["simulated"]
    trainings = [(path.with_name("model.safetensors"), read_training(path.parent)) for path in inputs["trainings"]]
    policies = {t.variant: t.run for _, t in trainings if t.kind == "dqn"}
    found = []
    for model, training in trainings:
        if training.variant not in metrics:
            raise CanidsError(f"{model}: no metrics of variant '{training.variant}' to put on its card")
        judged, policy = metrics[training.variant], policies[training.variant]
        data = learnt[training.kind]
        found.append(Subject(training, policy, sha256_of(model), data, set_on, judged, others, sources, simulated))
    return found


def main(call: Call) -> None:
    """Entry point."""
    for subject in _subjects(call):
        training = subject.training
        write_text(call.output[f"{training.kind}_{training.variant}"], card(subject))


if __name__ == "__main__":
    entry_point.run(
        main,
        inputs=["metrics", "window_baselines", "window_baseline_curves", "trainings", "fit", "fuse", "calibrate"],
        outputs=CARDS,
    )
