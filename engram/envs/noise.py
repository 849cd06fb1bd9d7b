"""Noise for demonstrations: perfect ones never show the way back to the path."""

import numpy as np


class Noise:
    """Coloured noise in bursts for demonstrations: the hand is pushed off its path now and then and has to recover.

    The pushes end after the first `ticks` actions, so that episodes end soon after (`envs.pushed_ticks`).
    """

    def __init__(self, rng: np.random.Generator, scale: float, keep: float = 0.7, share: float = 0.35, ticks: int = 8):
        self._rng, self._scale, self._keep, self._share, self._left = rng, scale, keep, share, ticks
        self._push, self._active = np.zeros(3), False

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """What to execute instead of `action`; the demonstration's label stays `action`."""
        if self._rng.random() < 0.15:
            self._active = self._rng.random() < self._share
        fresh = self._rng.normal(size=3) * np.sqrt(1 - self._keep**2)
        self._push = self._keep * self._push + fresh
        self._left -= int(action.any())
        if not self._active or not action.any() or self._left < 0:
            return action
        pushed = action.copy()
        pushed[:3] += self._scale * self._push
        return np.clip(pushed, -1, 1).astype(np.float32)
