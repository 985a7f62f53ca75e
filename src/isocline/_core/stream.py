r"""Counter-based random numbers: the value is a function, not the next item of a sequence.

A `Stream` is a key made of a seed and a name. Element ``e`` of sample ``b`` at step ``k`` is
``Philox4x32-10(key, counter=(e, b, k))`` (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so it does
not depend on what was drawn before, on the order of calls or on how a batch is split:

    stream.normal((8, 3))[4:]  ==  stream.normal((4, 3), first=4)      bit for bit

Uniforms have 32 random bits; normals are Box-Muller transforms of them in float64, rounded to the requested dtype, with
tails to 6.6 standard deviations.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


@dataclass(frozen=True)
class Stream:
    """A named, seeded source of random numbers without state.

    Args:
        seed: any integer.
        name: what the numbers are for; streams of different names are independent.

    Examples:
        >>> a = Stream(0).normal((4, 2))
        >>> b = torch.cat([Stream(0).normal((3, 2)), Stream(0).normal((1, 2), first=3)])
        >>> torch.equal(a, b)
        True
        >>> torch.equal(a, Stream(0, "other").normal((4, 2)))
        False
    """

    seed: int
    name: str = ""

    def child(self, name: str | int) -> Stream:
        """Return an independent stream whose name is this one's with `name` appended."""
        return Stream(self.seed, f"{self.name}/{name}")

    def bits(self, shape: tuple[int, ...], *, step: int = 0, first: int = 0) -> Tensor:
        """Return random 32-bit integers as int64, shape `shape`; the first axis counts samples from `first`."""
        shape = tuple(shape)
        require(len(shape) > 0 and min(shape) >= 0, f"a random draw needs a batch axis, got shape {shape}")
        batch, width = shape[0], math.prod(shape[1:])
        blocks = -(-width // 4)
        element = torch.arange(blocks).expand(batch, blocks)
        sample = torch.arange(first, first + batch).unsqueeze(1).expand(batch, blocks)
        words = _philox([element, sample, sample >> 32, torch.full_like(sample, step)], self._key())
        return torch.stack(words, dim=-1).reshape(batch, 4 * blocks)[:, :width].reshape(shape)

    def uniform(
        self, shape: tuple[int, ...], *, step: int = 0, first: int = 0, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return numbers uniform in the open interval (0, 1)."""
        unit = self._unit(shape, step, first).to(dtype or torch.get_default_dtype())
        limits = torch.finfo(unit.dtype)
        return unit.clamp_(limits.tiny, 1 - limits.eps / 2)  # rounding must not reach the ends

    def normal(
        self,
        shape: tuple[int, ...],
        *,
        step: int = 0,
        first: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return standard normal numbers of `shape` = (B, *); `step` selects the draw, `first` the first sample's index."""
        shape = tuple(shape)
        width = math.prod(shape[1:])
        even = width + width % 2
        unit = self._unit((*shape[:1], even), step, first)
        radius = torch.log(unit[:, 0::2].contiguous()).mul_(-2).sqrt_()
        angle = unit[:, 1::2].contiguous().mul_(2 * math.pi)
        pair = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
        out = pair.reshape(shape[0], even)[:, :width].reshape(shape)
        return out.to(device=device, dtype=dtype or torch.get_default_dtype())

    def rademacher(
        self, shape: tuple[int, ...], *, step: int = 0, first: int = 0, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return signs, each -1 or +1 with probability one half."""
        sign = (self.bits(shape, step=step, first=first) & 1) * 2 - 1
        return sign.to(dtype or torch.get_default_dtype())

    def integers(self, high: int, shape: tuple[int, ...], *, step: int = 0, first: int = 0) -> Tensor:
        """Return integers in ``[0, high)`` for ``high <= 2**31`` (the bias from 32 bits is below ``high / 2**32``)."""
        require(0 < high <= 2**31, f"high must be in 1..2**31, got {high}")
        return (self.bits(shape, step=step, first=first) * high) >> 32

    def permutation(self, n: int, *, step: int = 0) -> Tensor:
        """Return a random order of ``range(n)``."""
        return torch.argsort(self.bits((n, 1), step=step).flatten(), stable=True)

    def _unit(self, shape: tuple[int, ...], step: int, first: int) -> Tensor:
        return (self.bits(shape, step=step, first=first).double() + 0.5) / 2.0**32

    def _key(self) -> tuple[int, int]:
        digest = hashlib.sha256(f"{self.seed}:{self.name}".encode()).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def as_stream(rng: Stream | int | None, name: str = "") -> Stream:
    """Return `rng` as a stream: an int is a seed, ``None`` is refused so that no result depends on hidden state."""
    if isinstance(rng, int) and not isinstance(rng, bool):
        rng = Stream(rng)
    if isinstance(rng, Stream):
        return rng.child(name) if name else rng
    raise InvalidInput(f"rng must be a Stream or an int seed, got {rng!r}; pass rng=0 for example")


def _philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    c0, c1, c2, c3 = (c & _MASK for c in counter)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]
