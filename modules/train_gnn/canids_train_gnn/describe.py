"""What was trained on what, with which result: `python -m canids_train_gnn.describe RUN [RUN …]`, folders of trainings."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from canids_shared.contracts import model_file
from canids_shared.errors import CanidsError
from canids_shared.jobs import latency

PUBLISHED = {"GAT": (311_138, 49_202), "VGAE": (185_850, 9_186)}
"""Parameters of the published teacher and student (KD-GAT), to compare with."""


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _data(what: str, facts: dict[str, Any]) -> str:
    attacked = f"{facts['attacked']:,} attacked" + (f": {_counted(facts['attacks'])}" if facts["attacks"] else "")
    return f"{what}: {facts['windows']:,} windows ({attacked}), vehicles {_counted(facts['vehicles'])}"


def _options(values: dict[str, Any], prefix: str = "") -> list[str]:
    out = []
    for key, value in values.items():
        out += _options(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"]
    return out


def _history(path: Path) -> list[str]:
    try:
        rows = pl.read_parquet(path)
        best = rows.row(int(rows["select_loss"].arg_min() or 0), named=True)
        last = rows.row(-1, named=True)
        seconds = rows["seconds"].sum()
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file; train again") from None
    except (pl.exceptions.PolarsError, OSError):
        raise CanidsError(f"{path}: damaged; delete it and train again") from None
    gpu = f", {last['peak_gpu_mb']:.0f} MiB on the GPU" if last["peak_gpu_mb"] else ""
    return [
        f"{len(rows)} epochs, {seconds:.0f} s, {float(np.median(rows['graphs_per_s'].to_numpy())):.0f} graphs/s",
        f"at most {last['peak_rss_mb'] or 0:.0f} MiB of memory{gpu}",
        f"loss in epoch {best['epoch']}, the best: fit {best['fit_loss']:.5f}, select {best['select_loss']:.5f}",
    ]


def describe(run: Path) -> str:
    """A run in words, one fact a line.

    Raises `CanidsError` naming the file that is missing, damaged, or not of a detector's training.
    """
    _, header = model_file.load_arrays(run / "model.safetensors", model_file.DETECTOR)
    try:
        record = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        spec = record["spec"]
        section = spec["config"][header["kind"].lower()]
        common = {k: v for k, v in spec["config"].items() if not isinstance(v, dict)}
        options = {k: v for k, v in section.items() if k not in ("large", "small")}
    except FileNotFoundError:
        raise CanidsError(f"{run / 'config.yaml'}: no such file; train again") from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise CanidsError(f"{run / 'config.yaml'}: damaged; delete it and train again") from None
    milliseconds, device = latency.read(run / "latency.json")
    published = PUBLISHED[header["kind"]][spec["scale"] == "small"]
    auroc = header["select"]["auroc"]
    lines = [
        f"{header['kind']}, {spec['scale']}, {header['parameters']:,} parameters (published: {published:,})",
        f"dataset {spec['wildcards']['dataset']}, windows of {header['window']:g} {header['window_unit']}, "
        f"{len(header['node_features'])} features of nodes, {len(header['edge_features'])} of edges",
        _data("fit", header["fit"]),
        f"captures {', '.join(header['fit']['captures'])}",
        _data("select", header["select"]),
        f"taught by {record['files']['teacher'][0]}" if record["files"].get("teacher") else "no teacher",
        f"size {' '.join(_options(header['size']))}",
        f"options {' '.join(_options({**common, **options}))}",
        *_history(run / "history.parquet"),
        "AUROC on select " + ("undefined: one class only" if auroc is None else f"{auroc:.4f}"),
        f"{milliseconds:.2f} ms a window on {device}",
        f"code {spec['code']}",
    ]
    return "\n".join([str(run), *(f"  {line}" for line in lines)])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="such as experimentruns/simulated/gat_large")
    try:
        for run in parser.parse_args().runs:
            print(describe(run))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
