"""What the sources of kernel/ are compiled for, as C++ constants and structures, from Key, Layout and Plan."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import torch

from ..maths.spec import BIASES
from .key import TASKS
from .plan import WAYS, Plan
from .stream import DEPTH, STAGES, Shape

REALS = {torch.float32: "float", torch.float64: "double"}
SWITCHES = ("l1", "l2", "clip_value", "clip_norm", "dropout", "label_smoothing")  # each has a HYPER_ in the kernel
SHUFFLES = ("none", "network", "shared")
METRICS = ("r2", "classes", "sign")
SIZES = ("LAYERS", "BATCH", "CHUNK", "P", "PADDED_P", "MAX_PITCH", "MEMORY_ENTRIES", "R2_PARTIAL_SUMS", "SUMS")


def constants(plan: Plan) -> list[str]:
    """All constants, with a comment each."""
    macros = [f"#define {name} {value}  // {what}" for name, value, what in _macros(plan)]
    if plan.layout.general:
        return [*macros, *_general(plan)]
    layers = [f"constexpr int {name}[] = {{{', '.join(map(str, of))}}};  // {what}" for name, of, what in _layers(plan)]
    return [*macros, *_numbers(_settings(plan)), *layers, *_numbers(_sizes(plan)), *tiles(plan)]


def _numbers(named: Iterable[tuple[str, int, str]]) -> list[str]:
    return [f"constexpr int {name} = {int(value)};  // {what}" for name, value, what in named]


def shape(plan: Plan) -> list[int]:
    """What a call gives a general kernel: the numbers SIZES, where Memory's arrays begin, and _by_layer()."""
    known = {name: int(value) for name, value, _ in (*_settings(plan), *_sizes(plan))}
    ends = accumulate(plan.layout.aligned(each.numbers) for each in plan.arrays)
    layers = [number for _, of, _ in _by_layer(plan) for number in (*of, *[0] * (len(plan.widths) - len(of)))]
    return [*(known.get(name, 0) for name in SIZES), 0, *[*ends][:-1], *layers]


def _general(plan: Plan) -> list[str]:
    """The numbers of a general kernel, and the places of the others in a call's shape()."""
    numbers = [*_settings(plan), *_sizes(plan)]
    known, begin = {name: what for name, _, what in numbers}, len(SIZES) + len(plan.arrays)
    return [
        *_numbers(each for each in numbers if each[0] not in (*SIZES, "GROUP_BYTES")),
        "#include <cstdint>",
        "static thread_local const int32_t *shape;  // Job.shape, of the call that this thread is in",
        *(f"#define {name} (shape[{at}])  // {known.get(name, 'of evaluations')}" for at, name in enumerate(SIZES)),
        *(
            f"#define {name} (shape + {begin} + {at} * (LAYERS + 1))  // {what}"
            for at, (name, _, what) in enumerate(_by_layer(plan))
        ),
    ]


def _by_layer(plan: Plan) -> list[tuple[str, Sequence[int], str]]:
    given = plan.key.spec.activations
    which = [[*dict.fromkeys(given)].index(each) for each in given]
    return [*_layers(plan), ("ACTIVATION", which, "which of the different ones each layer has")]


def tiles(plan: Plan) -> list[str]:
    """Which parts of products are computed at once."""
    text = []
    each = "Of each product (m, k) @ (k, n), n counted in v: rows and columns that a thread computes at once."
    block = "Rows and columns that a whole block computes at once. TILES has the thread's part of (rows, cols, DEPTH)."
    tables: dict[str, tuple[str, Mapping[Shape, tuple[int, ...]]]] = {"TILES": (each, plan.tiles)}
    if plan.layout.streamed:
        tables["BLOCK_TILES"] = block, plan.block_tiles
    for name, (what, found) in tables.items():
        rows = [f"    {{{', '.join(map(str, (*shape, *tile[:2])))}}}," for shape, tile in found.items()]
        text += [f"// {what}", f"constexpr struct {{ int m, n, k, rows, cols; }} {name}[] = {{", *rows, "};"]
    return text


