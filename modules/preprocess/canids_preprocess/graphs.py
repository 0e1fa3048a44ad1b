"""Turn the frames of a split into the graph store.

`python -m canids_preprocess.graphs --spec JSON --output X.safetensors --frames A.parquet B.parquet …`
"""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from canids_preprocess.features import EXTENDED, Tracker
from canids_preprocess.splits import Block, blocks, restarts
from canids_preprocess.windows import EDGE_FEATURES, NODE_FEATURES, STATISTICS, build
from canids_shared import cli, tables
from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphWriter
from canids_shared.manifest import LEFT_OUT, SPLITS

_CHUNK = 1 << 17  # frames held at once
_COLUMNS = ["timestamp", "can_id", "extended", "payload", "label", "attack"]
_FOLD_KEYS = {"vehicles": "vehicle", "attacks": "attack", "captures": "capture"}
UNKNOWN = -1
log = logging.getLogger(__name__)

Frames = dict[str, np.ndarray]


def _chunks(path: Path, block: Block) -> Iterator[Frames]:
    """The frames `block.prime:block.stop` of a capture as arrays, chunk by chunk."""
    source = pq.ParquetFile(path)
    rows = [source.metadata.row_group(i).num_rows for i in range(source.num_row_groups)]
    begins = np.cumsum([0, *rows])
    groups = np.flatnonzero((begins[:-1] < block.stop) & (begins[1:] > block.prime)).tolist()
    position = int(begins[groups[0]]) if groups else 0
    for batch in source.iter_batches(batch_size=_CHUNK, row_groups=groups, columns=_COLUMNS):
        first, last = max(block.prime - position, 0), min(block.stop - position, len(batch))
        position += len(batch)
        if first >= last:
            continue
        part = batch.slice(first, last - first)
        payload = part["payload"].cast("large_binary")
        offset = np.frombuffer(payload.buffers()[1], np.int64, len(part) + 1, 8 * payload.offset)
        data = payload.buffers()[2]
        label = pc.fill_null(part["label"].cast("int8"), UNKNOWN)
        yield {
            "timestamp": part["timestamp"].to_numpy(),
            "can_id": part["can_id"].to_numpy(),
            "extended": part["extended"].to_numpy(zero_copy_only=False),
            "offset": offset,
            "payload": np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8),
            "label": label.to_numpy(),
            "attack": part["attack"].to_numpy(zero_copy_only=False),
        }


def _attack_index(names: np.ndarray, attacks: list[str]) -> np.ndarray:
    """[n] index of each frame's attack in `attacks`, which grows as names appear (0: none)."""
    out = np.zeros(len(names), np.int16)
    for name in dict.fromkeys(names.tolist()):
        if name and name not in attacks:
            attacks.append(name)
        if name:
            out[names == name] = attacks.index(name)
    return out


def _arrays(pending: Frames, count: int, n_slots: int, window: int, stride: int) -> dict[str, np.ndarray]:
    """The arrays of `GraphWriter.append` for the first `count` windows, without capture and vehicle."""
    rows = count * window
    out: dict[str, np.ndarray] = {
        "node_id": np.empty(rows, np.uint32),
        "node_count": np.empty(rows, np.int32),
        "x": np.empty((rows, len(NODE_FEATURES)), np.float32),
        "edge_source": np.empty(rows, np.int16),
        "edge_target": np.empty(rows, np.int16),
        "edge_attr": np.empty((rows, len(EDGE_FEATURES)), np.float32),
        "statistics": np.empty((count, len(STATISTICS)), np.float32),
        "node_counts": np.empty(count, np.int64),
        "edge_counts": np.empty(count, np.int64),
    }
    names = ("node_id", "node_count", "x", "edge_source", "edge_target", "edge_attr")
    nodes, edges = build(
        pending["features"],
        pending["timestamp"],
        pending["key"],
        pending["slot"],
        n_slots,
        stride * np.arange(count),
        window,
        *(out[n] for n in names),
        *(out[n] for n in ("statistics", "node_counts", "edge_counts")),
    )
    for name in names:
        out[name] = out[name][: nodes if name in ("node_id", "node_count", "x") else edges]

    def inside(name: str) -> np.ndarray:  # [count, window], a view
        return np.lib.stride_tricks.sliding_window_view(pending[name], window)[::stride][:count]

    label = inside("label")
    out["n_attacked"] = (label == 1).sum(1)
    out["y"] = np.where(out["n_attacked"] > 0, 1, np.where((label == UNKNOWN).any(1), UNKNOWN, 0))
    out["attack"] = inside("attack").max(1)
    out["t_start"], out["t_end"] = inside("timestamp").min(1), inside("timestamp").max(1)
    return out


