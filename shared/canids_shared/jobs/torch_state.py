"""The state of a training as NumPy arrays and back: weights, moments of the optimiser, random numbers. No pickle."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from canids_shared.contracts.model_file import Arrays, check_arrays

Module = TypeVar("Module", bound=nn.Module)


class EagerAdamW(torch.optim.AdamW):
    """AdamW as torch has it (Loshchilov & Hutter 2019), but a training does not import `torch._dynamo` for it.

    torch wraps these methods so that a compiled function stays out of them, and imports its compiler for that, at the first
    call: 1.5 s of every training. Here they stand without the wrappers; the arithmetic is the same, to the bit. Models may
    be compiled all the same, steps of this optimiser may not.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def to_arrays(state: dict[str, Tensor], prefix: str = "") -> Arrays:
    """A state dict as NumPy arrays, for a model file or a checkpoint."""
    return {prefix + k: v.detach().cpu().numpy() for k, v in state.items()}


def from_arrays(arrays: Arrays, prefix: str = "") -> dict[str, Tensor]:
    """Inverse of `to_arrays`, for the names that begin with `prefix`."""
    return {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}


def built(path: Path, arrays: Arrays, build: Callable[[], Module]) -> Module:
    """The module that `build` makes, with the weights of a model file.

    Raises `CanidsError` naming the tensor that is missing, unknown, or of another type or shape than the module's.
    """
    # First without memory: a header may ask for terabytes.
    with torch.device("meta"):
        state = build().state_dict()
    check_arrays(path, arrays, {k: (str(v.dtype).removeprefix("torch."), tuple(v.shape)) for k, v in state.items()})
    module = build()
    module.load_state_dict(from_arrays(arrays))
    return module


def moments(optimizer: torch.optim.Optimizer) -> Arrays:
    """The optimiser's state for every parameter (of AdamW: both moments and the number of steps)."""
    arrays: Arrays = {}
    for index, state in optimizer.state_dict()["state"].items():
        arrays |= to_arrays(state, f"optimizer.{index}.")
    return arrays


def restore_moments(optimizer: torch.optim.Optimizer, arrays: Arrays) -> None:
    """Inverse of `moments`."""
    state = optimizer.state_dict()
    for name, value in from_arrays(arrays, "optimizer.").items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)


def random_state(device: torch.device) -> Arrays:
    """State of torch's random number generators, of the CPU and of the device."""
    state = {"random.cpu": torch.get_rng_state().numpy()}
    if device.type == "cuda":
        state["random.cuda"] = torch.cuda.get_rng_state(device).numpy()
    return state


def set_random_state(arrays: Arrays, device: torch.device) -> None:
    """Inverse of `random_state`."""
    torch.set_rng_state(torch.from_numpy(arrays["random.cpu"]))
    if device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(arrays["random.cuda"]), device)