def structs(plan: Plan) -> list[str]:
    """Memory, one array after another, and Group."""
    at = {"base": 0, "far": 0}
    memory: list[str] = []
    group = []
    for name, numbers, what, place in plan.arrays:
        where = "far" if place == "global" else "base"
        place = f"shape[{len(SIZES) + len(memory)}]" if plan.layout.general else str(at[where])
        memory.append(f"  entry *{name} = {where} + {place};  // {what}")
        at[where] += plan.layout.aligned(numbers)
    for kind, name, dims, what in plan.group:
        if plan.layout.general and name in ("index", "sums"):  # after Group: each call sets their lengths
            name, dims = f"(*{name})", dims[1:]
        group.append(f"  {kind} {name}{''.join(f'[{size}]' for size in dims)};  // {what}")
    return [
        "struct Memory {",
        "  entry *base, *far;  // far: in a GPU's global memory. An array that is not used has the place of the next",
        *memory,
        "};",
        "struct alignas(64) Group {  // hyper, network_slots: + 1, as in Job, for C++ has no empty arrays",
        *group,
        "};",
    ]


def _macros(plan: Plan) -> list[tuple[str, object, str]]:
    """Macros that decide which code the compiler sees."""
    layout = plan.layout
    gpu = [
        (
            "THREADS",
            layout.threads,
            "of a team, which trains a network together; of a block, in GPU_THREAD and where a team is blocks",
        ),
        ("TEAMS_PER_BLOCK", layout.teams, "with a network each; 1 in GPU_THREAD"),
        ("BLOCKS_PER_TEAM", layout.blocks, "a cluster, which trains a network together; 1 unless GPU_STREAMED"),
        ("BLOCKS_AT_ONCE", layout.at_once, "of a multiprocessor, which registers must suffice for; 0: none"),
    ]
    return [
        *((name.upper(), number, "a TASK") for number, name in enumerate(TASKS)),
        ("TASK", TASKS.index(plan.key.task), "TRAIN or EVALUATE"),
        ("LAYOUT", layout.kind.name, "of the table in machine.h"),
        ("REAL", REALS[plan.key.dtype], "the type of parameters, samples and all that is computed from them"),
        ("VECTOR", layout.vector, "numbers in a register"),
        ("REGISTERS_PER_V", layout.registers, "registers that make a v"),
        ("TF32", layout.tf32, "products of tensor cores that make one of float32; 0: none, products are exact"),
        ("GENERAL", int(layout.general), "whether sizes are those of a call, not constants"),
        ("SLOTS_APART", int(layout.slots_apart), "whether slots are in global memory, and params in shared memory"),
        *(gpu if layout.threads else []),
    ]


def _settings(plan: Plan) -> list[tuple[str, int, str]]:
    """Constants of the network, its training and its samples."""
    key, needs, spec, rule, samples = plan.key, plan.needs, plan.key.spec, plan.key.recipe.rule, plan.key.samples
    hyper = {name: number for number, name in enumerate(needs.hyper)}
    return [
        ("LAYERS", len(spec.widths) - 1, "with weights"),
        ("BATCH", plan.batch, "samples of a step"),
        ("CHUNK", plan.chunk, "samples of a batch that go through the network at once"),
        ("BIAS_KIND", BIASES.index(spec.bias), _numbered(BIASES)),
        ("TRAIN_BIAS", spec.train_bias and spec.bias != "none", "whether biases change"),
        ("TARGET_IS_CLASS", key.loss.classes, "whether a target is the number of a class"),
        ("LOSS_SUM", key.loss.outputs == "sum", "whether a sample's loss is the sum over its outputs, not their mean"),
        ("EXPONENTIAL", key.loss.exponential, "whether an output's delta is a difference of powers of e"),
        ("METRIC", METRICS.index(key.loss.metric), _numbered(METRICS)),
        ("HAS_INVERSE_LINK", needs.inverse_link, "whether R2 compares targets with a function of the outs"),
        ("OUTPUT_IDENTITY", spec.output == "identity", "whether the last layer's slope is 1"),
        ("KEEP_NETS", needs.nets, "whether a slope is a function of the net, not of the out alone"),
        ("OWN_SAMPLES", samples.own, "whether networks may see different samples or be at different steps"),
        ("ORDERS", plan.orders, "in which a group takes its samples: one for all its networks, or one for each"),
        ("GATHER", plan.gathers, "whether samples are copied to Memory, or products read them where they are"),
        ("SUBSETS", samples.rows, "whether index tensors say which samples a network has"),
        ("OWN_INPUTS", samples.inputs, "whether every network has inputs and targets of its own"),
        ("SAMPLE_WEIGHT", samples.weight, "0 none, 1 shared, 2 each network's"),
        ("SHUFFLE", SHUFFLES.index(samples.shuffle), _numbered(SHUFFLES)),
        ("CLASS_WEIGHT", key.class_weight, "whether classes have weights"),
        ("LAYERWISE", key.recipe.update_order == "layerwise", "whether a layer changes before the delta below it"),
        *(
            (f"HYPER_{name.upper()}", hyper.get(name, -1), f"the place of {name} in Job.hyper; -1: off")
            for name in SWITCHES
        ),
        ("NONFINITE_STAYS", rule.absorbing, "whether NaN or infinity, once in a row, stays in it"),
        ("HYPERS", len(needs.hyper), "hyper-parameters that the kernel reads"),
        ("SLOTS", plan.slots, "numbers that the optimizer keeps for each parameter"),
        ("NETWORK_SLOTS", len(rule.columns), "numbers that the optimizer keeps for each network (Optimizer.columns)"),
        ("COEFFICIENTS", needs.coefficients, "numbers that the update of a step takes, the learning rate first"),
        (
            "COEFFICIENTS_CHANGE",
            needs.coefficients_change,
            "whether coefficients or network slots change from step to step",
        ),
        ("COEFFICIENTS_USE_STEP", needs.coefficients_use_step, "whether coefficients depend on the number of the step"),
    ]


