"""Random numbers as pure functions, nothing stored: Philox4x32-10, and permutations computed on the fly.

The format never changes (docs/formats.md): Philox key (seed, network id), counter (index, step, layer, stream).
Word i of a sequence is word i % 4 of counter index i // 4. Words are int64 tensors that hold 32 bits, so that all
torch devices compute the same ones.

Philox: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11. Permutation: a Feistel network
on a mixed radix with cycle walking; cf. Mitchell, Stokes, Frank, Holmes, "Bandwidth-Optimal Random Shuffling for GPUs",
2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, Int32, Int64
from torch import Tensor

from ..errors import ConfigError
from ..system import arrays

Words = Any  # tensors or NumPy's arrays of integers, or a number
COUNTED = ("cpu",)  # types of devices whose memory NumPy can use
FEW = 1 << 17  # up to this many numbers, one thread is faster than several
WORD = 0xFFFFFFFF
WEIGHTS, ORDER, DROPOUT, SEARCH = range(4)  # the streams
EVERYBODY = WORD  # the id whose order shuffle="shared" uses; no network can have it


def check_seed(seed: object) -> int:
    """`seed` as an int of 32 bits; raises ConfigError for anything else."""
    number = arrays.whole(seed)
    if number is None or not 0 <= number <= WORD:
        raise ConfigError(f"seed {seed!r}: a whole number from 0 to {WORD} expected")
    return number


def counted(name: str, given: object, least: int = 1) -> int:
    """A whole number of `least` or more, of things with ids; raises ConfigError for anything else."""
    number = arrays.count(name, given, least)
    if number > EVERYBODY:
        raise ConfigError(f"{name} {number}: at most {EVERYBODY:,} expected")
    return number


def philox(
    index: Tensor, step: Tensor, layer: Tensor | int, stream: Tensor | int, seed: Tensor | int, ids: Tensor | int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words for every counter (index, step, layer, stream) with key (seed, ids). All broadcast; int64 of 32
    bits."""
    counter = (each if isinstance(each, Tensor) else torch.tensor(each, device="cpu") for each in (step, layer, stream))
    four: tuple[Tensor, Tensor, Tensor, Tensor] = _fast(_philox, index, *counter, seed, ids)
    return four


def _fast(compute: Callable[..., Any], *given: Any) -> Any:
    """compute(*given); for few numbers on a CPU with arrays instead of tensors: for integers NumPy, in one thread,
    takes a third to two thirds of torch's time."""
    shapes = [each.shape for each in given if isinstance(each, Tensor)]
    if given[0].device.type not in COUNTED or math.prod(np.broadcast_shapes(*shapes)) > FEW:
        return compute(*given)
    with np.errstate(over="ignore"):  # single numbers wrap as arrays do
        found = compute(*(each.numpy() if isinstance(each, Tensor) else each for each in given))
    return tuple(map(_tensor, found)) if isinstance(found, tuple) else _tensor(found)


def _tensor(array: Any) -> Any:
    return torch.from_numpy(np.asarray(array))  # even if another device is the default


def _philox(c0: Words, c1: Words, c2: Words, c3: Words, k0: Words, k1: Words) -> tuple[Words, ...]:
    for _ in range(10):
        even, odd = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps at 64 bits; both halves stay right
        c0, c1, c2, c3 = (odd >> 32) & WORD ^ c1 ^ k0, odd & WORD, (even >> 32) & WORD ^ c3 ^ k1, even & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def words(
    seed: int, ids: Int64[Tensor, "N"], count: int, layer: int, stream: int, step: Int64[Tensor, "N"] | None = None
) -> Int64[Tensor, "N count"]:
    """The first `count` words of each network's sequence at (step, layer, stream); step 0 by default."""
    index = torch.arange(-(-count // 4), device=ids.device)
    when = torch.zeros_like(ids) if step is None else step
    four = philox(index, when[:, None], torch.full_like(index, layer), stream, seed, ids[:, None])
    return torch.stack(four, -1).flatten(1)[:, :count]


def uniform(
    seed: int, ids: Int64[Tensor, "N"], count: int, layer: int, stream: int = WEIGHTS
) -> Float64[Tensor, "N count"]:
    """Uniform numbers in (0, 1), ends excluded: (word + 1/2) / 2^32."""
    return (words(seed, ids, count, layer, stream).double() + 0.5) * 2.0**-32


def normal(
    seed: int, ids: Int64[Tensor, "N"], count: int, layer: int, stream: int = WEIGHTS
) -> Float64[Tensor, "N count"]:
    """Standard normal numbers, two from each pair of words (Box and Muller, 1958). Compute them on a CPU: log, cos and
    sin of other devices may differ in the last bit."""
    first, second = uniform(seed, ids, count + count % 2, layer, stream).unflatten(1, (-1, 2)).unbind(2)
    radius, angle = torch.sqrt(-2 * torch.log(first)), 2 * math.pi * second
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), 2).flatten(1)[:, :count]


# One constant per round of the permutation, part of the format. Twelve rounds for every size: in a chi-square test of
# the distance of neighbours over 40,000 keys, four rounds fail up to size 150, six up to 12, twelve never from 5 to
# 1437.
ROUNDS = (
    0x3C6EF372, -0x255992AB, 0x1B873593, -0x52DCE729, 0x27D4EB2F, -0x7A143589,
    0x165667B1, -0x3D4D51CB, 0x5BD1E995, 0x2545F491, 0x01234567, 0x7FEB352D,
)  # fmt: skip
AT_ONCE, EACH = 1 << 22, 64  # places that a GPU walks from at once, and bytes for each
LARGEST = 1 << 30  # a digit is moved by 16 bits of a hash, so both radices stay below 2^16


