"""Randomness as a value: numbers that are a function of integer keys, and of nothing else.

A key is any int64; a tensor of keys gives every key its own numbers, the same in any batch and on any device (`normal`
to the last bits of the device's logarithm and cosine). There is no generator to seed, to save or to share between rows.
One key is for one draw: `mix` makes as many keys of one as are wanted, `mix(key, 0)`, `mix(key, 1)`, ...

The arithmetic is SplitMix64 (Steele, Lea and Flood 2014): number i of a key is output i of the generator whose state is
the scrambled key. int64 wraps around as uint64 does; only its right shift has to be told to fill with zeros.
Everything runs where the keys are, without a wait for the device.
"""

import math

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


def _signed(word: int) -> int:
    """The int64 with the bits of a uint64."""
    return word - (word >> 63 << 64)


GAMMA = _signed(0x9E3779B97F4A7C15)  # odd, 2^64 over the golden ratio
ROUNDS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def mix(key: Int64[Tensor, "..."], *more: Int64[Tensor, "..."] | int) -> Int64[Tensor, "..."]:
    """One key of several, int64, broadcast against each other; their order matters.

    With all others fixed, different values of any one of them never give the same key.
    """
    mixed = _scramble(GAMMA * key + GAMMA)
    for other in more:
        mixed = _scramble(mixed + GAMMA * torch.as_tensor(other) + GAMMA)
    return mixed


def uniform(key: Int64[Tensor, "..."], *shape: int) -> Float32[Tensor, "..."]:
    """Numbers in [0, 1), float32, multiples of 2^-24; of shape (*key.shape, *shape)."""
    return _shifted(_words(key, shape), 40).float() * 2.0**-24


def integers(key: Int64[Tensor, "..."], high: int, *shape: int) -> Int64[Tensor, "..."]:
    """Whole numbers 0 .. high-1, int64, of shape (*key.shape, *shape); unequal in probability by high / 2^32 at most.

    ValueError unless 1 <= high <= 2^31.
    """
    if not 1 <= high <= 2**31:
        raise ValueError(f"high: expected 1 to 2^31, found {high}; the numbers drawn are below it")
    return _shifted(_words(key, shape), 32) * high >> 32


def normal(key: Int64[Tensor, "..."], *shape: int) -> Float32[Tensor, "..."]:
    """Standard normal numbers, float32, of shape (*key.shape, *shape); none is beyond 6.8.

    Box and Muller's cosine: one half of a word's bits gives the radius, the other half the angle.
    """
    word = _words(key, shape)
    radius = (-2 * ((_shifted(word, 32) + 0.5) * 2.0**-32).log()).sqrt()
    return radius * ((word & 0xFFFFFFFF) * (2 * math.pi * 2.0**-32)).cos()


def _words(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """64 random bits for each place of `shape`, of each key."""
    place = torch.arange(math.prod(shape), device=key.device).view(shape)
    return mix(key.view(*key.shape, *(1 for _ in shape)), place)


def _scramble(word: Tensor) -> Tensor:
    """A bijection of 64 bits after which every bit depends on all bits."""
    for shift, factor in ROUNDS:
        word = (word ^ _shifted(word, shift)) * factor
    return word ^ _shifted(word, 31)


def _shifted(word: Tensor, by: int) -> Tensor:
    """Right shift that fills with zeros: int64's own repeats the sign."""
    return word >> by & (1 << 64 - by) - 1
