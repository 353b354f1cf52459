"""Random numbers are Philox's, and their format never changes: literals here are frozen."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.errors import ConfigError
from gpubp.maths import rng
from gpubp.maths.rng import DROPOUT, EVERYBODY, ORDER, ROUNDS, WORD

from .recorder import Tape

IDS = torch.tensor([0, 7, 123456])
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
KNOWN = [  # counter and key; the answer. Random123's kat_vectors, philox4x32 10
    ((0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """The definition, in whole numbers of Python."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        low, high = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (high >> 32) ^ c1 ^ k0, high & WORD, (low >> 32) ^ c3 ^ k1, low & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return [c0, c1, c2, c3]


def signed(word: int) -> int:
    """32 bits as an int32."""
    return (word + 2**31 & WORD) - 2**31


def permute(place: int, size: int, key: int) -> int:
    """The definition, in whole numbers of Python that wrap at 32 bits."""
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    while True:
        left, right = divmod(place, b)
        for number, constant in enumerate(ROUNDS):
            source, digit, radix = (right, left, a) if number % 2 == 0 else (left, right, b)
            hashed = signed(((key ^ constant) + source) * -1640531535)
            hashed = signed((hashed ^ hashed >> 15) * 739982445)
            moved = (digit + ((hashed >> 16 & 0xFFFF) * radix >> 16)) % radix
            left, right = (moved, source) if number % 2 == 0 else (source, moved)
        place = left * b + right
        if place < size:
            return place


def sample(seed: int, own: int, position: int, size: int) -> int:
    """Which sample stands at `position` of network `own`'s row of passes."""
    number, place = divmod(position, size)
    key = philox((number & WORD, number >> 32, 0, ORDER), (seed, own))[0]
    return permute(place, size, signed(key))


def key(number: int) -> Tensor:
    return torch.tensor(number, dtype=torch.int32)


def everything(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.int32)


