"""What follows each frame of a data set: the frames that a video world model learns to foresee."""

import numpy as np
from numpy.typing import NDArray


def futures(lengths_E: NDArray[np.int64], frames: int, stride: int) -> NDArray[np.int64]:
    """For each of F frames the `frames` frames that follow, `stride` ticks apart: int64 (F, K).

    Episodes of these lengths lie one after the other; the last frame of one is repeated past its end. ValueError for
    an episode so short that no frame of it has its whole future.
    """
    horizon = frames * stride
    for episode in np.flatnonzero(lengths_E <= horizon)[:1]:
        expected, found = f"more than {horizon} ticks ({frames} frames, {stride} apart)", lengths_E[episode]
        raise ValueError(
            f"episode {episode}: expected {expected}, found {found}; lower them or use longer demonstrations"
        )
    end_F = np.repeat(np.cumsum(lengths_E), lengths_E) - 1
    ahead_K = stride * np.arange(1, frames + 1)
    return np.minimum(np.arange(len(end_F))[:, None] + ahead_K, end_F[:, None])
