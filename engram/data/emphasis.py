"""How much each frame counts in the loss: more where the expert's action changes.

Most actions are much like the one before, and a policy that reads its own motion off the hand's pose gets them right
without looking or remembering: it copies. The few at which the expert changes its mind are those that it has to learn
(Wen et al., Keyframe-Focused Visual Imitation Learning, arXiv 2106.06452, who weigh frames by what a copying policy
gets wrong; here the change itself is the weight).

Legend: F frames, A action.
"""

import numpy as np
from jaxtyping import Float32, Int64

from engram.data.normalise import ACTION_FLOOR


def weights(
    action_FA: Float32[np.ndarray, "F A"], starts: Int64[np.ndarray, "E"], emphasis: float
) -> Float32[np.ndarray, "F"]:
    """1 + emphasis * change / mean change, divided by its mean; `starts` are the first frames of episodes.

    The change of a frame is the distance of its action from the one before, each dimension in its own standard
    deviation; none at the start of an episode.
    """
    change_F = np.zeros(len(action_FA))
    change_F[1:] = np.linalg.norm(np.diff(action_FA, axis=0) / action_FA.std(0).clip(min=ACTION_FLOOR), axis=1)
    change_F[starts] = 0
    weight_F = 1 + emphasis * change_F / max(change_F.mean(), 1e-9)
    return (weight_F / weight_F.mean()).astype(np.float32)