@pytest.mark.parametrize(("given", "answer"), KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_known_answers(given: tuple[int, ...], answer: tuple[int, ...]) -> None:
    assert philox(given[:4], given[4:]) == list(answer)
    found = rng.philox(*(torch.tensor([number]) for number in given))
    assert tuple(int(word) for word in found) == answer


def test_words_are_philox_at_the_counters_of_the_format() -> None:
    step = torch.tensor([0, 5, 2**31])
    found = rng.words(42, IDS, 6, 3, DROPOUT, step)
    for row, own, when in zip(found.tolist(), IDS.tolist(), step.tolist()):
        assert row == [philox((i // 4, when, 3, DROPOUT), (42, own))[i % 4] for i in range(6)]
    assert found[:, :4].equal(rng.words(42, IDS, 4, 3, DROPOUT, step)), "a longer sequence starts like a shorter one"


def test_normal_numbers_never_change() -> None:
    """But for the last bits: another processor's log, cos and sin may round otherwise."""
    frozen = [
        ["0x1.10582d1613747p+1", "0x1.14a7e6993d690p+1", "-0x1.a211c09521ea7p-2"],
        ["-0x1.aa83233c725f2p-1", "0x1.d564cc69824c9p+0", "0x1.d6fbac51f095cp-1"],
        ["0x1.d9449b205198cp-1", "0x1.6c79df89519cep-1", "0x1.a554fa076a446p+0"],
    ]
    for row, own in zip(rng.normal(42, IDS, 3, 1).tolist(), frozen):
        assert row == pytest.approx([float.fromhex(number) for number in own], rel=1e-14)


def test_the_ends_of_uniform_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (0, WORD):
        monkeypatch.setattr(rng, "words", lambda *_, word=word: torch.full((1, 2), word))
        assert 0 < rng.uniform(0, IDS[:1], 2, 0).min() <= rng.uniform(0, IDS[:1], 2, 0).max() < 1
        assert rng.normal(0, IDS[:1], 2, 0).isfinite().all()


def test_uniform_and_normal_have_the_moments_of_their_names() -> None:
    uniform, normal = (draw(1, torch.arange(50), 4000, 0) for draw in (rng.uniform, rng.normal))
    count = uniform.numel()
    for power, moment in ((1, 1 / 2), (2, 1 / 3), (3, 1 / 4), (4, 1 / 5)):
        assert uniform.pow(power).mean().item() == pytest.approx(moment, abs=5 / math.sqrt(12 * count))
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert normal.pow(power).mean().item() == pytest.approx(moment, abs=5 * math.sqrt(variance / count))


@pytest.mark.parametrize(
    ("size", "number"),
    [(10, 0), (13, -5), (1, 9), (300, 123456789), *((size, -size) for size in (4_096, 65_537, 1_000_003)),
     pytest.param(4_194_305, 5, marks=pytest.mark.slow)],
)  # fmt: skip
def test_permutations_are_those_of_the_format_and_have_every_place_once(size: int, number: int) -> None:
    found = rng.permute(everything(size), size, key(number))
    assert found.sort()[0].equal(everything(size))
    assert found[:300].tolist() == [permute(place, size, number) for place in range(min(size, 300))]


def test_a_permutation_of_any_size_has_every_place_once() -> None:
    for size in range(1, 301):
        assert rng.permute(everything(size), size, key(77 * size)).sort()[0].equal(everything(size)), size


def test_the_largest_permutation_keeps_within_32_bits() -> None:
    for size in (rng.LARGEST - 1, 2**29 + 1):
        place = everything(300) * (size // 300)
        found = rng.permute(place, size, key(5)).tolist()
        assert found == [permute(each, size, 5) for each in place.tolist()]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 10])
def test_every_place_is_equally_likely(size: int) -> None:
    """Chi-square of where each sample goes over 20,000 keys; its 99.99 % quantile by Wilson and Hilferty, 1931."""
    keys = rng.philox(torch.arange(20_000), torch.tensor(0), 0, ORDER, 3, 4)[0].int()[:, None]
    found = rng.permute(everything(size)[None].expand(20_000, -1), size, keys)
    counts = torch.stack([(found == place).sum(0) for place in range(size)]).double()
    expected = 20_000 / size
    chi, free = ((counts - expected) ** 2 / expected).sum().item(), (size - 1) ** 2
    assert chi < free * (1 - 2 / (9 * free) + 3.72 * math.sqrt(2 / (9 * free))) ** 3


@pytest.mark.parametrize("start", [0, 3, 2**31 - 7, 2**31 + 11, 2**40 + 1, 2**62 - 1000])
def test_samples_are_those_of_the_format_however_late(start: int) -> None:
    """Of equal sizes, one for all, and others; without shuffling in order."""
    first = torch.tensor([start, start + 5, start + 100])
    for given in (1, 5, 10, 33, torch.tensor([10, 10, 10]), torch.tensor([1, 7, 300])):
        shuffled, plain = (rng.samples(42, IDS, first, 40, given, each).tolist() for each in (True, False))
        sizes = [given] * 3 if isinstance(given, int) else given.tolist()
        for row, in_order, own, begin, size in zip(shuffled, plain, IDS.tolist(), first.tolist(), sizes):
            assert row == [sample(42, own, begin + j, size) for j in range(40)]
            assert in_order == [(begin + j) % size for j in range(40)]


SIZES = [1, 2, 3, 5, 26, 97, 100, 101, 1025, 65_537]


@pytest.mark.parametrize("size", SIZES)
def test_nothing_has_to_be_read_back_for_the_same_samples(size: int) -> None:
    first = torch.tensor([0, size - 1, 2**33 + 5])
    for count in (1, 32, 3 * min(size, 2000) + 1):
        expected = rng.samples(3, IDS, first, count, size, True)
        with Tape():  # refuses what waits
            found = rng.samples(3, IDS, first, count, size, True, (size, size))
        assert found.equal(expected)
        assert rng.samples(3, IDS, first[1:2], count, size, True, (size, size)).equal(
            rng.samples(3, IDS, first[1:2], count, size, True)
        )


def test_different_sizes_need_no_reading_back() -> None:
    ids, sizes = torch.arange(300), torch.arange(300) % 103 + 1
    first = torch.arange(300) * 37
    for count, shuffle in itertools.product((1, 20), (True, False)):
        expected = rng.samples(3, ids, first, count, sizes, shuffle)
        with Tape():
            found = rng.samples(3, ids, first, count, sizes, shuffle, (1, 103))
        assert found.equal(expected)


def test_the_longest_way_in_passes_every_place_outside() -> None:
    size, count = 26, 4
    keys = torch.arange(-20_000, 20_000, dtype=torch.int32)
    walks, place = torch.zeros(len(keys), dtype=torch.int64), torch.full((len(keys),), size, dtype=torch.int32)
    for _ in range(count):
        walks += place >= size
        place = torch.where(place >= size, rng._walk(place, keys, 6, 5), place)
    inside = place < size  # a circle outside is reached from nowhere
    assert walks[inside].max() == count
    assert rng._ways_in(size, keys[:, None], count)[inside, 0, 0].equal(place[inside])


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "7", None])
def test_a_seed_that_is_no_32_bit_number_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="whole number from 0 to 4294967295"):
        rng.check_seed(seed)


def test_no_network_may_have_the_id_of_the_shared_order() -> None:
    with pytest.raises(ConfigError, match="from 0 to 4294967294"):
        gpubp.Population.create(gpubp.NetworkSpec((2, 2)), ids=[EVERYBODY])


def test_numbers_are_on_their_counters_device_whatever_is_the_default() -> None:
    place, key = torch.arange(5, dtype=torch.int32), torch.zeros(5, dtype=torch.int32)
    expected = rng.permute(place, 5, key)
    with torch.device("meta"):
        assert torch.equal(rng.permute(place, 5, key), expected)
