"""Writes sequence_reference.json: inputs and results of the operators of recurrent and sparse networks, by numpy in float64.

Run in this folder: python3 sequence_reference.py
"""

import json
import math

import numpy as np

rng = np.random.default_rng(20250311)
cases = []
NAMES = {"float32": "f32", "float64": "f64", "int32": "i32"}


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def tensor(array):
    numbers = [int(v) if array.dtype.kind == "i" else float(str(v)) for v in array.reshape(-1)]
    return {"type": NAMES[array.dtype.name], "shape": list(array.shape), "values": numbers}


def case(operator, attributes, inputs, *outputs):
    outputs = [np.asarray(o, np.float32) if np.asarray(o).dtype == np.float64 else np.asarray(o) for o in outputs]
    cases.append({"operator": operator, "attributes": attributes, "source": "numpy",
                  "inputs": [tensor(np.asarray(i)) for i in inputs], "outputs": [tensor(o) for o in outputs]})


def i32(*values):
    return np.array(values, np.int32)


# Buckets of distances: exact ones, then by the logarithm, computed in f32.
def bucket(distance, buckets, bidirectional, maximum):
    base = 0
    if bidirectional:
        buckets //= 2
        base = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return base + distance
    ratio = np.log(np.float32(distance) / np.float32(exact)) / np.float32(math.log(maximum / exact))
    return base + min(buckets - 1, exact + int(ratio * np.float32(buckets - exact)))


for buckets, heads, before, after, bidirectional, maximum in [
        (32, 3, 200, 200, True, 128), (32, 2, 150, 0, False, 128), (8, 1, 20, 5, True, 16), (5, 2, 9, 3, False, 7)]:
    table = f32(buckets, heads)
    rows = [bucket(d, buckets, bidirectional, maximum) for d in range(-before, after + 1)]
    case("distance_bias", f"{{before = {before}, after = {after}, bidirectional = {str(bidirectional).lower()}, "
         f"maximum = {maximum}}}", [table], table[rows].T)
