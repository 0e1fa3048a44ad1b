"""What training and scoring share: batches, and kernels that give the same bytes every time. Imports no Fabric."""

from collections.abc import Iterator

import torch
from torch import Tensor

from canids_shared.torchstore import DenseGraphs, TorchStore


def repeatable(threads: int) -> None:
    """Fix the number of torch's threads, and choose kernels that give the same bytes every time."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def batches(store: TorchStore, windows: Tensor, size: int, shuffle: bool = False) -> Iterator[DenseGraphs]:
    """The windows in batches of at most `size`, in order or shuffled by torch's generator."""
    if shuffle:
        windows = windows[torch.randperm(len(windows))]
    for first in range(0, len(windows), size):
        yield store.batch(windows[first : first + size])
