"""Settings of the whole suite. Must not import engram: the jaxtyping hook has to see its first import."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # plots go to files, with or without a display
if "ENGRAM_TEST_GPU" not in os.environ:  # bits are compared, which a GPU does not keep (tests/test_device.py)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tensors of the tests are too small to share; threads would only wait for one another

settings.register_profile("engram", deadline=None, derandomize=True)  # same cases everywhere, and no wall times
settings.load_profile("engram")
