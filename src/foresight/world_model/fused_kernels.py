"""The Triton kernels of `fused.py`: the two parts of a predictor layer, of which the second also ends a step.

A program takes a tile of candidates and a share of the heads or of the hidden units. It begins by finishing the token that
the kernel before left in parts: their sum, always in the same order, with the bias, gated and added to the token before. It
ends with a part of what comes next. So one launch does what would be ten, and the same inputs give the same bits.

The width of a latent is no power of two, as Triton wants it, but the sum of two: LOW + HIGH columns, handled apart.

Letters: S candidates, B of them in a tile, D = LOW + HIGH numbers in a latent. Names ending in `row` are strides from one
candidate to the next, 0 where all share one row. Triton and a GPU, or its interpreter, are needed: import this only then.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["S"])
@no_type_check
def attend(
    x, x_row, parts, bias, gate,  # the token before, as `_begin` finishes it
    finished, finished_row,
    shift, modulation_row,  # the scale lies D numbers after the shift
    enter, leave, bias_by_lag,
    k, v,  # this frame's, (S, heads * head), to be kept
    k1, v1, row1, k2, v2, row2,  # those of one frame and of two frames before
    made,  # (SPLITS, S, D): what leaves the heads of each split
    S, eps,
    B: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr, WINDOW: tl.constexpr,
    FRAMES: tl.constexpr,  # before this one that are attended to: 0, 1 or 2
    PARTS: tl.constexpr, RESIDUAL: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Attention of each candidate's newest frame to the window."""
    D: tl.constexpr = LOW + HIGH
    INNER: tl.constexpr = HEADS * HEAD
    EACH: tl.constexpr = HEADS // SPLITS
    rows, split = tl.program_id(0) * B + tl.arange(0, B), tl.program_id(1)
    here, low, high = (rows < S)[:, None], tl.arange(0, LOW), LOW + tl.arange(0, HIGH)
    y_low, y_high = _begin(
        x, x_row, parts, bias, gate, finished, finished_row, shift, modulation_row,
        rows, here, split, S, eps, LOW, HIGH, PARTS, RESIDUAL, True,
    )  # fmt: skip
    y_low, y_high = y_low.to(enter.dtype.element_ty), y_high.to(enter.dtype.element_ty)
    made_low, made_high = tl.zeros([B, LOW], tl.float32), tl.zeros([B, HIGH], tl.float32)
    for i in range(EACH):
        head = split * EACH + i
        numbers = head * HEAD + tl.arange(0, HEAD)
        at = rows[:, None] * INNER + numbers[None, :]
        own_k = _through(y_low, y_high, enter, INNER + numbers, low, high, D)
        own_v = _through(y_low, y_high, enter, 2 * INNER + numbers, low, high, D)
        tl.store(k + at, own_k.to(k.dtype.element_ty), mask=here)
        tl.store(v + at, own_v.to(v.dtype.element_ty), mask=here)
        attended = own_v  # a lone frame is attended to whatever is asked
        if FRAMES > 0:
            q = _through(y_low, y_high, enter, numbers, low, high, D)
            most = tl.sum(q * own_k, 1) + tl.load(bias_by_lag + (WINDOW - 1) * HEADS + head)
            total = tl.full([B], 1.0, tl.float32)
            at1 = rows[:, None] * row1 + numbers[None, :]
            lag_bias = tl.load(bias_by_lag + (WINDOW - 2) * HEADS + head)
            most, total, attended = _look(q, k1 + at1, v1 + at1, lag_bias, here, most, total, attended)
            if FRAMES > 1:
                at2 = rows[:, None] * row2 + numbers[None, :]
                lag_bias = tl.load(bias_by_lag + (WINDOW - 3) * HEADS + head)
                most, total, attended = _look(q, k2 + at2, v2 + at2, lag_bias, here, most, total, attended)
            attended = attended / total[:, None]
        attended = attended.to(leave.dtype.element_ty)
        made_low = _add_through(attended, leave, numbers, low, INNER, made_low)
        made_high = _add_through(attended, leave, numbers, high, INNER, made_high)
    _leave(made, made_low, made_high, split, S, rows, low, high, here, D)


