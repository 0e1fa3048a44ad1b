"""What training and scoring share: batches, and kernels that give the same bytes every time."""

from collections.abc import Iterator

import torch
import torch.utils.deterministic
from torch import Tensor

from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_train_gnn.models.gat_vgae import GAT, VGAE


def repeatable(threads: int, device: torch.device) -> None:
    """Fix the number of torch's threads; on a CPU, choose kernels that give the same bytes every time."""
    torch.set_num_threads(threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        # A debugging aid that would cost a tenth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def scores_of(model: GAT | VGAE, store: TorchStore, windows: Tensor, size: int) -> Tensor:
    """Scores [n] of the windows ([n] int64, on the host), in batches of at most `size`."""
    with torch.inference_mode():
        return torch.cat([model.score(graphs) for graphs in batches(store, windows, size)])


def batches(store: TorchStore, windows: Tensor, size: int) -> Iterator[Graphs]:
    """The windows (numbers, on the host) in batches of at most `size`, in order."""
    for chunk in torch.split(windows, size):
        yield store.batch(chunk)
