"""Baselines by hand: silence of IDs, principal components of nodes."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from evaluate_data import write_split, write_store

from canids_evaluate.judging import node_pca, staleness
from canids_shared.contracts.graph_store import GraphStore


class Store(dict[str, Any]):
    """The arrays and the header of a store, as the baselines use them."""

    path = Path("fit.safetensors")


def test_staleness_by_hand(tmp_path: Path) -> None:
    # ID 2 comes every second window, then stays away for 5; windows are one second long, and ID 1 is in all of them.
    present = [i % 2 == 0 for i in range(20)] + [False] * 5 + [True]
    write_store(tmp_path / "s.safetensors", [{1: 3, 2: 1} if p else {1: 3} for p in present], [0] * len(present))
    score = staleness.scores(GraphStore(tmp_path / "s.safetensors"))
    # Its longest silence was one second: from the end of its last window to the start of the next with it.
    assert score[:15].max() == 0  # seen eight times at window 14
    assert score[15] == score[17] == pytest.approx(0.5)
    assert score[19:25] == pytest.approx([r / (1 + r) for r in (1, 2, 3, 4, 5, 6)])
    assert score[25] == 0


def test_an_id_that_stays_away_is_given_up(tmp_path: Path) -> None:
    write_store(tmp_path / "s.safetensors", [{1: 1, 2: 1}] * 10 + [{1: 1}] * 30, [0] * 40)
    score = staleness.scores(GraphStore(tmp_path / "s.safetensors"))
    assert score[10:25].argmax() == 14
    assert score[25:].max() == 0


def test_a_new_capture_starts_anew(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_split(tmp_path / "s.safetensors", {"a": ("dos", [0] * 12), "b": ("dos", [0] * 12)}, rng)
    assert staleness.scores(GraphStore(tmp_path / "s.safetensors")).max() == 0


def nodes(x: np.ndarray, per_window: int, labels: np.ndarray) -> GraphStore:
    store = Store(x=x, node_ptr=np.arange(0, len(x) + 1, per_window), y=labels)
    return cast(GraphStore, store)


def test_nodes_off_the_components_score_high() -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(3, 40))
    usual = rng.normal(size=(600, 3)) @ mixing  # three directions in 40 features
    attacked = usual[:60] + 3 * rng.normal(size=(60, 40))
    learn = node_pca.learn(nodes(np.concatenate([usual, attacked]), 6, np.repeat([0, 1], [100, 10])), 0)
    assert learn(nodes(usual, 6, np.zeros(100))).max() < 1e-6
    assert learn(nodes(attacked, 6, np.ones(10))).min() > 0.3