@triton.jit(do_not_specialize=["S"])
@no_type_check
def feed(
    x, x_row, parts, bias, gate,  # the token before, as `_begin` finishes it
    finished, finished_row,
    shift, modulation_row,  # the scale lies D numbers after the shift; its row is the gate's too
    widen, widen_bias, narrow,
    made,  # (SPLITS, S, D): what each split's hidden units give
    S, eps,
    B: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, HIDDEN: tl.constexpr, CHUNK: tl.constexpr,
    PARTS: tl.constexpr, MODULATED: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Two linear layers with the exact GELU between them, CHUNK hidden units at a time."""
    D: tl.constexpr = LOW + HIGH
    EACH: tl.constexpr = HIDDEN // SPLITS // CHUNK
    rows, split = tl.program_id(0) * B + tl.arange(0, B), tl.program_id(1)
    here, low, high = (rows < S)[:, None], tl.arange(0, LOW), LOW + tl.arange(0, HIGH)
    y_low, y_high = _begin(
        x, x_row, parts, bias, gate, finished, finished_row, shift, modulation_row,
        rows, here, split, S, eps, LOW, HIGH, PARTS, True, MODULATED,
    )  # fmt: skip
    y_low, y_high = y_low.to(widen.dtype.element_ty), y_high.to(widen.dtype.element_ty)
    made_low, made_high = tl.zeros([B, LOW], tl.float32), tl.zeros([B, HIGH], tl.float32)
    for i in range(EACH):
        units = (split * EACH + i) * CHUNK + tl.arange(0, CHUNK)
        hidden = _through(y_low, y_high, widen, units, low, high, D) + tl.load(widen_bias + units).to(tl.float32)[None, :]
        hidden = 0.5 * hidden * (1.0 + tl.erf(hidden * 0.7071067811865476))
        hidden = hidden.to(narrow.dtype.element_ty)
        made_low = _add_through(hidden, narrow, units, low, HIDDEN, made_low)
        made_high = _add_through(hidden, narrow, units, high, HIDDEN, made_high)
    _leave(made, made_low, made_high, split, S, rows, low, high, here, D)


@triton.jit
@no_type_check
def _begin(
    x, x_row, parts, bias, gate, finished, finished_row, shift, modulation_row,
    rows, here, split, S, eps,
    LOW: tl.constexpr, HIGH: tl.constexpr, PARTS: tl.constexpr, RESIDUAL: tl.constexpr, MODULATED: tl.constexpr,
):  # fmt: skip
    """The finished token, which the first split also stores, normalised, scaled and shifted."""
    D: tl.constexpr = LOW + HIGH
    low, high = tl.arange(0, LOW), LOW + tl.arange(0, HIGH)
    a = _finish(x, x_row, parts, bias, gate, modulation_row, rows, low, here, S, D, PARTS, RESIDUAL)
    b = _finish(x, x_row, parts, bias, gate, modulation_row, rows, high, here, S, D, PARTS, RESIDUAL)
    if PARTS > 0:
        first = here & (split == 0)
        tl.store(finished + rows[:, None] * finished_row + low[None, :], a, mask=first)
        tl.store(finished + rows[:, None] * finished_row + high[None, :], b, mask=first)
    mean = (tl.sum(a, 1) + tl.sum(b, 1)) / D
    a = a - mean[:, None]
    b = b - mean[:, None]
    inverse = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / D + eps)
    a = a * inverse[:, None]
    b = b * inverse[:, None]
    if MODULATED:
        a = _modulate(a, shift, modulation_row, rows, low, here, D)
        b = _modulate(b, shift, modulation_row, rows, high, here, D)
    return a, b


@triton.jit
@no_type_check
def _leave(made, made_low, made_high, split, S, rows, low, high, here, D: tl.constexpr):
    """Stores this split's part of what comes next."""
    at = split * S * D + rows[:, None] * D
    tl.store(made + at + low[None, :], made_low.to(made.dtype.element_ty), mask=here)
    tl.store(made + at + high[None, :], made_high.to(made.dtype.element_ty), mask=here)


@triton.jit
@no_type_check
def _finish(
    x, x_row, parts, bias, gate, gate_row, rows, columns, here, S,
    D: tl.constexpr, PARTS: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Some columns of x + gate * (sum of parts + bias); without RESIDUAL the sum alone, without PARTS x alone."""
    at = rows[:, None] * D + columns[None, :]
    if PARTS == 0:
        token = tl.load(x + rows[:, None] * x_row + columns[None, :], mask=here, other=0.0)
    else:
        token = tl.load(parts + at, mask=here, other=0.0).to(tl.float32)
        for part in tl.static_range(1, PARTS):
            token += tl.load(parts + part * S * D + at, mask=here, other=0.0).to(tl.float32)
        token += tl.load(bias + columns).to(tl.float32)[None, :]
        if RESIDUAL:
            token *= tl.load(gate + rows[:, None] * gate_row + columns[None, :], mask=here, other=0.0).to(tl.float32)
            token += tl.load(x + rows[:, None] * x_row + columns[None, :], mask=here, other=0.0)
    return token


@triton.jit
@no_type_check
def _modulate(x, shift, row, rows, columns, here, D: tl.constexpr):
    at = rows[:, None] * row + columns[None, :]
    scale = tl.load(shift + D + at, mask=here, other=0.0).to(tl.float32)
    return x * scale + tl.load(shift + at, mask=here, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _through(y_low, y_high, weight, outputs, low, high, D: tl.constexpr):
    """These outputs of the linear layer with this weight, (*, D) as torch keeps it."""
    weight_low = tl.load(weight + outputs[None, :] * D + low[:, None])
    weight_high = tl.load(weight + outputs[None, :] * D + high[:, None])
    found = tl.dot(y_low, weight_low, input_precision="ieee")
    return tl.dot(y_high, weight_high, found, input_precision="ieee")


@triton.jit
@no_type_check
def _add_through(y, weight, inputs, columns, WIDTH: tl.constexpr, found):
    """Adds what these inputs give to these outputs of the linear layer with this weight, (*, WIDTH) as torch keeps it."""
    chosen = tl.load(weight + columns[None, :] * WIDTH + inputs[:, None])
    return tl.dot(y, chosen, found, input_precision="ieee")


@triton.jit
@no_type_check
def _look(q, k, v, bias, here, most, total, attended):
    """One more frame in a softmax that is kept as its largest score, the sum of weights, and the weighted sum of values."""
    score = tl.sum(q * tl.load(k, mask=here, other=0.0).to(tl.float32), 1) + bias
    larger = tl.maximum(most, score)
    before = tl.exp(most - larger)
    weight = tl.exp(score - larger)
    attended = attended * before[:, None] + tl.load(v, mask=here, other=0.0).to(tl.float32) * weight[:, None]
    return larger, total * before + weight, attended


INTERPRETED = not isinstance(attend, triton.JITFunction)  # on a CPU: TRITON_INTERPRET was 1 when Triton was first imported