def permute(
    place: Int32[Tensor, "..."], size: Int32[Tensor, "..."] | int, key: Int32[Tensor, "..."]
) -> Int32[Tensor, "..."]:
    """The image of each `place`, in range(size), under the permutation of range(size) drawn from `key`.

    The shapes broadcast; all int32, wrapping. A place has two digits, left * b + right, of radix
    a = ceil(sqrt(size)) and b = ceil(size / a); every round shifts one digit by a hash of the other. A result
    outside range(size) is walked again until it is inside, 1.0 to 1.3 walks on average.
    """
    a, b = _radices(size)
    value: Tensor = _fast(_walk, place, key, a, b)
    outside = value >= size
    while outside.any():
        at = outside.nonzero(as_tuple=True)
        again = (t if isinstance(t, int) else t.expand(value.shape)[at] for t in (key, a, b))
        value[at] = _fast(_walk, value[at], *again)
        outside = value >= size
    return value


def _radices(size: Tensor | int) -> tuple[Tensor | int, Tensor | int]:
    if isinstance(size, int):
        a = math.isqrt(size - 1) + 1
        return a, -(-size // a)
    root = torch.ceil(torch.sqrt(size.double())).int()
    return root, torch.div(size + root - 1, root, rounding_mode="floor")


def _walk(value: Words, key: Words, a: Words, b: Words) -> Any:
    left = value // b
    right = value - left * b
    for number, constant in enumerate(ROUNDS):
        source, digit, radix = (right, left, a) if number % 2 == 0 else (left, right, b)
        hashed = (key ^ constant) + source
        hashed *= -1640531535
        hashed ^= hashed >> 15
        hashed *= 739982445
        hashed >>= 16
        hashed &= 0xFFFF
        hashed *= radix
        hashed >>= 16
        hashed += digit
        hashed -= radix
        hashed += (hashed >> 31) & radix  # modulo the radix
        left, right = (hashed, source) if number % 2 == 0 else (source, hashed)
    return left * b + right


def _ways_in(size: Tensor | int, key: Tensor, count: int) -> Tensor:
    """Where walks from each of the `count` places beyond `size` first come inside, (N, P, count); size (N, 1), keys
    (N, P).

    Pointer doubling: all places walk once; then each takes the result of the place where it is. That doubles the
    length of every walk, until the longest possible one, through all places outside, has come inside.
    """
    size, a, b = (t if isinstance(t, int) else t[..., None] for t in (size, *_radices(size)))
    place = torch.arange(count, dtype=torch.int32, device=key.device)
    value: Tensor = _walk((place + size).expand(*key.shape, count), key[..., None], a, b)
    for _ in range((count - 1).bit_length()):
        met = torch.clamp(value - size, 0, count - 1).long()
        value = torch.where(value < size, value, value.gather(-1, met))
    return value


def samples(
    seed: int,
    ids: Int64[Tensor, "#N"],
    first: Int64[Tensor, "#N"],
    count: int,
    size: Int64[Tensor, "#N"] | int,
    shuffle: bool,
    bounds: tuple[int, int] | None = None,
) -> Int[Tensor, "#N count"]:
    """The samples at the positions first .. first + count of each network's endless sequence of passes.

    Position p is in pass p // size; every pass is one permutation of range(size), so every sample is used equally
    often. The key of a pass is Philox word 0 at counter (pass mod 2^32, pass // 2^32, 0, ORDER). An int `size` is
    the same for all networks, which saves a division per position.

    bounds: the smallest and the largest size, for a GPU: with them nothing is read back, so the host never waits;
    instead, the ways in from all places outside are computed, needed or not: walks() places.
    """
    sizes = size if isinstance(size, int) else size.int()[:, None]
    start = torch.div(first, size, rounding_mode="floor")
    place = (first - start * size).int()[:, None] + torch.arange(count, dtype=torch.int32, device=first.device)
    ahead = torch.div(place, sizes, rounding_mode="floor")  # passes after the one with `first`
    place -= ahead * sizes
    if not shuffle:
        return place
    begun = int(ahead.max()) + 1 if bounds is None else _passes(count, bounds)
    passes = start[:, None] + torch.arange(begun, device=first.device)
    keys = philox(passes & WORD, passes >> 32, torch.zeros_like(passes), ORDER, seed, ids[:, None])[0]
    keys = (keys - ((keys >> 31) << 32)).int()
    at = None if begun == 1 else ahead.long().expand(len(keys), -1)
    key = keys if at is None else keys.gather(1, at)
    if bounds is None:
        return permute(place, sizes, key)
    a, b = _radices(sizes)
    value: Tensor = _walk(place, key, a, b)
    beyond = _beyond(bounds)
    if not beyond:
        return value
    ways_in = _ways_in(sizes, keys, beyond).flatten(1)
    met = torch.clamp(value - sizes, 0, beyond - 1).long()
    return torch.where(value < sizes, value, ways_in.gather(1, met if at is None else at * beyond + met))


def walks(count: int, bounds: tuple[int, int]) -> int:
    """The number of places per network that samples() walks from, for `count` positions."""
    return count + _passes(count, bounds) * _beyond(bounds)


def _passes(count: int, bounds: tuple[int, int]) -> int:
    """Passes that `count` positions touch at most."""
    return (count + bounds[0] - 2) // bounds[0] + 1


def _beyond(bounds: tuple[int, int]) -> int:
    """Places outside range(size), at most."""
    smallest, largest = bounds
    if smallest < largest:
        return math.isqrt(largest - 1)
    a, b = _radices(largest)
    return int(a * b - largest)