def _append_block(
    writer: GraphWriter,
    path: Path,
    block: Block,
    *,
    first: int,
    ids: dict[str, int],
    config: dict[str, Any],
    attacks: list[str],
) -> dict[str, int]:
    """Append the windows of one block, numbered from `first`; returns windows written and frames dropped at its end."""
    window, stride = config["window"], config["stride"]
    tracker = Tracker()
    skip = block.start - block.prime
    pending: Frames = {}
    done = 0  # windows so far
    ahead = 0  # frames to skip before the next window begins, when stride exceeds window
    for frames in _chunks(path, block):
        features, slot = tracker.feed(frames)
        drop = min(skip + ahead, len(slot))
        skip, ahead = max(skip - drop, 0), max(ahead - max(drop - skip, 0), 0)
        attack = np.where(frames["label"] == 1, _attack_index(frames["attack"], attacks), 0)
        new: Frames = {
            "features": features,
            "slot": slot,
            "timestamp": frames["timestamp"],
            "key": frames["can_id"] | np.where(frames["extended"], EXTENDED, np.uint32(0)),
            "label": frames["label"],
            "attack": attack,
        }
        pending = {k: np.concatenate([pending[k], v[drop:]]) if pending else v[drop:] for k, v in new.items()}
        count = (len(pending["key"]) - window) // stride + 1 if len(pending["key"]) >= window else 0
        if not count:
            continue
        arrays = _arrays(pending, count, tracker.n_slots, window, stride)
        arrays["window"] = first + done + np.arange(count)
        arrays["capture"] = np.full(count, ids["capture"])
        arrays["vehicle"] = np.full(count, ids["vehicle"])
        writer.append(arrays)
        done += count
        used = min(stride * count, len(pending["key"]))
        ahead = stride * count - used
        pending = {k: v[used:] for k, v in pending.items()}
    total = block.stop - block.start
    covered = (done - 1) * stride + window if done else 0
    return {"windows": done, "frames": total, "dropped": total - covered}


def _check_fold(call: cli.Call, heads: list[dict[str, Any]]) -> None:
    for kind, key in _FOLD_KEYS.items():
        known = {h[key] for h in heads if h[key]}
        for name in call.config["leave_out"].get(kind, []):
            if name not in known:
                raise CanidsError(
                    f"leave_out.{kind}: the training captures of dataset '{call.wildcards['dataset']}' have no "
                    f"{key} '{name}'; they have {', '.join(sorted(known)) or 'none'}"
                )


def _members(call: cli.Call, heads: dict[Path, dict[str, Any]]) -> list[Path]:
    """The captures of the split: what the fold leaves out or keeps, each content once."""
    leave_out = call.config["leave_out"]
    if leave_out:
        _check_fold(call, list(heads.values()))
    # By content: a copy of a left-out capture under another name is left out with it.
    left = {
        head["sha256"]
        for head in heads.values()
        if any(head[key] in leave_out.get(kind, []) for kind, key in _FOLD_KEYS.items())
    }
    members: dict[str, Path] = {}
    for path, head in heads.items():
        if leave_out and (head["sha256"] in left) != (call.wildcards["split"] == LEFT_OUT):
            continue
        if head["sha256"] in members:
            log.info("%s has the same content as an earlier capture and counts once", head["capture"])
            continue
        members[head["sha256"]] = path
    if not members:
        raise CanidsError(f"leave_out leaves no capture for split '{call.wildcards['split']}'")
    return list(members.values())


def main(call: cli.Call) -> None:
    """Entry point."""
    split = call.wildcards["split"]
    config = call.config
    heads = {path: tables.read_metadata(path, tables.FRAMES) for path in call.inputs["frames"]}
    members = _members(call, heads)
    captures: list[str] = []
    vehicles = sorted({heads[p]["vehicle"] for p in members})
    attacks = [""]
    counts: dict[str, dict[str, int]] = {}
    sources = {}
    with GraphWriter(call.output["output"]) as writer:
        for path in members:
            head = heads[path]
            captures.append(head["capture"])
            sources[head["capture"]] = {k: head[k] for k in ("sha256", "vehicle", "attack", "content", "rows_read")}
            frames, _ = tables.read(path, tables.FRAMES, columns=["timestamp", "label"])
            timestamp = frames["timestamp"].to_numpy()
            if split in SPLITS:
                cut = config["blocks"]
                attacked = (frames["label"] == 1).fill_null(False).to_numpy()
                if cut["gap"] * len(timestamp) / max(float(np.ptp(timestamp)), 1e-9) <= config["window"]:
                    raise CanidsError(
                        f"blocks.gap: {cut['gap']} s of {head['capture']} hold fewer frames than a window"
                    )
                chosen = blocks(timestamp, attacked, **cut, window=config["window"])[split]
                again = [part for block in chosen for part in restarts(timestamp, block, **config["restarts"])]
            else:
                chosen, again = [Block(0, 0, len(timestamp))], []
            append = partial(
                _append_block,
                writer,
                path,
                ids={"capture": len(captures) - 1, "vehicle": vehicles.index(head["vehicle"])},
                config=config,
                attacks=attacks,
            )
            # Numbered along the capture, restarts beyond its end, so that two blocks of one split never look adjacent.
            stride, beyond = config["stride"], len(timestamp) // config["stride"] + 2
            rows = [append(block, first=block.start // stride) for block in chosen]
            cold = [append(block, first=beyond + block.start // stride) for block in again]
            counts[head["capture"]] = {k: sum(r[k] for r in rows) for k in ("windows", "frames", "dropped")}
            if split in SPLITS:
                counts[head["capture"]]["restarted"] = sum(r["windows"] for r in cold)
            log.info("%s: %s", head["capture"], counts[head["capture"]])
        if not any(c["windows"] for c in counts.values()):
            raise CanidsError(
                f"split '{split}' of dataset '{call.wildcards['dataset']}' has no whole window of {config['window']} frames"
            )
        header = {
            "dataset": call.wildcards["dataset"],
            "split": split,
            "window": config["window"],
            "stride": config["stride"],
            "features": "relative",
            "node_features": list(NODE_FEATURES),
            "edge_features": list(EDGE_FEATURES),
            "statistics": list(STATISTICS),
            "attacks": attacks,
            "captures": captures,
            "vehicles": vehicles,
            "sources": sources,
            "counts": counts,
        }
        writer.close(header)


if __name__ == "__main__":
    cli.run(main, inputs=["frames"])
