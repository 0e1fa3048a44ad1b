"""A model card for every training (rule `cards`), Markdown after Mitchell et al. (2019), "Model Cards for Model Reporting".

python -m canids_evaluate.cards --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": {}, "simulated": []}'
    --dqn_large cards/dqn_large.md … --metrics eval_large/metrics.json … --window_baselines metrics.json --window_baseline_curves curves.json
    --trainings …/run.json … --fit … --fuse … --calibrate …

Each training has an output of its name. The YAML at the top has keys of Hugging Face's model cards (`modelcard.md` of their Hub's
documentation), so that a card can lie beside a published model file as it is. Values there are those of `metrics.json`; in the
text they are rounded.
"""

import sys
from typing import Any

import yaml

from canids_evaluate.pages.card_data import POLICY, SUPERVISED, UNSUPERVISED, Split, Subject, role_of, split_of
from canids_evaluate.pages.card_limits import limits
from canids_evaluate.pages.provenance import vehicle_and_attack
from canids_evaluate.pages.rows import methods_of, plain
from canids_evaluate.pages.tables import COLUMNS, UNDEFINED, Table, number, with_interval
from canids_evaluate.planning import cards_on_command_line
from canids_evaluate.runs.trainings import rows_of_history
from canids_shared.contracts import training_run
from canids_shared.contracts.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read_evaluation
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
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
_LEARNT_FROM = {
    POLICY: "`fuse`, which the detectors never saw",
    SUPERVISED: "`fit`",
    UNSUPERVISED: "`fit`, attack-free windows alone",
}


def _summary(subject: Subject) -> str:
    label = subject.training.label
    if subject.is_policy:
        labels = [detector.label for detector in subject.names.detectors]
        return f"{label}: a policy that decides on the alarm from the scores of the detectors ({', '.join(labels)}), window by window."
    kinds = {
        True: "supervised: attacked window or not",
        False: "unsupervised: scores how unlike normal traffic a window is",
    }
    trained = [d.supervised for d in subject.names.detectors if d.name in subject.training.detectors]
    return f"{label}: a detector, {'; '.join(kinds[supervised] for supervised in dict.fromkeys(trained))}."


def front_matter(subject: Subject) -> dict[str, Any]:
    """Metadata in the form of Hugging Face's model cards; undefined metrics are left out."""
    if subject.is_policy:
        task, tags = "reinforcement-learning", ["reinforcement-learning", "sensor-fusion"]
    else:
        task, tags = "graph-ml", ["anomaly-detection"] if subject.role == UNSUPERVISED else []
    results = [
        {
            "task": {"type": task, "name": f"{prefix}Detection of attacks on a CAN bus, by window"},
            "dataset": {"type": subject.dataset, "name": f"{subject.dataset}, {plain(scenario)}", "split": scenario},
            "metrics": [
                {"type": hub, "name": COLUMNS.get(metric, metric.upper()), "value": values[metric]}
                for metric, hub in _HUB_METRICS.items()
                if values[metric] is not None
            ],
        }
        for method, prefix in subject.methods.items()
        for scenario, values in subject.results(method).items()
    ]
    distilled = ["knowledge-distillation"] if subject.teacher else []
    return {
        "library_name": "canids",
        "pipeline_tag": task,
        "tags": [*_TAGS, *tags, *distilled],
        "metrics": list(_HUB_METRICS.values()),
        "model-index": [{"name": f"{subject.dataset}/{subject.training.name}", "results": results}],
    }


def card(subject: Subject) -> str:
    """The whole card."""
    sections = {
        "Model details": _details(subject),
        "Intended use": _use(subject),
        "Factors": _factors(subject),
        "Metrics": _metrics(subject),
        "Evaluation data": _evaluation_data(subject),
        "Training data": _training_data(subject),
        "Quantitative analyses": "\n\n".join(_analyses(subject, method) for method in subject.methods),
        "Caveats and limits": _list(limits(subject)),
    }
    metadata = yaml.safe_dump(front_matter(subject), sort_keys=False, allow_unicode=True)
    text = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    title = f"# {subject.training.name} on {subject.dataset}"
    return f"---\n{metadata}---\n\n{title}\n\n{_summary(subject)}\n\n{text}\n"


