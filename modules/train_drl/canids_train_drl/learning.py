"""Double deep Q-learning on the fusion environment, with or without a teacher.

Double DQN (van Hasselt et al. 2016, equation 4): the online network chooses the next action, the target network values
it. Differences from the paper:

- every action learns from every window. What an action changes, the alarm and its age, is known; what it does not, the
  traffic, is recorded. So the reward and the successor of an action that was not taken are computed, not guessed, and all
  Q-values of a window are learnt at once (an MDP with exogenous input: Dietterich et al. 2018; Sinclair et al. 2023);
- dueling heads (Wang et al. 2016);
- many environments at once;
- the target network follows by an exponential mean (Lillicrap et al. 2016, section 3), and it, being smoother, is the one
  evaluated and kept;
- Huber loss and AdamW;
- episodes cut by their length are bootstrapped, the ends of captures are not.

Distillation (Hinton et al. 2015, for Q-values Rusu et al. 2016): the loss gains `weight` times the Huber loss between the
student's and the teacher's Q-values of the same windows under the same alarm state. Both have the rewards' scale, and the
student's score is a difference of its Q-values, so they are matched as they are, without a softmax.
"""

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from canids_shared.contracts.model_file import Arrays
from canids_shared.errors import CanidsError
from canids_shared.jobs.interruption import Interruption, deferred_signals
from canids_shared.jobs.run_folder import Checkpoint
from canids_shared.jobs.torch_state import from_arrays, moments, restore_moments, to_arrays
from canids_train_drl.environment import Actions, AlarmState, Costs, FusionEnvironment, Traffic, costs_of
from canids_train_drl.networks import DuelingNetwork
from canids_train_drl.playing import evaluate

