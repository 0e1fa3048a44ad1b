"""Several processes train one model: each takes its share of every batch, and together they do what one would.

Fabric's strategy averages gradients over the processes (Li et al. 2020, PyTorch Distributed). A batch's loss is a sum of
means over unequal counts (weights of classes, windows, nodes), so each process scales its means by its share of the counts:
the average is then the gradient of the whole batch. Every process draws the same order of windows, and dropout and noise of
its own. All decisions (stop, save, give up) are taken together, or one process would wait for the others for ever.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from canids_shared.contracts.model_file import Arrays
from canids_shared.contracts.torch_store import Graphs, TorchStore, device_of
from canids_shared.errors import CanidsError
from canids_shared.jobs.torch_state import random_state, set_random_state
from canids_train_gnn.batching import repeatable

Terms = Sequence[tuple[Tensor, Tensor | int]]
"""A loss as a sum of means: each mean (weighted as it counts in the loss) with the count that it is a mean over."""


def start(config: dict[str, Any]) -> Fabric:
    """Processes, threads and device as the config says; on a CPU, kernels that give the same bytes every time.

    The first process starts the others, on this machine, with its own command line; also within a cluster's job.

    Raises:
        CanidsError: there is no GPU as asked for, or there are not that many devices.
    """
    # Not Fabric's own choice, which knows devices that nothing else here was tried on.
    accelerator = device_of(config["accelerator"], "train_gnn.accelerator").type
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=config["devices"],
            strategy=config["strategy"],
            precision=config["precision"],
            plugins=LightningEnvironment(),
        )
    except MisconfigurationException as error:
        raise CanidsError(f"train_gnn.devices: {config['devices']}: {' '.join(str(error).split())}") from None
    fabric.launch()
    repeatable(config["torch_threads"], fabric.device)
    return fabric


def seeded(seed: int, *place: int) -> None:
    """Seed torch for one epoch (or a process within it), so that a resumed training draws what the uninterrupted one did."""
    torch.manual_seed(int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> 1))


class ShardLoss(nn.Module):
    """The loss of this process's share of a batch, as the module that Fabric's strategy wraps."""

    def __init__(self, fabric: Fabric, model: nn.Module, store: TorchStore, loss: Callable[[Graphs], Terms]) -> None:
        super().__init__()
        self.model = model
        self._fabric, self._store, self._loss = fabric, store, loss

    def forward(self, windows: Tensor) -> Tensor:
        """Loss of the batch of these windows ([n] int64); its average over the processes is that of the whole batch."""
        fabric = self._fabric
        if fabric.world_size == 1:
            first, *others = self._loss(self._store.batch(windows))
            loss = first[0]
            for term, _ in others:
                loss = loss + term
            return loss
        own = shard(fabric, windows)
        # A last batch may be too small for all: who has no window takes any, and counts it as nothing.
        terms = self._loss(self._store.batch(own if len(own) else windows[:1]))
        count = torch.stack([torch.as_tensor(n, dtype=torch.float32, device=fabric.device) for _, n in terms])
        count = count * float(len(own) > 0)
        whole = count.clone()
        torch.distributed.all_reduce(whole)
        means = torch.stack([term for term, _ in terms])
        return (means * (count * fabric.world_size / whole)).sum()


def shard(fabric: Fabric, windows: Tensor) -> Tensor:
    """This process's share of the windows ([n]), every `world_size`-th; all of them where there is one process."""
    return windows[fabric.global_rank :: fabric.world_size] if fabric.world_size > 1 else windows


def agreed(fabric: Fabric, *values: float) -> list[float]:
    """The largest that any process says of each value."""
    if fabric.world_size == 1:
        return list(values)
    out: Tensor = fabric.all_reduce(torch.tensor(values, device=fabric.device), reduce_op="max")  # type: ignore[assignment]
    return out.tolist()


def summed(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over all processes."""
    if fabric.world_size == 1:
        return values
    return fabric.all_reduce(values.to(fabric.device), reduce_op="sum").to(values.device)  # type: ignore[union-attr]


def random_states(fabric: Fabric) -> Arrays:
    """State of every process's random numbers; those of the first bear no prefix."""
    own = random_state(fabric.device)
    if fabric.world_size == 1:
        return own
    states: Arrays = {}
    for name, array in own.items():
        state = torch.from_numpy(array).to(fabric.device)
        everyone = [torch.empty_like(state) for _ in range(fabric.world_size)]
        torch.distributed.all_gather(everyone, state)
        states |= {_of(rank) + name: state.cpu().numpy() for rank, state in enumerate(everyone)}
    return states


def set_random_states(fabric: Fabric, arrays: Arrays) -> None:
    """Inverse of `random_states`, for this process."""
    prefix = _of(fabric.global_rank)
    set_random_state({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}, fabric.device)


def _of(rank: int) -> str:
    return f"process-{rank}." if rank else ""
