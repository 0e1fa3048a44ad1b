"""Double deep Q-learning on the fusion environment, with or without a teacher; reads from top to bottom.

Network, replay buffer, targets and losses, one step of the environments, the training loop.

Double DQN (van Hasselt et al. 2016, equation 4): the online network chooses the next action, the target network values
it. Differences from the papers:

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
student's score is a difference of its Q-values, so they are compared as they are, without a softmax.
"""

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from canids_shared.contracts.model_file import Arrays
from canids_shared.errors import CanidsError
from canids_shared.jobs.interruption import Interruption, deferred_signals
from canids_shared.jobs.run_folder import Checkpoint
from canids_shared.jobs.torch_state import EagerAdamW, from_arrays, moments, restore_moments, to_arrays
from canids_train_drl.environment.fusion_environment import AlarmState, Costs, FusionEnvironment, Traffic
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.rollout import evaluate

CHECKPOINT_S = 60.0
"""Seconds between two checkpoints, in addition to those after every evaluation."""
log = logging.getLogger(__name__)
Batch = dict[str, Tensor]
"""Transitions by name, [B] each: world, row, alarm, age and detected before the window, next_row, terminated."""


class DuelingNetwork(nn.Module):
    """Q-network with dueling heads on a multilayer perceptron (Wang et al. 2016, section 3).

    Q(s, a) = V(s) + A(s, a) − mean over a' of A(s, a'). `forward` takes observations [B, width] and returns Q-values [B, A].
    """

    def __init__(self, width: int, hidden: list[int], actions: int) -> None:
        super().__init__()
        sizes = [width, *hidden]
        self.trunk = nn.Sequential(*(layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())))
        self.value = nn.Linear(sizes[-1], 1)
        self.advantage = nn.Linear(sizes[-1], actions)

    def forward(self, observation: Tensor) -> Tensor:
        """Q-values [B, A] of observations [B, width]."""
        trunk = self.trunk(observation)
        advantage = self.advantage(trunk)
        # The mean is subtracted because V and A are otherwise determined up to a constant only.
        q: Tensor = self.value(trunk) + advantage - advantage.mean(dim=1, keepdim=True)
        return q


