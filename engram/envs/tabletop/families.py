"""For each family of tasks its environment, and who plays it: an expert that knows, and one that guesses."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gymnasium
import numpy as np

from engram.envs.tabletop.conveyor import Conveyor
from engram.envs.tabletop.count import Count
from engram.envs.tabletop.expert import blind_choice, expert_action
from engram.envs.tabletop.expert_conveyor import conveyor_action, reactive_action
from engram.envs.tabletop.expert_press import count_action, guess, order_action
from engram.envs.tabletop.order import Order
from engram.envs.tabletop.recall import Recall

Act = Callable[[gymnasium.Env], np.ndarray]  # from an environment to an action, float32 (7,)


@dataclass(frozen=True)
class Family:
    """What belongs to a family of tasks.

    env     the class of its environments, called with knobs
    expert  acts with all that is known
    blind   from an episode just reset, and draws of its own, to one who plays it without memory: it guesses the answer
            or, where there is nothing to guess, waits until it sees
    """

    env: Callable[..., gymnasium.Env]
    expert: Act
    blind: Callable[[gymnasium.Env, np.random.Generator], Act]


FAMILIES = {
    "recall": Family(Recall, expert_action, lambda env, rng: partial(expert_action, target=blind_choice(env, rng))),
    "order": Family(Order, order_action, lambda env, rng: partial(order_action, order=guess(env, rng))),
    "count": Family(Count, count_action, lambda env, rng: partial(count_action, times=guess(env, rng))),
    "conveyor": Family(Conveyor, conveyor_action, lambda env, rng: reactive_action),
}