def _list(points: list[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


def _details(subject: Subject) -> str:
    training = subject.training
    steps = "evaluations on `select`" if subject.is_policy else "epochs"
    facts = {
        "Kind": f"{training.label}, {training.variant}",
        "Parameters": f"{training.parameters:,}",
        "Trained": f"seed {training.seed}, {rows_of_history(training)} {steps}, code `{training.code}`",
        "Teacher": f"`{subject.teacher}`" if subject.teacher else "none",
        "Inference": f"{training.latency['median_ms']:.2f} ms a window on {training.latency['device']}",
        "On `select`": ", ".join(f"{k} {v:.4g}" for k, v in training.select.items() if isinstance(v, (int, float))),
        "Size": ", ".join(_of_scale(training.config, training.scale)),
        **{f"SHA-256 of `{name}`": f"`{digest}`" for name, digest in training.digests.items()},
        "Files": ", ".join(f"`{name}` ({size / 1024:,.0f} KiB)" for name, size in training.sizes.items()),
        "Input": "" if subject.is_policy else subject.learnt.graphs,
    }
    return _list([f"{name}: {text}" for name, text in facts.items() if text])


def _of_scale(config: dict[str, Any], scale: str) -> list[str]:
    """The options of a scale, wherever they stand in the config: `{gat: {large: {heads: 4}}}` → `heads 4`."""
    texts = []
    for key, value in config.items():
        if key == scale:
            texts += [f"{k} {v}" for k, v in value.items()] if isinstance(value, dict) else [str(value)]
        elif isinstance(value, dict):
            texts += _of_scale(value, scale)
    return texts


def _use(subject: Subject) -> str:
    run = "the policy's run"
    if subject.is_policy:
        part = "It decides on the alarm from the scores of its variant's detectors"
    elif subject.policy == subject.training.name:
        run = "its own run"
        part = "It alarms above a threshold that the false-alarm budget sets: there was no attack to train a policy on"
    else:
        part = f"It is a detector behind the policy `{subject.policy}`"
    return (
        f"Research on the detection of attacks on a CAN bus, window by window, offline. {part}. Captures are scored with {run}:\n\n"
        f"```\nmake score CAPTURE=drive.log RUN=experimentruns/{subject.dataset}/{subject.policy}\n```"
    )


def _factors(subject: Subject) -> str:
    attacks: dict[str, list[str]] = {}
    vehicles: dict[str, list[str]] = {}
    for scenario, values in subject.scenarios.items():
        for attack in values["per_attack"]:
            attacks.setdefault(attack, []).append(scenario)
        for vehicle in subject.vehicles_in(scenario):
            vehicles.setdefault(vehicle, []).append(scenario)

    def table(kind: str, learnt: dict[str, int], tested: dict[str, list[str]]) -> str:
        # Names that differ by case alone (`DoS`, `dos`) have one order too, in every process.
        names = sorted({*learnt, *tested}, key=lambda name: (name.casefold(), name))
        rows = [
            [n, ", ".join(tested.get(n, [])) or UNDEFINED, f"{learnt[n]:,}" if n in learnt else UNDEFINED]
            for n in names
        ]
        return Table([kind, "Test scenarios", "Windows learnt from"], rows, names=2).markdown()

    of_attacks = "No attacks, neither in training nor in tests."
    if attacks or subject.learnt.attacks:
        of_attacks = table("Attack", subject.learnt.attacks, attacks)
    return f"{table('Vehicle', subject.learnt.vehicles, vehicles)}\n\n{of_attacks}"


def _metrics(subject: Subject) -> str:
    config, points = subject.metrics["config"], []
    for method, prefix in subject.methods.items():
        thresholds = subject.metrics["thresholds"][method]
        if thresholds["budget"] is None:
            points.append(f"{prefix}Operating point of the results below: its own alarms, no threshold set afterwards.")
        else:
            own = "; ".join(f"{vehicle} {value:.6g}" for vehicle, value in thresholds.get("vehicles", {}).items())
            points.append(
                f"{prefix}Operating point of the results below: on a vehicle never met a score above {thresholds['budget']:.6g}, with which "
                f"the vehicles in `calibrate` ({subject.calibrate.free:,} attack-free windows) keep the false-alarm "
                f"budget of {config['false_alarm_budget']:.2%} on average"
                + (f"; on these their own: {own}." if own else ".")
            )
        if thresholds["f1"] is not None:
            best = f"score above {thresholds['f1']:.6g}, where F1 on `calibrate` is best (`F1-optimal`)"
            points.append(f"{prefix}Beside it: {best}.")
    points.append(
        f"Intervals: 95 %, {config['bootstrap']} bootstrap resamples of whole attack episodes and of attack-free pieces of {config['bootstrap_block']:g} s. "
        f"{UNDEFINED}: undefined."
    )
    return _list(points)


def _evaluation_data(subject: Subject) -> str:
    rows = []
    for scenario, values in subject.scenarios.items():
        for capture, counts in values["per_capture"].items():
            source = subject.sources.get(capture, {})
            cells = vehicle_and_attack(source) + [
                f"{counts[key]:,}" for key in ("n_windows", "n_attacked", "n_episodes")
            ]
            rows.append([scenario, capture, *cells, f"`{str(source.get('sha256', UNDEFINED))[:16]}`"])
    header = ["Scenario", "Capture", "Vehicle", "Attack", "Windows", "Attacked", "Episodes", "SHA-256 (first 16)"]
    return Table(header, rows, names=4).markdown()


def _training_data(subject: Subject) -> str:
    learnt, calibrate = subject.learnt, subject.calibrate
    text = f"Learnt from {_LEARNT_FROM[subject.role]}: {_counts(learnt)}. Thresholds from `calibrate`: {_counts(calibrate)}. "
    text += "Both are blocks of the same captures, apart in time:\n\n"
    known = {name: subject.sources[name] for name in learnt.captures if name in subject.sources}
    rows = [
        [name, *vehicle_and_attack(s), f"{s.get('rows_read', 0):,}", f"`{s['sha256'][:16]}`"]
        for name, s in known.items()
    ]
    return text + Table(["Capture", "Vehicle", "Attack", "Frames", "SHA-256 (first 16)"], rows, names=3).markdown()


def _counts(split: Split) -> str:
    joined = f", {split.auxiliary:,} of them of simulated auxiliary captures" if split.auxiliary else ""
    return f"{split.windows:,} windows ({split.free:,} attack-free, {split.attacked:,} attacked{joined})"


def _analyses(subject: Subject, method: str) -> str:
    whole, parts = [], []
    for scenario, values in subject.results(method).items():
        cells = [with_interval(m, number(m, values[m]), values["intervals"][m]) for m in COLUMNS]
        whole.append([scenario, *cells, number("f1", values["f1_optimal"]["f1"])])
        for attack, part in values["per_attack"].items():
            parts.append([scenario, attack, *(number(m, part[m]) for m in COLUMNS), f"{part['n_attacked']:,}"])
    text = f"As {subject.names.label(method)} in `metrics.json`:\n\n"
    text += Table(["Scenario", *COLUMNS.values(), "F1-optimal F1"], whole).markdown()
    if parts:
        text += "\n\nBy kind of attack (its windows and the attack-free ones of the same captures):\n\n"
        text += Table(["Scenario", "Attack", *COLUMNS.values(), "Attacked windows"], parts, names=2).markdown()
    return text


def _subjects(call: Call) -> list[Subject]:
    inputs, dataset = call.inputs, call.wildcards["dataset"]
    metrics = {
        content["variant"]: content
        for content in (read_evaluation(path, METRICS_CONTRACT, dataset=dataset) for path in inputs["metrics"])
    }
    (baselines,), (curves,) = inputs["window_baselines"], inputs["window_baseline_curves"]
    others = read_evaluation(baselines, METRICS_CONTRACT, dataset=dataset)["scenarios"]
    drawn = read_evaluation(curves, CURVES_CONTRACT, dataset=dataset)
    sources = drawn.get("sources", {})
    fit, fuse, calibrate = (
        GraphStore(inputs[name][0], dataset=dataset, split=name) for name in ("fit", "fuse", "calibrate")
    )
    learnt = {POLICY: split_of(fuse), SUPERVISED: split_of(fit), UNSUPERVISED: split_of(fit, attack_free=True)}
    set_on = split_of(calibrate)
    # Every training is evaluated with the detectors and the policy of its variant.
    trainings = [training_run.read(path) for path in inputs["trainings"]]
    policies = {t.variant: t.name for t in trainings if not t.detectors}
    subjects = []
    for training in trainings:
        if training.variant not in metrics:
            raise CanidsError(f"{training.name}: no metrics of variant '{training.variant}' to put on its card")
        content = metrics[training.variant]
        # Without a policy each detector is scored with by itself.
        names, policy = methods_of(content), policies.get(training.variant, training.name)
        data = learnt[role_of(training, names)]
        behind = (others, sources, call.constants["simulated"], drawn.get("warnings", []))
        subjects.append(Subject(training, policy, data, set_on, content, names, *behind))
    return subjects


def main(call: Call) -> None:
    """Entry point; a training that the dataset lacks, where another one of the pipeline has it, has a card that says so."""
    cards = {f"{subject.training.kind}_{subject.training.variant}": card(subject) for subject in _subjects(call)}
    for name, path in call.output.items():
        absent = f"# {name} on {call.wildcards['dataset']}\n\nNot trained: the dataset has no attack to learn from.\n"
        write_text(path, cards.get(name, absent))


if __name__ == "__main__":
    entry_point.run(
        main,
        inputs=["metrics", "window_baselines", "window_baseline_curves", "trainings", "fit", "fuse", "calibrate"],
        outputs=cards_on_command_line(sys.argv),
    )
