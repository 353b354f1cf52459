"""What careless and hostile hands do to files: bytes changed, something else in a file's place, and texts that are
right in form and wrong in what they say (of binary files: mutated_arrays.py). Each takes a source of random choices."""

import os
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Chance = random.Random
Make = Callable[[Chance, bytes], bytes]

JUNK: tuple[Any, ...] = (None, True, -1, 1e308, float("nan"), 10**30, "x", [], {}, [[]], {"tensor": "ids"})
NAMES = (
    "=cmd|' /C calc'!A0", "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "../../../etc/passwd",
    "\x1b[2J\x1b]0;title\x07", "\u202egnp.exe", "a\u200bb\ufeff\u3164", "nul\0", "two\nlines\r", "{0}%s$(id)`id`;#", "",
    " ", "x" * 3000, "\ud800", "constructor", "__proto__", "'", "\\", "y", "a", "status", "steps", "id", "network",
    "loss",
)  # fmt: skip
CELLS = (*NAMES[:10], "nan", "inf", "-inf", "1e999", "9" * 5000, "1e-999", "0x10", "1_0", "٣", "", "−1", "1,5", "NULL",
         "true", "2024-01-01", "9007199254740993", "-0")  # fmt: skip
CODINGS = ("utf-8-sig", "utf-16", "utf-32", "utf-7", "latin-1", "cp037")


def planted(text: str) -> tuple[str, ...]:
    """What stands in a source, and with a mistake: they differ at each [[right ~> wrong]] of `text`."""
    return tuple(re.sub(r"\[\[(.*?) ~> (.*?)\]\]", rf"\{side}", text) for side in (1, 2))