CHECKPOINT_S = 60.0
"""Seconds between two checkpoints, beside those after every evaluation."""
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
            "detected": torch.bool,
            "next_row": torch.int64,
            "terminated": torch.bool,
        }
        self._columns = {k: torch.zeros(size, dtype=t, device=device) for k, t in types.items()}
        self.size, self.filled, self.next = size, 0, 0

    def add(self, batch: Batch) -> None:
        """Append B transitions, overwriting the oldest."""
        count = len(batch["row"])
        device = batch["row"].device
        at = (torch.arange(count, device=device) + self.next) % self.size
        for name, column in self._columns.items():
            column[at] = batch[name]
        self.next = (self.next + count) % self.size
        self.filled = min(self.filled + count, self.size)

    def to_arrays(self) -> Arrays:
        """What it holds, for a checkpoint."""
        return to_arrays({name: column[: self.filled] for name, column in self._columns.items()}, "replay.")

    def restore(self, arrays: Arrays, following: int) -> None:
        """Inverse of `to_arrays`; `following` is where the next transition goes."""
        for name, kept in from_arrays(arrays, "replay.").items():
            self._columns[name][: len(kept)] = kept
            self.filled = len(kept)
        self.next = following

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` transitions, drawn uniformly with replacement."""
        at = torch.randint(self.filled, (count,), generator=generator, device=generator.device)
        return {name: column[at] for name, column in self._columns.items()}


def losses(
    online: DuelingNetwork,
    target: DuelingNetwork,
    batch: Batch,
    traffic: Traffic,
    actions: Actions,
    costs: Costs,
    *,
    discount: float,
    teacher: Teacher | None,
) -> tuple[Tensor, Tensor]:
    """Temporal-difference loss of all actions and distillation loss (0 without teacher), scalars, of a batch of windows."""
    here = (batch["world"], batch["row"], batch["alarm"], batch["since"])
    q = online(traffic.observation(*here))
    with torch.no_grad():
        goal = _goals(online, target, batch, traffic, costs, discount)
        on = actions.outcomes(traffic.scores[batch["world"], batch["row"]]).long()
    difference = nn.functional.huber_loss(q, goal.gather(1, on))
    if teacher is None:
        return difference, torch.zeros((), device=q.device)
    with torch.no_grad():
        taught = teacher.network(teacher.traffic.observation(*here))
    return difference, nn.functional.huber_loss(q, taught)


def _goals(
    online: DuelingNetwork, target: DuelingNetwork, batch: Batch, traffic: Traffic, costs: Costs, discount: float
) -> Tensor:
    """What silence and alarm are worth in each window, [B, 2]: reward and discounted value of the successor."""
    state = AlarmState(batch["alarm"], batch["since"], batch["detected"])
    labels, count = traffic.labels[batch["world"], batch["row"]], len(batch["row"])
    outcomes = [state.advanced(torch.full_like(state.alarm, on), labels, costs) for on in (False, True)]
    following = traffic.observation(
        batch["world"].repeat(2),
        batch["next_row"].repeat(2),
        torch.cat([after.alarm for after, _ in outcomes]),
        torch.cat([after.since for after, _ in outcomes]),
    )
    best = online(following).argmax(dim=1, keepdim=True)
    value: Tensor = target(following).gather(1, best).view(2, count).T
    goal: Tensor = torch.stack([reward for _, reward in outcomes], dim=1)
    return goal + discount * value * ~batch["terminated"][:, None]


def _interact(environment: FusionEnvironment, network: DuelingNetwork, epsilon: float) -> tuple[Batch, Tensor]:
    """One ε-greedy step of all environments; returns the B windows in which it was taken, and its rewards [B]."""
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
        "detected": state.detected,
        "next_row": environment.row.clone(),
        "terminated": terminated,
    }
    environment.reset(terminated | truncated)
    return batch, reward


@dataclass
class _Progress:
    """What is saved beside tensors: steps done, those since the last evaluation, and the best evaluation so far."""

    step: int = 0
    since: int = 0
    best_reward: float | None = None
    stale: int = 0
    replay_next: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Learning:
    """One training; `run` does it. State lives here so that it can be saved between any two steps."""

    def __init__(
        self,
        fuse: Traffic,
        select: Traffic,
        actions: Actions,
        *,
        hidden: list[int],
        config: dict[str, Any],
        teacher: Teacher | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Prepare; resumes from the checkpoint if one matches.

        Args:
            fuse, select: what to learn on, and what the best policy is chosen by.
            config: the module's config.
            checkpoint: saved after every evaluation, every minute and on a signal.
        """
        self.fuse, self.select, self.actions, self.costs = fuse, select, actions, costs_of(config)
        self.config, self.teacher, self.checkpoint = config, teacher, checkpoint
        self.device = fuse.features.device
        torch.manual_seed(int(config["seed"]))
        self.online = DuelingNetwork(fuse.width, hidden, actions.count).to(self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.best = copy.deepcopy(self.target)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self.online.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"], fused=True
        )
        self.environment = FusionEnvironment.seeded(fuse, actions, config)
        self.generator = self.environment.generator
        self.replay = Replay(config["replay_size"], self.device)
        self.sums = torch.zeros(3, device=self.device)
        self.progress = _Progress()
        self._parameters: list[list[Tensor]] = [list(n.parameters()) for n in (self.target, self.online)]
        if checkpoint and (saved := checkpoint.load()):
            self._restore(*saved)
        self.saved_at = time.perf_counter()

    def run(self) -> tuple[DuelingNetwork, list[dict[str, Any]]]:
        """Train on `fuse` until the mean reward on `select` has not risen for `patience` evaluations.

        Returns the best network, on the CPU, and the history, one row an evaluation: step, epsilon, means since the last
        evaluation of loss, distillation_loss and reward, then select_reward and select_f1.

        Raises:
            CanidsError: the loss is no number.
            SystemExit: after SIGTERM or SIGUSR1, with a checkpoint saved.
        """
        progress, config = self.progress, self.config
        steps = int(config["steps"])
        with deferred_signals() as interruption:
            while progress.step < steps and progress.stale < config["patience"]:
                self._step()
                if progress.step % config["evaluate_every"] == 0 or progress.step == steps:
                    self._evaluate()
                self._look_up(interruption)
        return self.best.cpu().eval(), progress.history

    def epsilon(self) -> float:
        """Share of random actions in the step in progress."""
        exploration = self.config["exploration"]
        done = min(1.0, self.progress.step / (exploration["share"] * self.config["steps"]))
        return float(exploration["start"] + done * (exploration["end"] - exploration["start"]))

    def _step(self) -> None:
        config, teacher = self.config, self.teacher
        self.progress.step += 1
        self.progress.since += 1
        windows, reward = _interact(self.environment, self.online, self.epsilon())
        self.replay.add(windows)
        batch = self.replay.sample(config["batch_size"], self.generator)
        difference, distillation = losses(
            self.online,
            self.target,
            batch,
            self.fuse,
            self.actions,
            self.costs,
            discount=config["discount"],
            teacher=teacher,
        )
        loss = difference if teacher is None else difference + teacher.weight * distillation
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.online.parameters(), config["gradient_norm"], foreach=True)
        self.optimizer.step()
        slow, fast = self._parameters
        with torch.no_grad():
            torch._foreach_lerp_(slow, fast, config["target_rate"])
        self.sums += torch.stack([difference.detach(), distillation.detach(), reward.mean()])

    def _evaluate(self) -> None:
        progress = self.progress
        means = (self.sums / progress.since).tolist()
        if not math.isfinite(means[0]):
            raise CanidsError(f"the loss is {means[0]} at step {progress.step}; lower learning_rate or gradient_norm")
        self.sums.zero_()
        progress.since = 0
        outcome = evaluate(self.target, self.select, self.actions, self.costs, self.config["episode_length"])
        row = dict(zip(("loss", "distillation_loss", "reward"), means, strict=True))
        progress.history.append(
            {
                "step": progress.step,
                "epsilon": self.epsilon(),
                **row,
                "select_reward": outcome.reward,
                "select_f1": outcome.f1,
            }
        )
        log.info("step %d: loss %.4f, select reward %.4f, F1 %s", progress.step, means[0], outcome.reward, outcome.f1)
        progress.stale += 1
        if progress.best_reward is None or outcome.reward > progress.best_reward:
            self.best = copy.deepcopy(self.target)
            progress.best_reward, progress.stale = outcome.reward, 0
        self._save()

    def _look_up(self, interruption: Interruption) -> None:
        now = time.perf_counter()
        if interruption.signal is None and now - self.saved_at <= CHECKPOINT_S:
            return
        self._save()
        if interruption.signal is not None:
            kept = "checkpoint saved, the same command goes on from there" if self.checkpoint else "nothing saved"
            log.info("signal %s at step %d: %s", interruption.signal, self.progress.step, kept)
            interruption.exit()

    def _save(self) -> None:
        self.saved_at = time.perf_counter()
        if not self.checkpoint:
            return
        networks = {"online.": self.online, "target.": self.target, "best.": self.best}
        arrays: Arrays = {}
        for prefix, network in networks.items():
            arrays |= to_arrays(network.state_dict(), prefix)
        arrays |= moments(self.optimizer) | self.replay.to_arrays()
        arrays |= to_arrays(self.environment.state_dict(), "environment.")
        arrays |= to_arrays({"generator": self.generator.get_state(), "sums": self.sums})
        self.progress.replay_next = self.replay.next
        self.checkpoint.save(arrays, asdict(self.progress))

    def _restore(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        self.progress = _Progress(**progress)
        for prefix, network in {"online.": self.online, "target.": self.target, "best.": self.best}.items():
            network.load_state_dict(from_arrays(arrays, prefix))
        restore_moments(self.optimizer, arrays)
        self.replay.restore(arrays, self.progress.replay_next)
        self.environment.load_state_dict(from_arrays(arrays, "environment."))
        self.generator.set_state(torch.from_numpy(arrays["generator"]))
        self.sums = torch.from_numpy(arrays["sums"]).to(self.device)
        log.info("resumed after step %d", self.progress.step)