for heads, width, before, rows, columns, position in [(2, 13, 6, 4, 7, None), (3, 9, 4, 1, 12, 5), (1, 5, 4, 3, 8, 2)]:
    bias = f32(heads, width)
    y = np.zeros((heads, rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            y[:, i, j] = bias[:, min(max(j - i - (position or 0) + before, 0), width - 1)]
    case("relative_bias", f"{{rows = {rows}, columns = {columns}, before = {before}}}",
         [bias] + ([] if position is None else [i32(position)]), y)

silu = lambda v: v / (1 + np.exp(-v))
for taps, width, tokens, position, biased, activation in [
        (4, 5, 7, 3, True, "silu"), (4, 3, 2, 0, False, "none"), (2, 1, 1, 9, True, "none"), (3, 4, 1, 0, True, "silu")]:
    state, x, weight, bias = f32(taps - 1, width), f32(tokens, width), f32(taps, width), f32(width)
    z = np.concatenate([state * (position > 0), x]).astype(np.float64)
    y = np.stack([(z[t:t + taps] * weight).sum(0) for t in range(tokens)]) + (bias if biased else 0)
    case("causal_conv", f"{{activation = {activation}}}", [state, x, weight, i32(position)] + ([bias] if biased else []),
         z[-(taps - 1):], silu(y) if activation == "silu" else y)
for width, size, tokens, position in [(3, 16, 5, 4), (5, 3, 4, 0), (1, 1, 1, 2)]:
    state, x, a = f32(width, size), f32(tokens, width), -np.exp(f32(width, size))
    dt, b, c, d = np.log1p(np.exp(f32(tokens, width))), f32(tokens, size), f32(tokens, size), f32(width)
    h = state.astype(np.float64) * (position > 0)
    rows = []
    for t in range(tokens):
        step = dt[t].astype(np.float64)[:, None]
        h = np.exp(step * a) * h + step * b[t] * x[t].astype(np.float64)[:, None]
        rows.append((h * c[t]).sum(1) + d * x[t])
    case("selective_scan", "{}", [state, x, dt, a, b, c, d, i32(position)], h, np.stack(rows))


def route(logits, count, scoring, normalizes, scale, groups, chosen, two, bias=None):
    logits = logits.astype(np.float64)
    if scoring == "softmax":
        scores = np.exp(logits - logits.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
    else:
        scores = 1 / (1 + np.exp(-logits))
    judged = scores + (0 if bias is None else bias)
    if groups > 1:
        parts = judged.reshape(len(judged), groups, -1)
        best = np.sort(parts, 2)[:, :, -2:].sum(2) if two else parts.max(2)
        keep = np.argsort(-best, 1, kind="stable")[:, :chosen]
        mask = np.zeros((len(judged), groups), bool)
        np.put_along_axis(mask, keep, True, 1)
        judged = np.where(np.repeat(mask, judged.shape[1] // groups, 1), judged, -np.inf)
    ids = np.argsort(-judged, 1, kind="stable")[:, :count]
    weights = np.take_along_axis(scores, ids, 1)
    return ids.astype(np.int32), weights * scale / (weights.sum(1, keepdims=True) if normalizes else 1)


for tokens, experts, count, scoring, normalizes, scale, groups, chosen, two, biased in [
        (3, 8, 2, "softmax", True, 1.0, 1, 1, False, False), (1, 5, 3, "softmax", False, 2.5, 1, 1, False, False),
        (4, 12, 3, "softmax", False, 16.0, 4, 2, False, False), (2, 16, 4, "sigmoid", True, 2.5, 4, 2, True, True),
        (2, 3, 3, "sigmoid", False, 1.0, 1, 1, False, True)]:
    logits, bias = f32(tokens, experts), f32(experts)
    ids, weights = route(logits, count, scoring, normalizes, scale, groups, chosen, two, bias if biased else None)
    case("route", f"{{count = {count}, scoring = {scoring}, normalizes = {str(normalizes).lower()}, scale = {scale}, "
         f"groups = {groups}, chosenGroups = {chosen}, groupScore = {'two_best' if two else 'best'}}}",
         [logits] + ([bias] if biased else []), ids, weights)
# Of equal scores the first ones.
case("route", "{count = 2}", [np.zeros((1, 4), np.float32)], i32(0, 1).reshape(1, 2), np.full((1, 2), 0.25))

parts = [f32(2, 3) for _ in range(4)]
case("stack", "{}", parts, np.stack(parts))
case("stack", "{}", parts[:1], np.stack(parts[:1]))
for tokens, slots, experts, n, k, per_slot, summed, gated, activation in [
        (3, 2, 4, 5, 7, False, False, False, "none"), (2, 3, 3, 6, 4, False, False, True, "silu"),
        (4, 2, 5, 3, 6, True, True, False, "none"), (1, 1, 2, 2, 1, False, True, False, "silu")]:
    x = f32(tokens, slots, k) if per_slot else f32(tokens, k)
    w, shares = f32(experts, n, k), f32(tokens, slots)
    ids = rng.integers(0, experts, (tokens, slots)).astype(np.int32)
    rows = x if per_slot else np.repeat(x[:, None], slots, 1)
    y = np.einsum("tsk,tsnk->tsn", rows.astype(np.float64), w[ids].astype(np.float64))
    f = silu if activation == "silu" else (lambda v: v)
    y = f(y[..., 0::2]) * y[..., 1::2] if gated else f(y)
    if summed:
        y = (y * shares[..., None]).sum(1)
    case("expert_matmul", f"{{activation = {activation}, gated = {str(gated).lower()}}}",
         [x, w, ids] + ([shares] if summed else []), y)

for rows, columns, rank, scale in [(5, 7, 3, 0.5), (1, 4, 1, -2.0)]:
    w, left, right = f32(rows, columns), f32(rows, rank), f32(rank, columns)
    case("low_rank_update", f"{{scale = {scale}}}", [w, left, right], w + scale * (left.astype(np.float64) @ right))
# Rows of given lengths, of which one is of zeros.
for rows, columns, rank, scale in [(4, 9, 2, 1.5), (3, 1, 1, 0.25)]:
    w, left, right, lengths = f32(rows, columns), f32(rows, rank), f32(rank, columns), f32(rows)
    w[1], left[1] = 0, 0
    v = w + scale * (left.astype(np.float64) @ right)
    norms = np.sqrt((v ** 2).sum(1))
    case("low_rank_update", f"{{scale = {scale}}}", [w, left, right, lengths],
         v * (lengths / np.where(norms == 0, 1, norms))[:, None])

with open("sequence_reference.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(c, separators=(',', ':')) for c in cases) + "\n]\n")
print(len(cases), "cases of", len({c["operator"] for c in cases}), "operators")