class ReplayBuffer:
    """Ring buffer of transitions on the device; windows are kept by number, so that observations take no memory."""

    def __init__(self, size: int, device: torch.device) -> None:
        flags, numbers = ("alarm", "detected", "terminated"), ("world", "row", "age", "next_row")
        types = {**dict.fromkeys(flags, torch.bool), **dict.fromkeys(numbers, torch.int64)}
        self._columns = {name: torch.zeros(size, dtype=kind, device=device) for name, kind in types.items()}
        self.size, self.filled, self.next = size, 0, 0

    def add(self, batch: Batch) -> None:
        """Append B transitions, overwriting the oldest."""
        count = len(batch["row"])
        # Places behind the newest transition, around the end of the ring.
        at = (torch.arange(count, device=batch["row"].device) + self.next) % self.size
        for name, column in self._columns.items():
            column[at] = batch[name]
        self.next = (self.next + count) % self.size
        self.filled = min(self.filled + count, self.size)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` transitions, drawn uniformly with replacement."""
        at = torch.randint(self.filled, (count,), generator=generator, device=generator.device)
        return {name: column[at] for name, column in self._columns.items()}

    def to_arrays(self) -> Arrays:
        """Its transitions, for a checkpoint."""
        return to_arrays({name: column[: self.filled] for name, column in self._columns.items()}, "replay.")

    def restore(self, arrays: Arrays, following: int) -> None:
        """Inverse of `to_arrays`; `following` is where the next transition goes."""
        for name, kept in from_arrays(arrays, "replay.").items():
            self._columns[name][: len(kept)] = kept
            self.filled = len(kept)
        self.next = following


@dataclass(frozen=True)
class Teacher:
    """A trained policy with its view of the student's `fuse` split (same worlds, same windows)."""

    network: DuelingNetwork
    traffic: Traffic
    weight: float


def observation(batch: Batch, traffic: Traffic) -> Tensor:
    """Observations [B, width] of a batch of windows."""
    return traffic.observation(batch["world"], batch["row"], batch["alarm"], batch["age"])


def next_observation(batch: Batch, after: list[AlarmState], traffic: Traffic) -> Tensor:
    """Observations of the successors, [2 B, width]: those after silence, then those after an alarm.

    The successor of a window is known whatever was done in it: the next window, with the alarm as the action would leave it.
    """
    alarm, age = (torch.cat([getattr(state, name) for state in after]) for name in ("alarm", "age"))
    return traffic.observation(batch["world"].repeat(2), batch["next_row"].repeat(2), alarm, age)


def td_targets(
    online: DuelingNetwork, target: DuelingNetwork, batch: Batch, traffic: Traffic, costs: Costs, discount: float
) -> Tensor:
    """Targets of temporal-difference learning for silence and alarm, [B, 2]: reward and discounted value of the successor."""
    # What silence and alarm would each cost in this window, and the alarm that they would leave.
    before = AlarmState(batch["alarm"], batch["age"], batch["detected"])
    labels, count = traffic.labels[batch["world"], batch["row"]], len(batch["row"])
    outcomes = [before.advanced(torch.full_like(before.alarm, alarm), labels, costs) for alarm in (False, True)]
    following = next_observation(batch, [after for after, _ in outcomes], traffic)
    # Double DQN: the online network chooses the next action, the target network values it.
    chosen = online(following).argmax(dim=1, keepdim=True)
    value: Tensor = target(following).gather(1, chosen).view(2, count).T
    reward: Tensor = torch.stack([reward for _, reward in outcomes], dim=1)
    # Nothing follows the last window of a segment.
    return reward + discount * value * ~batch["terminated"][:, None]


def td_loss(q: Tensor, targets: Tensor, alarms: Tensor) -> Tensor:
    """Huber loss of Q-values [B, A], scalar: the target of each action is that of the alarm (bool [B, A]) which it results in."""
    return nn.functional.huber_loss(q, targets.gather(1, alarms.long()))


def distillation_loss(q: Tensor, batch: Batch, teacher: Teacher | None) -> Tensor:
    """Huber loss of Q-values [B, A] against the teacher's of the same windows, scalar; 0 without teacher."""
    if teacher is None:
        return torch.zeros((), device=q.device)
    with torch.no_grad():
        teacher_q = teacher.network(observation(batch, teacher.traffic))
    return nn.functional.huber_loss(q, teacher_q)


def total_loss(difference: Tensor, distillation: Tensor, teacher: Teacher | None) -> Tensor:
    """The loss that a gradient step descends: temporal differences, and with a teacher the weighted distance from it."""
    return difference if teacher is None else difference + teacher.weight * distillation


def explore(environment: FusionEnvironment, network: DuelingNetwork, epsilon: float) -> tuple[Batch, Tensor]:
    """One ε-greedy step of all B environments; returns their transitions and rewards [B]. Those that are over begin again."""
    generator, device, before = environment.generator, environment.world.device, environment.state
    batch = {"world": environment.world.clone(), "row": environment.row.clone(), **vars(before)}
    # Greedy by the online network; with probability ε any action.
    with torch.no_grad():
        greedy = network(environment.observe()).argmax(dim=1)
    random = torch.randint(environment.actions.count, greedy.shape, generator=generator, device=device)
    explores = torch.rand(greedy.shape, generator=generator, device=device) < epsilon
    # `next_row` is kept before the environments that are over move to their new episodes.
    reward, terminated, truncated = environment.step(torch.where(explores, random, greedy))
    batch |= {"next_row": environment.row.clone(), "terminated": terminated}
    environment.reset(terminated | truncated)
    return batch, reward


@dataclass
class _Progress:
    """What a checkpoint keeps in addition to tensors: steps done, those since the last evaluation, and the best evaluation so far.

    Attributes:
        best, best_reward: row of `history` whose weights are kept, and its reward.
        reference, stale: the last reward that was an improvement, and evaluations since then.
    """

    step: int = 0
    since: int = 0
    best: int = 0
    best_reward: float | None = None
    reference: float | None = None
    stale: int = 0
    replay_next: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class DoubleDQN:
    """One training; `run` does it. All state lives here, so that it can be saved between any two steps.

    Attributes:
        online, target, best: the network that learns, its exponential mean, and that mean at the best evaluation.
        progress: how far the training is, and its history.
    """

    def __init__(
        self,
        fuse: Traffic,
        select: Traffic,
        setup: FusionSetup,
        teacher: Teacher | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Prepare a training, or resume it from the checkpoint if one matches.

        Args:
            fuse, select: what to learn on, and what the best policy is chosen by.
            checkpoint: saved after every evaluation, every minute and on a signal.
        """
        config = setup.config
        self.fuse, self.select, self.actions, self.costs = fuse, select, setup.actions, Costs.of(config)
        self.config, self.teacher, self.checkpoint = config, teacher, checkpoint
        self.device = fuse.features.device
        torch.manual_seed(int(config["seed"]))
        self.online = DuelingNetwork(fuse.width, setup.hidden, self.actions.count).to(self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.best = copy.deepcopy(self.target)
        self.optimizer: torch.optim.Optimizer = EagerAdamW(
            self.online.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"], fused=True
        )
        self.environment = FusionEnvironment.seeded(fuse, self.actions, config)
        self.generator = self.environment.generator
        self.replay = ReplayBuffer(config["replay_size"], self.device)
        # Sums of TD loss, distillation loss and reward since the last evaluation; on the device, so that no step waits for it.
        self.sums = torch.zeros(3, device=self.device)
        self.progress = _Progress()
        # Lists for the update of the target network, which would take longer to gather than to compute.
        self._parameters: list[list[Tensor]] = [list(n.parameters()) for n in (self.target, self.online)]
        if checkpoint and (saved := checkpoint.load()):
            self._restore(*saved)
        self.saved_at = time.perf_counter()

    def run(self) -> tuple[DuelingNetwork, list[dict[str, Any]]]:
        """Train on `fuse` until the mean reward on `select` has not risen by `improvement` for `patience` evaluations.

        Returns:
            The best network, on the CPU, and the history, a row for each evaluation: step, epsilon, means since the last
            evaluation of loss, distillation_loss and reward, then select_reward and select_f1.

        Raises:
            CanidsError: the loss is not a number.
            SystemExit: after SIGTERM or SIGUSR1, with a checkpoint saved.
        """
        progress, config = self.progress, self.config
        steps = int(config["steps"])
        with deferred_signals() as interruption:
            while progress.step < steps and progress.stale < config["patience"]:
                self._step()
                if progress.step % config["evaluate_every"] == 0 or progress.step == steps:
                    self._evaluate()
                self._checkpoint(interruption)
        return self.best.cpu().eval(), progress.history

    def epsilon(self) -> float:
        """Share of random actions in the current step."""
        exploration = self.config["exploration"]
        done = min(1.0, self.progress.step / (exploration["share"] * self.config["steps"]))
        return float(exploration["start"] + done * (exploration["end"] - exploration["start"]))

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Temporal-difference loss and distillation loss of a batch of windows, scalars."""
        q = self.online(observation(batch, self.fuse))
        with torch.no_grad():
            targets = td_targets(self.online, self.target, batch, self.fuse, self.costs, self.config["discount"])
            alarms = self.actions.outcomes(self.fuse.scores[batch["world"], batch["row"]])
        return td_loss(q, targets, alarms), distillation_loss(q, batch, self.teacher)

    def _step(self) -> None:
        """One step of all environments and one gradient step."""
        config = self.config
        self.progress.step += 1
        self.progress.since += 1
        # One step of every environment: B new transitions.
        transitions, reward = explore(self.environment, self.online, self.epsilon())
        self.replay.add(transitions)
        # One gradient step on a batch of older ones.
        difference, distillation = self.losses(self.replay.sample(config["batch_size"], self.generator))
        loss = total_loss(difference, distillation, self.teacher)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.online.parameters(), config["gradient_norm"], foreach=True)
        self.optimizer.step()
        # The target network follows the online one: θ⁻ ← θ⁻ + rate · (θ − θ⁻).
        slow, fast = self._parameters
        with torch.no_grad():
            torch._foreach_lerp_(slow, fast, config["target_rate"])
        self.sums += torch.stack([difference.detach(), distillation.detach(), reward.mean()])

    def _evaluate(self) -> None:
        """Add a row to the history, keep the weights if they are the best so far, and save a checkpoint."""
        progress = self.progress
        loss, distillation, reward = (self.sums / progress.since).tolist()
        if not math.isfinite(loss):
            raise CanidsError(f"the loss is {loss} at step {progress.step}; lower learning_rate or gradient_norm")
        self.sums.zero_()
        progress.since = 0
        # Greedy on `select`, in all its worlds. The target network is the smoother of the two, so it is evaluated and kept.
        outcome = evaluate(self.target, self.select, self.actions, self.costs, self.config["episode_length"])
        row = {"step": progress.step, "epsilon": self.epsilon(), "loss": loss, "distillation_loss": distillation}
        row |= {"reward": reward, "select_reward": outcome.reward, "select_f1": outcome.f1}
        progress.history.append(row)
        log.info("step %d: loss %.4f, select reward %.4f, F1 %s", progress.step, loss, outcome.reward, outcome.f1)
        progress.stale += 1
        if progress.best_reward is None or outcome.reward > progress.best_reward:
            self.best = copy.deepcopy(self.target)
            progress.best, progress.best_reward = len(progress.history) - 1, outcome.reward
        risen = self.config["improvement"] * max(vars(self.costs).values())
        if progress.reference is None or outcome.reward > progress.reference + risen:
            progress.reference, progress.stale = outcome.reward, 0
        self._save()

    def _checkpoint(self, interruption: Interruption) -> None:
        """Save a checkpoint if the last one is a minute old, or a signal came, which also ends the process."""
        if interruption.signal is None and time.perf_counter() - self.saved_at <= CHECKPOINT_S:
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
        # All that the next step depends on: weights, moments, replay, environments, random numbers, sums.
        arrays: Arrays = {}
        for name in ("online", "target", "best"):
            arrays |= to_arrays(getattr(self, name).state_dict(), f"{name}.")
        arrays |= moments(self.optimizer) | self.replay.to_arrays()
        arrays |= to_arrays(self.environment.state_dict(), "environment.")
        arrays |= to_arrays({"generator": self.generator.get_state(), "sums": self.sums})
        self.progress.replay_next = self.replay.next
        self.checkpoint.save(arrays, asdict(self.progress))

    def _restore(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        self.progress = _Progress(**progress)
        for name in ("online", "target", "best"):
            getattr(self, name).load_state_dict(from_arrays(arrays, f"{name}."))
        restore_moments(self.optimizer, arrays)
        self.replay.restore(arrays, self.progress.replay_next)
        self.environment.load_state_dict(from_arrays(arrays, "environment."))
        self.generator.set_state(torch.from_numpy(arrays["generator"]))
        self.sums = torch.from_numpy(arrays["sums"]).to(self.device)
        log.info("resumed after step %d", self.progress.step)
