"""Double deep Q-learning on the fusion environment, with or without a teacher.

Double DQN (van Hasselt et al. 2016, equation 4): the online network chooses the next action, the target network values
it. Differences from the paper: dueling heads (Wang et al. 2016); many environments at once; the target network follows
by an exponential mean (Lillicrap et al. 2016, section 3), and it, being smoother, is the one evaluated and kept; Huber
loss and AdamW; episodes cut by their length are bootstrapped, the ends of captures are not.

Distillation (Hinton et al. 2015, for Q-values Rusu et al. 2016): the loss gains `weight` times the Huber loss between the
student's and the teacher's Q-values of the same windows under the same alarm state. Both have the rewards' scale, and the
student's score is a difference of its Q-values, so they are matched as they are, without a softmax.
"""

import copy
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from canids_train_drl.environment import Actions, Costs, FusionEnvironment, Traffic
from canids_train_drl.networks import DuelingNetwork
from canids_train_drl.playing import evaluate

log = logging.getLogger(__name__)
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Teacher:
    """A trained policy and its own view of the student's `fuse` split (same worlds, same windows)."""

    network: DuelingNetwork
    traffic: Traffic
    weight: float


class Replay:
    """Ring buffer of transitions as tensors; windows are kept by number, so an observation takes no room."""

    def __init__(self, size: int, device: torch.device) -> None:
        types = {
            "world": torch.int64,
            "row": torch.int64,
            "alarm": torch.bool,
            "since": torch.int64,
            "action": torch.int64,
            "reward": torch.float32,
            "next_row": torch.int64,
            "next_alarm": torch.bool,
            "next_since": torch.int64,
            "terminated": torch.bool,
        }
        self._columns = {k: torch.zeros(size, dtype=t, device=device) for k, t in types.items()}
        self.size, self.filled, self._next = size, 0, 0

    def add(self, batch: Batch) -> None:
        """Append B transitions, overwriting the oldest."""
        count = len(batch["row"])
        device = batch["row"].device
        at = (torch.arange(count, device=device) + self._next) % self.size
        for name, column in self._columns.items():
            column[at] = batch[name]
        self._next = (self._next + count) % self.size
        self.filled = min(self.filled + count, self.size)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` transitions, drawn uniformly with replacement."""
        at = torch.randint(self.filled, (count,), generator=generator, device=generator.device)
        return {name: column[at] for name, column in self._columns.items()}


def losses(
    online: DuelingNetwork,
    target: DuelingNetwork,
    batch: Batch,
    traffic: Traffic,
    *,
    discount: float,
    teacher: Teacher | None,
) -> tuple[Tensor, Tensor]:
    """Temporal-difference loss and distillation loss (0 without teacher), scalars, of a batch of transitions."""
    here = (batch["world"], batch["row"], batch["alarm"], batch["since"])
    q = online(traffic.observation(*here))
    with torch.no_grad():
        following = traffic.observation(batch["world"], batch["next_row"], batch["next_alarm"], batch["next_since"])
        best = online(following).argmax(dim=1, keepdim=True)
        value = target(following).gather(1, best)[:, 0]
        goal = batch["reward"] + discount * value * ~batch["terminated"]
    difference = nn.functional.huber_loss(q.gather(1, batch["action"][:, None])[:, 0], goal)
    if teacher is None:
        return difference, torch.zeros((), device=q.device)
    with torch.no_grad():
        taught = teacher.network(teacher.traffic.observation(*here))
    return difference, nn.functional.huber_loss(q, taught)


def _interact(environment: FusionEnvironment, network: DuelingNetwork, epsilon: float) -> Batch:
    """One ε-greedy step of all environments; returns its B transitions."""
    generator, device = environment.generator, environment.world.device
    world, row, state = environment.world.clone(), environment.row.clone(), environment.state
    with torch.no_grad():
        greedy = network(environment.observe()).argmax(dim=1)
    anything = torch.randint(environment.actions.count, greedy.shape, generator=generator, device=device)
    explore = torch.rand(greedy.shape, generator=generator, device=device) < epsilon
    action = torch.where(explore, anything, greedy)
    reward, terminated, truncated = environment.step(action)
    batch = {
        "world": world,
        "row": row,
        "alarm": state.alarm,
        "since": state.since,
        "action": action,
        "reward": reward,
        "next_row": environment.row.clone(),
        "next_alarm": environment.state.alarm,
        "next_since": environment.state.since,
        "terminated": terminated,
    }
    environment.reset(terminated | truncated)
    return batch


def learn(
    fuse: Traffic,
    select: Traffic,
    actions: Actions,
    *,
    costs: Costs,
    hidden: list[int],
    config: dict[str, Any],
    teacher: Teacher | None = None,
) -> tuple[DuelingNetwork, list[dict[str, Any]]]:
    """Train a policy on `fuse`, keep the one with the highest mean reward on `select`.

    Stops when that has not risen for `patience` evaluations. Returns the network and the history, one row an evaluation:
    step, epsilon, means since the last evaluation of loss, distillation_loss and reward, then select_reward and select_f1.
    """
    device = fuse.features.device
    generator = torch.Generator(device)
    generator.manual_seed(int(config["seed"]))
    torch.manual_seed(int(config["seed"]))
    online = DuelingNetwork(fuse.width, hidden, actions.count).to(device)
    target = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.AdamW(online.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"])
    environment = FusionEnvironment(
        fuse, actions, costs, count=config["environments"], length=config["episode_length"], generator=generator
    )
    replay = Replay(config["replay_size"], device)
    exploration, steps = config["exploration"], int(config["steps"])
    history: list[dict[str, Any]] = []
    best, best_reward, stale = copy.deepcopy(target), -float("inf"), 0
    sums = torch.zeros(3, device=device)
    since = 0
    for step in range(1, steps + 1):
        done = min(1.0, step / (exploration["share"] * steps))
        epsilon = exploration["start"] + done * (exploration["end"] - exploration["start"])
        played = _interact(environment, online, epsilon)
        replay.add(played)
        batch = replay.sample(config["batch_size"], generator)
        difference, distillation = losses(online, target, batch, fuse, discount=config["discount"], teacher=teacher)
        loss = difference + (teacher.weight if teacher else 0.0) * distillation
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(online.parameters(), config["gradient_norm"])
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.lerp_(fast, config["target_rate"])
        sums += torch.stack([difference.detach(), distillation.detach(), played["reward"].mean()])
        since += 1
        if step % config["evaluate_every"] and step != steps:
            continue
        means = (sums / since).tolist()
        sums, since = torch.zeros_like(sums), 0
        outcome = evaluate(target, select, actions, costs, config["episode_length"])
        row = dict(zip(("loss", "distillation_loss", "reward"), means, strict=True))
        history.append(
            {"step": step, "epsilon": epsilon, **row, "select_reward": outcome.reward, "select_f1": outcome.f1}
        )
        log.info("step %d: loss %.4f, select reward %.4f, F1 %s", step, means[0], outcome.reward, outcome.f1)
        if outcome.reward > best_reward:
            best, best_reward, stale = copy.deepcopy(target), outcome.reward, 0
        else:
            stale += 1
        if stale >= config["patience"]:
            break
    return best.cpu().eval(), history
