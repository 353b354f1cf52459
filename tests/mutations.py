"""What careless and hostile hands do to files: bytes changed, something else in a file's place, and texts that are
right in form and wrong in what they say (of binary files: mutated_arrays.py). Each takes a source of random choices."""

from __future__ import annotations

import os
import random
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


def damaged(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """`content` with something done to its bytes, and what, in words."""
    held, at = bytearray(content), chance.randrange(len(content) + 1)
    size = chance.choice([1, 2, 4, 8, 16, 100])
    kind = chance.choice(["flip", "flip", "flip", "cut", "more", "zeros", "nothing", "repeat", "splice", "numbers",
                          "drop", "coding", "swap"])  # fmt: skip
    if kind == "flip" and at < len(held):
        held[at] ^= 1 << chance.randrange(8)
    elif kind == "zeros":
        held[at : at + 16] = bytes(len(held[at : at + 16]))
    elif kind == "cut":
        del held[at:]
    elif kind == "drop":
        del held[at : at + size]
    elif kind == "more":
        held += held[-chance.randrange(1, 100) :]
    elif kind == "nothing":
        held.clear()
    elif kind == "repeat":
        held[at:at] = held[at : at + size] * chance.choice([2, 10, 1000])
    elif kind == "splice":
        other = chance.randrange(len(held) + 1)
        held[at : at + size] = held[other : other + size]
    elif kind == "numbers":
        number = chance.choice([-1, 0, 2**31 - 1, 2**31, 2**62, 2**63 - 1])
        held[at : at + 8] = struct.pack(chance.choice(["<q", ">q"]), number)
    elif kind == "coding":
        text = content.decode("latin-1")
        held[:] = text.encode(chance.choice(CODINGS), "replace")
    elif kind == "swap":
        held[at : at + size] = bytes(chance.randrange(256) for _ in range(size))
    return bytes(held), f"{kind} at {at}"


def sparse(path: Path, chance: Chance) -> str:
    """A file made larger, than memory or less, by zeros that no disk has. -> what, in words."""
    size = chance.choice([1 << 28, 30 << 30, 500 << 30])
    os.truncate(path, size)
    return f"{path} of {size >> 30} GB"


def replaced(path: Path, chance: Chance, another: bytes, victim: Path) -> str:
    """Something else than a file, or another file, in the place of one. -> what, in words."""
    kind = chance.choice(
        ["gone", "directory", "link", "link to nothing", "hard link", "pipe", "device", "itself", "another"]
    )
    if kind != "another":
        path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind in ("link", "link to nothing"):
        path.symlink_to(victim if kind == "link" else victim.parent / "nothing")
    elif kind == "hard link":
        os.link(victim, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "itself":
        path.symlink_to(path)
    elif kind == "another":
        path.write_bytes(another)
    return kind


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
        row = chance.choice(rows)
        kind = chance.choice(["cell", "cell", "name", "column", "ragged", "quote", "wide", "long", "blank", "end"])
        if kind == "cell":
            row[chance.randrange(len(row))] = chance.choice(CELLS)
        elif kind == "name":
            rows[0][chance.randrange(len(rows[0]))] = chance.choice(NAMES)
        elif kind == "column":
            at = chance.randrange(len(rows[0]))
            for each in rows[1:]:
                each[min(at, len(each)) :][:1] = [chance.choice(CELLS)]
                if at < len(each):
                    each[at] = chance.choice(CELLS)
        elif kind == "ragged":
            row += ["1"] * chance.randint(1, 3)
        elif kind == "quote":
            row[-1] = '"' + row[-1]
        elif kind == "wide":
            for each in rows:
                each += ["1"] * chance.choice([100, 3000, 150_000])
        elif kind == "long":
            row[0] = "1" * chance.choice([10**5, 10**6])
        elif kind == "blank":
            rows.insert(chance.randrange(len(rows)), chance.choice([[""], [" "], [","], ["\0"]]))
        elif kind == "end":
            del rows[chance.randrange(1, len(rows) + 1) :]
            rows = rows or [["a"]]
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
    kind = chance.choice(["trick", "trick", "junk", "name", "top", "twice", "laughs", "damaged"])
    text = whole.decode()
    if kind == "trick":
        return f"{text}{name}: {chance.choice(tricks)}\n".encode(errors="surrogatepass")
    if kind == "junk":
        settings[name] = chance.choice([*JUNK, *NAMES])
    elif kind == "name":
        settings[chance.choice(NAMES)] = chance.choice([1, "x", None])
    elif kind == "top":
        return chance.choice(tricks).encode(errors="surrogatepass")
    elif kind == "twice":
        return f"{text}{text}".encode()
    elif kind == "laughs":
        lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'ha'}]" for n in range(12)]
        return "\n".join(lines).encode()
    else:
        return damaged(whole, chance)[0]
    return str(yaml.safe_dump(settings)).encode(errors="surrogatepass")
