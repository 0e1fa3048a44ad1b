"""One training of a detector, as both detectors' `train` takes it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

import torch
from torch import Tensor

from canids_shared.contracts.torch_store import TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs.run_folder import Checkpoint
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.gat_vgae import VGAE, Model

History = list[dict[str, Any]]
"""One row for each epoch, as in `history.parquet`."""


@dataclass(frozen=True)
class TrainingJob(Generic[Model]):
    """What a detector learns from, how, and from whom.

    Attributes:
        fit: the windows to train on; they lie on the device that trains.
        select: the windows on which the epoch is chosen.
        scale: `large` or `small`, a key of `config`.
        config: the detector's section of the module's config.
        seed: of weights, batches, dropout and noise.
        precision: `32-true`, `bf16-products` for matrix products in bfloat16, or `bf16-mixed` for autocast to it.
        message_passing: how messages pass between nodes.
        teacher: the model whose outputs the student learns beside the data (distillation).
        curriculum_vgae: the model that ranks windows from easy to hard, for a curriculum of the GAT.
        checkpoint: where the state is saved and resumed from; None saves nothing.
    """

    fit: TorchStore
    select: TorchStore
    scale: str
    config: dict[str, Any]
    seed: int
    precision: str = "32-true"
    message_passing: MessagePassing = field(default_factory=MessagePassing)
    teacher: Model | None = None
    curriculum_vgae: VGAE | None = None
    checkpoint: Checkpoint | None = None

    @property
    def device(self) -> torch.device:
        """The device that trains."""
        return self.fit.device

    def autocast(self) -> torch.autocast:
        """A context in which operations have the job's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed")

    @contextmanager
    def matrix_products(self) -> Iterator[None]:
        """A context in which matrix products, gradients included, have the job's precision."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if self.precision == "bf16-products" else before)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def new_model(self, kind: type[Model], nodes: Tensor, edges: Tensor) -> Model:
        """An untrained model of the job's scale, whose weights the seed decides and whose scaling is that of the training data.

        Args:
            kind: GAT or VGAE.
            nodes, edges: raw features [n, F], [e, D] from which it learns the scaling.
        """
        torch.manual_seed(self.seed)
        header = self.fit.header
        model = kind(header["node_features"], header["edge_features"], self.config[self.scale]).to(self.device)
        model.encoder.use(self.message_passing)
        model.encoder.node_scaling.learn(nodes)
        model.encoder.edge_scaling.learn(edges)
        return model

    def require(self, labels: Mapping[int, str], kind: str) -> None:
        """Raise `CanidsError` naming the split that has no window with one of the labels (label → its name)."""
        for split, store in (("fit", self.fit), ("select", self.select)):
            for label, name in labels.items():
                if not bool((store.y == label).any()):
                    raise CanidsError(
                        f"split '{split}' has no {name} window: a {kind} cannot be trained; change blocks.shares or the captures"
                    )