def _layers(plan: Plan) -> list[tuple[str, Sequence[int], str]]:
    """A number for every layer or width."""
    bias_at = [end - plan.layout.aligned(size) for end, size in zip(plan.weights[1:], plan.biases)]
    return [
        ("WIDTH", plan.widths, "of the layers, the inputs' first"),
        ("PITCH", plan.pitch, "entries from a row of that width to the next, mostly whole v (Plan.pitch)"),
        ("BIAS_COUNT", plan.biases, "how many biases each layer has"),
        ("LAYER_AT", plan.rows, "where each layer begins in a row of Job.params: its weight, then its biases"),
        ("WEIGHT_AT", plan.weights, "where each layer's weight begins in Memory.params, with every row padded"),
        ("BIAS_AT", bias_at, "where each layer's biases begin in Memory.params"),
        ("OUTS_AT", plan.outs, "where each layer's outs begin in Memory.outs, of CHUNK samples"),
    ]


def _sizes(plan: Plan) -> list[tuple[str, int, str]]:
    """Sizes of what the kernel keeps."""
    sizes = [
        ("P", plan.rows[-1], "parameters of a network: numbers of a row of Job.params"),
        ("PADDED_P", plan.weights[-1], "entries of Memory.params"),
        ("MAX_PITCH", plan.widest, "the largest pitch of outs"),
        ("PITCH_UNIT", plan.layout.pitch_unit, "a block's PITCH is an odd multiple of it, or 1 for a single column"),
        ("MEMORY_ENTRIES", plan.numbers, "from Memory.base on"),
        ("FAR_ENTRIES", plan.far, "from Memory.far on, in a GPU's global memory"),
        ("GROUP_BYTES", plan.group_bytes, "of Group"),
    ]
    if plan.layout.threads:
        sizes += [
            ("SHARED_BYTES", plan.shared, "of shared memory that a block needs"),
            ("ROW_PITCH", plan.row_pitch, "numbers from one thread's row in shared memory to the next"),
            ("TEAM_PITCH", plan.team_pitch, "bytes from one team's Group and Memory in shared memory to the next"),
        ]
    if plan.layout.streamed:
        sizes += [
            ("GROUP_IN_GLOBAL", int(plan.group_far), "whether Group is in global memory, before the entries"),
            ("DEPTH", DEPTH, "of k in a strip of a matrix"),
            ("STAGES", STAGES, "strips of both matrices that are in shared memory at once"),
            ("STAGE_ENTRIES", plan.stage, "the room of such a pair of strips"),
            ("RING_AT", plan.team_pitch, "the byte of shared memory where they begin"),
        ]
    if not plan.key.trains:
        sizes += [("PARTIAL_SUMS", WAYS, "of each kind"), ("R2_PARTIAL_SUMS", plan.r2_ways, "of each output, for R2")]
        sizes += [(name, at, "where those of a kind begin in Group.sums") for name, at in plan.sums.items()]
    return sizes


def _numbered(names: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(names))