def damaged(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """`content` with something done to its bytes, and what, in words."""
    at, other, size = *(chance.randrange(len(content) + 1) for _ in range(2)), chance.choice([1, 2, 4, 8, 16, 100])
    before, piece, after = content[:at], content[at : at + size], content[at + size :]
    number = chance.choice([-1, 0, 2**31 - 1, 2**31, 2**62, 2**63 - 1])
    ways = {
        "flip": before + bytes(each ^ 1 << chance.randrange(8) for each in piece[:1]) + content[at + 1 :],
        "zeros": before + bytes(len(content[at : at + 16])) + content[at + 16 :],
        "cut": before,
        "drop": before + after,
        "more": content + content[-chance.randrange(1, 100) :],
        "nothing": b"",
        "repeat": before + piece * chance.choice([3, 11, 1001]) + after,
        "splice": before + content[other : other + size] + after,
        "numbers": before + struct.pack(chance.choice(["<q", ">q"]), number) + content[at + 8 :],
        "coding": content.decode("latin-1").encode(chance.choice(CODINGS), "replace"),
        "swap": before + bytes(chance.randrange(256) for _ in range(size)) + after,
    }
    kind = chance.choice(["flip", "flip", *ways])
    return ways[kind], f"{kind} at {at}"


def sparse(path: Path, chance: Chance) -> str:
    """A file made larger, than memory or less, by zeros that no disk has. -> what, in words."""
    size = chance.choice([1 << 28, 30 << 30, 500 << 30])
    os.truncate(path, size)
    return f"{path} of {size >> 30} GB"


def replaced(path: Path, chance: Chance, another: bytes, victim: Path) -> str:
    """Something else than a file, or another file, in the place of one. -> what, in words."""
    path.unlink()
    kind, make = chance.choice([
        ("gone", lambda: None), ("directory", path.mkdir), ("link", lambda: path.symlink_to(victim)),
        ("link to nothing", lambda: path.symlink_to(victim.parent / "nothing")),
        ("hard link", lambda: os.link(victim, path)), ("pipe", lambda: os.mkfifo(path)),
        ("device", lambda: path.symlink_to("/dev/zero")), ("itself", lambda: path.symlink_to(path)),
        ("another", lambda: path.write_bytes(another)),
    ])  # fmt: skip
    make()
    return str(kind)


def elsewhere(found: Any, chance: Chance) -> tuple[Any, str]:
    """JSON with something else, or nothing, at one place, and what, in words."""
    at, trail = found, [chance.choice(sorted(found))]
    while isinstance(at[trail[-1]], (dict, list)) and at[trail[-1]] and chance.random() < 0.8:
        at = at[trail[-1]]
        trail.append(chance.choice(sorted(at) if isinstance(at, dict) else range(len(at))))
    before, junk = at[trail[-1]], chance.choice([*JUNK, *NAMES, -(2**63), 2**62, 1e-320, "9" * 5000])
    if chance.random() < 0.2:
        del at[trail[-1]]
    else:
        at[trail[-1]] = junk
    return found, f"{trail}: {before!r} becomes {junk!r}, or nothing"


def csv(chance: Chance, whole: bytes) -> bytes:
    """Other names and cells, ragged rows, quotation marks that never end, many columns, one row of megabytes."""
    rows = [line.split(",") for line in whole.decode().splitlines()]
    for _ in range(chance.randint(1, 3)):
        row, at, cell = chance.choice(rows), chance.randrange(len(rows[0])), chance.choice(CELLS)
        kind = chance.choice(["cell", "cell", "name", "column", "ragged", "quote", "wide", "long", "blank", "end"])
        if kind == "cell":
            row[chance.randrange(len(row))] = cell
        elif kind == "name":
            rows[0][at] = chance.choice(NAMES)
        elif kind == "column":
            for each in rows[1:]:
                each[at : at + 1] = [chance.choice(CELLS)]
        elif kind in ("ragged", "wide"):
            for each in rows if kind == "wide" else [row]:
                each += ["1"] * chance.choice([100, 3000, 150_000] if kind == "wide" else [1, 2, 3])
        elif kind in ("quote", "long"):
            row[-1] = '"' + row[-1] if kind == "quote" else "1" * chance.choice([10**5, 10**6])
        elif kind == "blank":
            rows.insert(chance.randrange(len(rows)), chance.choice([[""], [" "], [","], ["\0"]]))
        else:
            del rows[chance.randrange(1, len(rows) + 1) :]
    end, coding = chance.choice(["\n", "\n", "\r\n", "\r", "\x0b"]), chance.choice(["utf-8", "utf-8", *CODINGS])
    return end.join(chance.choice([",", ",", ";", "\t"]).join(row) for row in rows).encode(coding, "backslashreplace")


def yaml_file(chance: Chance, whole: bytes) -> bytes:
    """Tags, anchors, nests, names of other types, other values."""
    settings, tricks = yaml.safe_load(whole), [
        "!!python/object/apply:os.mkdir [executed]", "!!python/name:os.system", "!!binary aGFsbG8=", "&a [*a]",
        "&a {b: *a}", "*nobody", "[" * 3000, "{a: " * 3000, "- " * 3000, "? " * 3000, "'" + "\\x00" * 10, '"\\0"',
        "1e9999", "9" * 5000, "0b" + "1" * 5000, "1:" * 50 + "1", "2024-99-99", "!!timestamp x", "!!set {a, b}",
        "!!omap [a: 1]", "<<: {networks: 3}", "|\n" + " x\n" * 50, "!!float x", "!!int ''", "~", "config.yaml",
        "{config: config.yaml}", "!!str 3", "${HOME}", "$(id)", '"\\ud800"', "\x85", "\u2028",
        "%TAG ! tag:x\n---\n3", "--- 3\n--- 4", "=", "0o17",
    ]  # fmt: skip
    others = "config", "print_config", "subcommand", "train", "class_path", "\u202e"
    name = chance.choice([*settings, *others, "networks", "shards", "cluster", "slots"])
    laughs = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'ha'}]" for n in range(12)]
    trick, text = chance.choice(tricks), whole.decode()
    ways: list[Callable[[], str | bytes]] = [
        lambda: f"{text}{name}: {trick}\n",
        lambda: f"{text}{name}: {trick}\n",
        lambda: trick,
        lambda: text + text,
        lambda: "\n".join(laughs),
        lambda: yaml.safe_dump(settings | {name: chance.choice([*JUNK, *NAMES])}),
        lambda: yaml.safe_dump(settings | {chance.choice(NAMES): chance.choice([1, "x", None])}),
        lambda: damaged(whole, chance)[0],
    ]
    made = chance.choice(ways)()
    return made if isinstance(made, bytes) else made.encode(errors="surrogatepass")
