r"""Normal numbers as a function of where they stand.

A word is ``mix(element ^ node)``, where ``mix`` is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014),

    x <- (x ^ x >> 30) * 0xBF58476D1CE4E5B9 ,    x <- (x ^ x >> 27) * 0x94D049BB133111EB ,    x <- x ^ x >> 31

of 64 bits, `element` a mixed word for each number of the state and `node` one for each node of the tree. Its halves are two
uniforms, and the Box-Muller transform makes two normals of them. It takes fewer operations than the generator of `Stream`, and
paths are asked for millions of numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isocline._core.stream import Stream

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
LOW = (1 << 32) - 1
Words = NDArray[np.uint64]


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant


ROUNDS = ((30, (1 << 34) - 1, _signed(FIRST)), (27, (1 << 37) - 1, _signed(SECOND)), (31, (1 << 33) - 1, None))


def mixed(x: Tensor, spare: Tensor) -> Tensor:
    """Return mixed words, int64, in place; `spare` is memory of the same shape."""
    for shift, mask, factor in ROUNDS:
        torch.bitwise_right_shift(x, shift, out=spare)  # signed words drag the sign along, which the mask takes away
        x.bitwise_xor_(spare.bitwise_and_(mask))
        if factor is not None:
            x.mul_(factor)
    return x


def node_words(key: int, cell: Any, node: Any) -> Words:
    """Return a word for each pair of a cell and a node of its tree, uint64 arrays of the same shape."""
    with np.errstate(over="ignore"):
        x = _mixed(np.asarray(cell, np.uint64) * np.uint64(GOLDEN) + np.uint64(key))
        return _mixed(x + np.asarray(node, np.uint64) * np.uint64(GOLDEN))


def _mixed(x: Words) -> Words:
    for shift, factor in ((30, FIRST), (27, SECOND)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def key_of(rng: Stream) -> int:
    """Return a word for a stream."""
    seed = [abs(rng.seed), int(rng.seed < 0), *rng.name.encode()]
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


def element_words(rows: int, width: int, *, first: int, device: torch.device) -> Tensor:
    """Return a word for each number of a state, int64 of shape (rows, width); rows are samples, counted from `first`."""
    sample = torch.arange(first + 1, first + 1 + rows, device=device)[:, None] * _signed(GOLDEN)
    words = mixed(sample, torch.empty_like(sample)) + torch.arange(1, 1 + width, device=device) * _signed(SECOND)
    return mixed(words, torch.empty_like(words))


def fill_normals(words: Tensor, first: Tensor, second: Tensor) -> None:
    """Write two independent standard normals for each of some mixed words.

    Args:
        words: int64, shape (*, n).
        first: takes a normal of each word, shape (*, n).
        second: takes another one of as many of them as it has places, shape (*, m) with m <= n.
    """
    half = torch.bitwise_right_shift(words, 32)
    radius = half.to(first.dtype).abs_().add_(0.5).log_().mul_(-2).add_(62 * math.log(2)).clamp_(min=0).sqrt_()
    angle = torch.bitwise_and(words, LOW, out=half).to(first.dtype).mul_(2 * math.pi * 2.0**-32)
    torch.mul(radius, angle.cos(), out=first)
    if second.numel():
        m = second.shape[-1]
        torch.mul(radius[..., :m], angle[..., :m].sin(), out=second)
