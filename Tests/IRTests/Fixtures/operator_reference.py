"""Writes operator_reference.json: inputs and results of operators, computed by onnxruntime or by numpy in float64.

Run in this folder: python3 operator_reference.py
"""

import json
import math

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

rng = np.random.default_rng(20240917)
cases = []
NAMES = {"float32": "f32", "float64": "f64", "float16": "f16", "int64": "i64", "int32": "i32", "int16": "i16", "int8": "i8",
         "uint8": "u8", "bool": "bool"}


def numbers(array):
    def one(value):
        if isinstance(value, (bool, np.bool_)):
            return int(value)
        if isinstance(value, (int, np.integer)):
            return int(value)
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return float(str(value))
    return [one(v) for v in np.asarray(array).reshape(-1)]


def tensor(array):
    return {"type": NAMES[array.dtype.name], "shape": list(array.shape), "values": numbers(array)}


def case(operator, attributes, inputs, *outputs, source):
    cases.append({"operator": operator, "attributes": attributes, "source": source,
                  "inputs": [tensor(np.asarray(i)) for i in inputs], "outputs": [tensor(np.asarray(o)) for o in outputs]})


def run(op_type, inputs, opset=22, **attributes):
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(inputs)]
    given = [(n, np.asarray(v)) for n, v in zip(names, inputs) if v is not None]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in given]
    graph = helper.make_graph([node], "g", infos, [helper.make_value_info("y", onnx.TypeProto())])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(given))[0]


def ort(operator, attributes, op_type, inputs, opset=22, extra=(), **onnx_attributes):
    case(operator, attributes, inputs, run(op_type, list(inputs) + list(extra), opset, **onnx_attributes), source="onnxruntime")


def numpy_case(operator, attributes, inputs, *outputs):
    case(operator, attributes, inputs, *[np.asarray(o).astype(np.asarray(inputs[0]).dtype) if np.asarray(o).dtype == np.float64
                                        else o for o in outputs], source="numpy")


def f32(*shape, scale=1.0):
    # Two decimals keep the file small.
    return np.round(rng.standard_normal(shape) * scale, 2).astype(np.float32)


# Functions of one number.
line = np.array([-30, -3.5, -2.5, -1.5, -1, -0.5, -0.1, 0, 0.1, 0.5, 0.7, 1, 1.5, 2.5, 3.5, 30], dtype=np.float32)
positive = np.array([1e-6, 0.1, 0.5, 1, 2, 100, 1e10], dtype=np.float32)
special = np.array([np.nan, np.inf, -np.inf, 2, -2], dtype=np.float32)
for name, op_type, attributes in [
    ("negate", "Neg", {}), ("abs", "Abs", {}), ("reciprocal", "Reciprocal", {}), ("exp", "Exp", {}), ("sin", "Sin", {}),
    ("cos", "Cos", {}), ("tanh", "Tanh", {}), ("sigmoid", "Sigmoid", {}), ("relu", "Relu", {}), ("erf", "Erf", {}),
    ("floor", "Floor", {}), ("ceil", "Ceil", {}), ("round", "Round", {}), ("sign", "Sign", {}), ("softplus", "Softplus", {}),
    ("hard_sigmoid", "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), ("hard_swish", "HardSwish", {}),
    ("gelu", "Gelu", {"approximate": "none"}), ("gelu_tanh", "Gelu", {"approximate": "tanh"})]:
    ort(name, "{}", op_type, [line], **attributes)
for name, op_type in [("negate", "Neg"), ("abs", "Abs"), ("exp", "Exp"), ("floor", "Floor"), ("ceil", "Ceil"), ("round", "Round"),
                      ("sqrt", "Sqrt"), ("log", "Log")]:
    ort(name, "{}", op_type, [special], )
ort("sqrt", "{}", "Sqrt", [positive])
ort("log", "{}", "Log", [positive])
numpy_case("rsqrt", "{}", [positive], 1 / np.sqrt(positive.astype(np.float64)))
numpy_case("silu", "{}", [line], line / (1 + np.exp(-line.astype(np.float64))))
ort("not", "{}", "Not", [np.array([True, False])])
whole = np.array([[-7, -2, 0], [3, 5, 1 << 30]], dtype=np.int32)
ort("negate", "{}", "Neg", [whole])
ort("abs", "{}", "Abs", [whole])
ort("sign", "{}", "Sign", [whole])
ort("relu", "{}", "Relu", [whole])
ort("leaky_relu", "{slope = 0.2}", "LeakyRelu", [line], alpha=0.2)
ort("clip", "{minimum = -1, maximum = 2.5}", "Clip", [line], extra=[np.float32(-1), np.float32(2.5)])

# Functions of two numbers.
a, b = f32(2, 3, 1, scale=2), f32(3, 4, scale=2)
i, j = rng.integers(-9, 9, (2, 1, 3)), np.array([[3], [-4], [5]])
for name, op_type in [("add", "Add"), ("subtract", "Sub"), ("multiply", "Mul"), ("divide", "Div"), ("minimum", "Min"),
                      ("maximum", "Max"), ("less", "Less"), ("less_or_equal", "LessOrEqual"), ("greater", "Greater"),
                      ("greater_or_equal", "GreaterOrEqual"), ("equal", "Equal")]:
    ort(name, "{}", op_type, [a, b])
    ort(name, "{}", op_type, [i, j])
nans = [np.array([1, np.nan, np.nan, np.inf], dtype=np.float32), np.array([np.nan, 1, np.nan, -np.inf], dtype=np.float32)]
for name, function in [("minimum", np.minimum), ("maximum", np.maximum), ("equal", np.equal), ("not_equal", np.not_equal),
                       ("less", np.less), ("greater_or_equal", np.greater_equal)]:
    numpy_case(name, "{}", nans, function(*nans))
numpy_case("not_equal", "{}", [i, j], i != j)
ort("power", "{}", "Pow", [np.abs(a), b])
ort("power", "{}", "Pow", [i, np.array([3, 0, 2])])
ort("modulo", "{}", "Mod", [i, j])
numpy_case("modulo", "{}", [a, b], np.mod(a, b))
t, u = np.array([[True], [False]]), np.array([True, False])
ort("and", "{}", "And", [t, u])
ort("or", "{}", "Or", [t, u])
ort("select", "{}", "Where", [a > 0, a, b])
ort("select", "{}", "Where", [i > 0, i, j])
x, y = f32(3, 700), f32(700)
numpy_case("elementwise", "{expression = \"select(less(%0, %1), multiply(silu(%0), 0.5), add(%1, maximum(%0, 0)))\"}", [x, y],
           np.where(x < y, x / (1 + np.exp(-x.astype(np.float64))) * 0.5, y.astype(np.float64) + np.maximum(x, 0)))
x, y = f32(2, 3), np.array([True, False, True])
numpy_case("elementwise", "{expression = \"and(less(%0, 0), not(%1))\"}", [x, y], (x < 0) & ~y)

# Casts.
x = np.array([[0, -1, 300], [7, 65536, 2**31 - 1]], dtype=np.int64)
for name, dtype in [("f32", np.float32), ("f64", np.float64), ("f16", np.float16), ("i32", np.int32), ("i16", np.int16), ("i8", np.int8),
                    ("u8", np.uint8), ("bool", np.bool_)]:
    with np.errstate(over="ignore"):
        case("cast", f"{{type = {name}}}", [x], x.astype(dtype), source="numpy")
x = np.array([-2.7, -0.5, 0, 0.5, 2.7, 1e4], dtype=np.float32)
for name, dtype in [("f16", np.float16), ("i64", np.int64), ("i32", np.int32), ("bool", np.bool_)]:
    numpy_case("cast", f"{{type = {name}}}", [x], x.astype(dtype))
numpy_case("cast", "{type = f32}", [np.array([1.5, -65504, 6e-8], dtype=np.float16)],
           np.array([1.5, -65504, 6e-8], dtype=np.float16).astype(np.float32))

# Products.
ort("matmul", "{}", "MatMul", [f32(3, 5), f32(5, 4)])
ort("matmul", "{}", "MatMul", [f32(2, 1, 3, 5), f32(3, 5, 2)])
ort("matmul", "{}", "MatMul", [f32(2, 3, 5), f32(5, 7)])
ort("matmul", "{}", "MatMul", [f32(1, 70), f32(70, 33)])
sigmoid = lambda v: 1 / (1 + np.exp(-v))
activations = {"none": lambda v: v, "relu": lambda v: np.maximum(v, 0), "relu6": lambda v: np.clip(v, 0, 6),
               "silu": lambda v: v * sigmoid(v), "gelu": lambda v: v * (1 + np.vectorize(math.erf)(v / math.sqrt(2))) / 2,
               "gelu_tanh": lambda v: v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v ** 3))) / 2,
               "sigmoid": sigmoid, "tanh": np.tanh, "hard_swish": lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
               "hard_sigmoid": lambda v: np.clip(v / 6 + 0.5, 0, 1)}
for name, function in activations.items():
    x, w, bias, rest = f32(3, 5, scale=3), f32(4, 5), f32(4), f32(3, 4)
    sums = x.astype(np.float64) @ w.astype(np.float64).T + bias
    numpy_case("matmul", f"{{transposeB = true, epilogue = {{bias = true, activation = {name}}}}}", [x, w, bias], function(sums))
    numpy_case("matmul", f"{{transposeB = true, epilogue = {{bias = true, activation = {name}, residual = before_activation}}}}",
               [x, w, bias, rest], function(sums + rest))
    sums -= bias
    numpy_case("matmul", f"{{transposeB = true, epilogue = {{activation = {name}, residual = after_activation}}}}",
               [x, w, rest], function(sums) + rest)
x, w, bias, rest = f32(2, 3, 5), f32(6, 5), f32(6), f32(2, 3, 3)
sums = x.astype(np.float64) @ w.astype(np.float64).T + bias
numpy_case("matmul", "{transposeB = true, epilogue = {bias = true, activation = silu, residual = after_activation, gated = true}}",
           [x, w, bias, rest], activations["silu"](sums[..., 0::2]) * sums[..., 1::2] + rest)
numpy_case("matmul", "{epilogue = {activation = gelu, gated = true}}", [x, np.ascontiguousarray(w.T)],
           activations["gelu"]((sums - bias)[..., 0::2]) * (sums - bias)[..., 1::2])
half = f32(4, 5).astype(np.float16)
numpy_case("matmul", "{transposeB = true}", [x, half], x.astype(np.float64) @ half.astype(np.float64).T)
numpy_case("matmul", "{}", [x, np.ascontiguousarray(half.T)], x.astype(np.float64) @ half.astype(np.float64).T)
x, w = f32(2, 3, 4, 5), f32(2, 1, 6, 5)
numpy_case("matmul", "{transposeB = true}", [x, w], x.astype(np.float64) @ np.swapaxes(w, -1, -2).astype(np.float64))

# Convolutions and pooling, in both layouts.
for size, weight, strides, padding, dilations, groups in [
    ((2, 3, 7, 6), (4, 3, 3, 3), [1, 1], [1, 1, 1, 1], [1, 1], 1), ((1, 4, 8, 9), (6, 2, 3, 2), [2, 3], [0, 1, 2, 1], [1, 1], 2),
    ((1, 3, 9, 9), (2, 3, 3, 3), [1, 2], [2, 2, 2, 2], [2, 2], 1), ((2, 5, 4, 4), (7, 5, 1, 1), [1, 1], [0, 0, 0, 0], [1, 1], 1),
    ((1, 5, 5, 5), (4, 5, 1, 1), [2, 2], [0, 0, 0, 0], [1, 1], 1), ((2, 4, 7, 5), (4, 1, 3, 3), [1, 1], [1, 1, 1, 1], [1, 1], 4),
    ((1, 3, 8, 8), (6, 1, 5, 3), [2, 2], [2, 0, 1, 1], [1, 2], 3), ((1, 1, 4, 1), (1, 1, 4, 1), [1, 1], [0, 0, 0, 0], [1, 1], 1)]:
    x, w, bias = f32(*size), f32(*weight), f32(weight[0])
    base = f"strides = {strides}, padding = {padding}, dilations = {dilations}, groups = {groups}"
    more = dict(strides=strides, pads=padding, dilations=dilations, group=groups)
    ort("conv2d", f"{{{base}}}", "Conv", [x, w], **more)
    ort("conv2d", f"{{{base}, epilogue = {{bias = true}}}}", "Conv", [x, w, bias], **more)
    y = run("Conv", [x, w, bias], **more)
    rest = f32(*y.shape)
    last = lambda v: np.ascontiguousarray(np.moveaxis(v, 1, 3))
    case("conv2d", f"{{{base}, epilogue = {{bias = true, activation = relu, residual = before_activation}}}}", [x, w, bias, rest],
         np.maximum(y + rest, 0), source="onnxruntime")
    case("conv2d", f"{{{base}, layout = last, epilogue = {{bias = true, activation = relu6, residual = after_activation}}}}",
         [last(x), w, bias, last(rest)], last(np.clip(y, 0, 6) + rest), source="onnxruntime")
for size, kernel, strides, padding, dilations in [
    ((2, 3, 7, 6), [2, 2], [2, 2], [0, 0, 0, 0], [1, 1]), ((1, 2, 9, 8), [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
    ((1, 2, 9, 8), [3, 2], [1, 2], [1, 0, 2, 1], [2, 1]), ((1, 4, 3, 5), [3, 5], [1, 1], [0, 0, 0, 0], [1, 1])]:
    x = f32(*size)
    last = lambda v: np.ascontiguousarray(np.moveaxis(v, 1, 3))
    base = f"kernel = {kernel}, strides = {strides}, padding = {padding}"
    more = dict(kernel_shape=kernel, strides=strides, pads=padding)
    y = run("MaxPool", [x], dilations=dilations, **more)
    case("max_pool2d", f"{{{base}, dilations = {dilations}}}", [x], y, source="onnxruntime")
    case("max_pool2d", f"{{{base}, dilations = {dilations}, layout = last}}", [last(x)], last(y), source="onnxruntime")
    if padding[2] >= kernel[0]:
        continue
    for count in [0, 1]:
        y = run("AveragePool", [x], count_include_pad=count, **more)
        flag = f", countIncludePad = {'true' if count else 'false'}"
        case("average_pool2d", f"{{{base}{flag}}}", [x], y, source="onnxruntime")
        case("average_pool2d", f"{{{base}{flag}, layout = last}}", [last(x)], last(y), source="onnxruntime")

# Reductions.
x = f32(2, 3, 4, 5)
for name, op_type in [("sum", "ReduceSum"), ("mean", "ReduceMean"), ("max", "ReduceMax"), ("min", "ReduceMin"),
                      ("product", "ReduceProd")]:
    for axes, keep in [([1], 0), ([0, 2], 1), ([2, 3], 0), ([-1], 1), ([0, 1, 2, 3], 0)]:
        attributes = f"{{function = {name}, axes = {axes}, keepDims = {'true' if keep else 'false'}}}"
        ort("reduce", attributes, op_type, [x], extra=[np.array(axes)], keepdims=keep)
    if name != "mean":
        ort("reduce", f"{{function = {name}, axes = [1]}}", op_type, [whole.astype(np.int64)], extra=[np.array([1])], keepdims=0)
numpy_case("reduce", "{function = max, axes = [0]}", [special], np.float32(np.nan))

# Softmax and norms.
x = f32(3, 4, 5, scale=4)
for axis in [-1, 0, 1]:
    ort("softmax", f"{{axis = {axis}}}", "Softmax", [x], axis=axis)
    ort("log_softmax", f"{{axis = {axis}}}", "LogSoftmax", [x], axis=axis)
ort("softmax", "{}", "Softmax", [np.array([[1e4, 1e4 - 1, -1e4], [-np.inf, 0, 1]], dtype=np.float32)])
for axis, shape in [(-1, [5]), (1, [4, 5])]:
    w, bias = f32(*shape), f32(*shape)
    ort("layer_norm", f"{{axis = {axis}, epsilon = 0.001}}", "LayerNormalization", [x, w, bias], axis=axis, epsilon=0.001)
    ort("layer_norm", f"{{axis = {axis}, epsilon = 0.001}}", "LayerNormalization", [x, w], axis=axis, epsilon=0.001)
    wide = x.astype(np.float64)
    axes = tuple(range(axis % 3, 3))
    numpy_case("rms_norm", f"{{axis = {axis}, epsilon = 0.001}}", [x, w],
               wide / np.sqrt((wide ** 2).mean(axis=axes, keepdims=True) + 0.001) * w)
for shape in [(2, 3), (2, 3, 4), (2, 3, 4, 5)]:
    ort("batch_norm", "{epsilon = 0.01}", "BatchNormalization", [f32(*shape), f32(3), f32(3), f32(3), np.abs(f32(3))], epsilon=0.01)

# Rotary embedding, cache, attention.
position = np.array([1000], dtype=np.int32)
frequencies = (10000.0 ** (-np.arange(4) / 4)).astype(np.float32)
angles = (np.arange(1000, 1003, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
table = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
case("rope_table", "{length = 3}", [position, frequencies], table, source="numpy")
x = f32(2, 3, 20)
pieces = x.reshape(2, 3, 2, 10).astype(np.float64)
cos, sin = table[:, 0].astype(np.float64)[None, :, None], table[:, 1].astype(np.float64)[None, :, None]
turned = pieces.copy()
turned[..., 0:4] = pieces[..., 0:4] * cos - pieces[..., 4:8] * sin
turned[..., 4:8] = pieces[..., 4:8] * cos + pieces[..., 0:4] * sin
numpy_case("rope", "{headDim = 10}", [x, table], turned.reshape(2, 3, 20))
numpy_case("rope", "{headDim = 10}", [x[0], table], turned[0].reshape(3, 20))
turned = pieces.copy()
turned[..., 0:8:2] = pieces[..., 0:8:2] * cos - pieces[..., 1:8:2] * sin
turned[..., 1:8:2] = pieces[..., 1:8:2] * cos + pieces[..., 0:8:2] * sin
numpy_case("rope", "{headDim = 10, interleaved = true}", [x, table], turned.reshape(2, 3, 20))
cache, rows = f32(6, 3), f32(2, 3)
updated = cache.copy()
updated[3:5] = rows
case("cache_update", "{}", [cache, rows, np.array([3], dtype=np.int32)], updated, source="numpy")
updated = cache.astype(np.float16)
updated[4:6] = rows
case("cache_update", "{}", [cache.astype(np.float16), rows, np.array([4], dtype=np.int64)], updated, source="numpy")


def attention(q, k, v, heads, kv_heads, scale, visible, softcap=None, mask=None):
    """One batch in float64; visible is a bool matrix of queries and keys."""
    q, k, v = (t.astype(np.float64) for t in (q, k, v))
    d, e = q.shape[1] // heads, v.shape[1] // kv_heads
    out = np.zeros((q.shape[0], heads * e))
    for h in range(heads):
        g = h // (heads // kv_heads)
        s = q[:, h * d:(h + 1) * d] @ k[:, g * d:(g + 1) * d].T * scale
        if softcap:
            s = softcap * np.tanh(s / softcap)
        if mask is not None:
            s = s + np.broadcast_to(mask, (1, heads) + s.shape)[0, h]
        s = np.where(visible, s, -np.inf)
        p = np.exp(s - s.max(axis=1, keepdims=True))
        out[:, h * e:(h + 1) * e] = p / p.sum(axis=1, keepdims=True) @ v[:, g * e:(g + 1) * e]
    return out


q, k, v = f32(3, 12), f32(9, 6), f32(9, 4)
base = "heads = 4, kvHeads = 2, scale = 0.5"
keys = np.arange(9)[None, :]
for past in [0, 4, 6]:
    last_key = past + np.arange(3)[:, None]
    place = np.array([past], dtype=np.int32)
    numpy_case("attention", f"{{{base}}}", [q, k, v, place], attention(q, k, v, 4, 2, 0.5, keys <= last_key))
    numpy_case("attention", f"{{{base}, window = 2}}", [q, k, v, place],
               attention(q, k, v, 4, 2, 0.5, (keys <= last_key) & (keys > last_key - 2)))
    numpy_case("attention", f"{{{base}, softcap = 1.5}}", [q, k, v, place],
               attention(q, k, v, 4, 2, 0.5, keys <= last_key, softcap=1.5))
half_k, half_v = k.astype(np.float16), v.astype(np.float16)
numpy_case("attention", f"{{{base}}}", [q, half_k, half_v, np.array([5], dtype=np.int32)],
           attention(q, half_k, half_v, 4, 2, 0.5, keys <= 5 + np.arange(3)[:, None]))
numpy_case("attention", f"{{{base}}}", [q, k, v], attention(q, k, v, 4, 2, 0.5, keys <= 6 + np.arange(3)[:, None]))
numpy_case("attention", f"{{{base}, causal = false}}", [q, k, v], attention(q, k, v, 4, 2, 0.5, keys >= 0))
mask = f32(1, 4, 3, 9)
numpy_case("attention", f"{{{base}, causal = false}}", [q, k, v, mask], attention(q, k, v, 4, 2, 0.5, keys >= 0, mask=mask))
visible = rng.random((3, 9)) < 0.5
visible[:, 0] = True
numpy_case("attention", f"{{{base}, causal = false}}", [q, k, v, visible], attention(q, k, v, 4, 2, 0.5, visible))
q, k, v = f32(2, 3, 12), f32(2, 5, 12), f32(2, 5, 12)
for causal in [0, 1]:
    # onnxruntime aligns causal queries with the first keys: with as many keys as queries there is one meaning.
    kk, vv = (k[:, :3], v[:, :3]) if causal else (k, v)
    kk, vv = np.ascontiguousarray(kk), np.ascontiguousarray(vv)
    ort("attention", f"{{heads = 3, kvHeads = 3, scale = 0.5, causal = {'true' if causal else 'false'}}}", "Attention", [q, kk, vv],
        opset=23, q_num_heads=3, kv_num_heads=3, scale=0.5, is_causal=causal)
q, k = f32(8, 4), f32(64, 4)
numpy_case("attention", "{heads = 4, kvHeads = 4, scale = 0.35}", [q, k, k, np.array([50], dtype=np.int32)],
           attention(q, k, k, 4, 4, 0.35, np.arange(64)[None, :] <= 50 + np.arange(8)[:, None]))

# Movement.
x = f32(3, 4, 5)
ort("gather", "{}", "Gather", [x, np.array([[2, 0], [-1, 1]])], axis=0)
ort("gather", "{axis = 1}", "Gather", [x, np.array([3, -4, 0], dtype=np.int32)], axis=1)
ort("gather", "{axis = -1}", "Gather", [x, np.array(2)], axis=2)
x16 = f32(4, 3).astype(np.float16)
numpy_case("gather", "{type = f32}", [x16, np.array([1, 3])], x16[[1, 3]].astype(np.float32))
ort("reshape", "{shape = [5, 12]}", "Reshape", [x], extra=[np.array([5, 12])])
ort("reshape", "{shape = [3, 2, 2, 5]}", "Reshape", [x], extra=[np.array([3, 2, 2, 5])])
for permutation in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]]:
    ort("transpose", f"{{permutation = {permutation}}}", "Transpose", [x], perm=permutation)
for kind in [np.float16, np.uint8, np.int64]:
    ort("transpose", "{permutation = [1, 0]}", "Transpose", [rng.integers(0, 99, (3, 4)).astype(kind)], perm=[1, 0])
for axis, start, size, step in [(0, 1, 2, 1), (1, 0, 2, 2), (2, 1, 4, 1), (-1, 0, 3, 2), (1, 3, 1, 1), (0, 0, 2, 2), (1, 2, 0, 1)]:
    ort("slice", f"{{axis = {axis}, start = {start}, size = {size}, step = {step}}}", "Slice", [x],
        extra=[np.array([start]), np.array([start + size * step]), np.array([axis]), np.array([step])])
ort("concat", "{axis = 1}", "Concat", [x, f32(3, 1, 5), f32(3, 2, 5)], axis=1)
ort("concat", "{axis = 0}", "Concat", [x, f32(1, 4, 5), x], axis=0)
ort("concat", "{axis = -1}", "Concat", [x, f32(3, 4, 2)], axis=2)
y = f32(3, 4, 5)
numpy_case("interleave", "{}", [x, y], np.stack([x, y], axis=1).reshape(6, 4, 5))
numpy_case("interleave", "{}", [x[:, 0, 0], y[:, 0, 0], x[:, 1, 1]], np.stack([x[:, 0, 0], y[:, 0, 0], x[:, 1, 1]], 1).reshape(-1))
ort("pad", "{before = [1, 0, 2], after = [0, 2, 1], value = -1.5}", "Pad", [x], extra=[np.array([1, 0, 2, 0, 2, 1]), np.float32(-1.5)])
ort("pad", "{before = [0, 1], after = [2, 0], value = 9}", "Pad", [whole], extra=[np.array([0, 1, 2, 0]), np.int32(9)])
ort("expand", "{shape = [2, 3, 4]}", "Expand", [f32(3, 1)], extra=[np.array([2, 3, 4])])
ort("expand", "{shape = [2, 2]}", "Expand", [np.array(True)], extra=[np.array([2, 2])])

# Transposed convolutions and images of another size.
for size, weight, strides, padding, extra, dilations, groups in [
    ((2, 3, 4, 5), (3, 4, 2, 2), [2, 2], [0, 0, 0, 0], [0, 0], [1, 1], 1),
    ((1, 4, 5, 3), (4, 2, 3, 4), [2, 3], [1, 0, 2, 1], [1, 0], [1, 1], 2),
    ((1, 2, 3, 4), (2, 3, 3, 2), [1, 2], [2, 1, 1, 1], [0, 1], [2, 3], 1),
    ((1, 2, 1, 6), (2, 3, 1, 8), [1, 4], [0, 2, 0, 2], [0, 0], [1, 1], 1)]:
    x, w, bias = f32(*size), f32(*weight), f32(weight[1] * groups)
    base = f"{{strides = {strides}, padding = {padding}, extra = {extra}, dilations = {dilations}, groups = {groups}}}"
    more = dict(strides=strides, pads=padding, output_padding=extra, dilations=dilations, group=groups)
    ort("conv_transpose2d", base, "ConvTranspose", [x, w], **more)
    ort("conv_transpose2d", base, "ConvTranspose", [x, w, bias], **more)
last = lambda v: np.ascontiguousarray(np.moveaxis(v, 1, 3))
x = f32(1, 2, 4, 5)
for sizes in [(8, 10), (7, 3), (1, 9)]:
    scales = [float(np.float32(sizes[0]) / np.float32(4)), float(np.float32(sizes[1]) / np.float32(5))]
    shape = f"height = {sizes[0]}, width = {sizes[1]}, heightScale = {scales[0]}, widthScale = {scales[1]}"
    for coordinates in ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]:
        more = dict(coordinate_transformation_mode=coordinates)
        extra = [None, None, np.array([1, 2, *sizes])]
        y = run("Resize", [x] + extra, mode="linear", **more)
        base = f"{shape}, mode = linear, coordinates = {coordinates}"
        case("resize2d", f"{{{base}}}", [x], y, source="onnxruntime")
        case("resize2d", f"{{{base}, layout = last}}", [last(x)], last(y), source="onnxruntime")
        for rounding, name in [("round_prefer_floor", "prefer_floor"), ("round_prefer_ceil", "prefer_ceil"), ("floor", "floor"),
                               ("ceil", "ceil")]:
            if sizes[0] == 1:
                continue
            y = run("Resize", [x] + extra, mode="nearest", nearest_mode=rounding, **more)
            case("resize2d", f"{{{shape}, coordinates = {coordinates}, rounding = {name}}}", [x], y, source="onnxruntime")
# Scales that the sizes do not follow from.
y = run("Resize", [x, None, np.array([1, 1, 1.7, 0.45], dtype=np.float32)], mode="linear")
case("resize2d", "{height = 6, width = 2, heightScale = 1.7, widthScale = 0.45, mode = linear}", [x], y, source="onnxruntime")

# Recurrent layers, with weights of the inputs that hand on what they get.
def recurrent(op_type, attributes, batch, hidden, steps=4, lengths=None, peepholes=False, later=False, **more):
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type]
    x, r, h0, c0 = f32(steps, batch, gates * hidden), f32(hidden, gates * hidden), f32(batch, hidden), f32(batch, hidden)
    bias, p = f32(hidden), f32(3 * hidden)
    biases = np.zeros((1, 2 * gates * hidden), np.float32)
    if later:
        biases[0, -hidden:] = bias
    given = [x, np.eye(gates * hidden, dtype=np.float32)[None], np.ascontiguousarray(r.T)[None], biases, lengths, h0[None]]
    if op_type == "LSTM":
        given += [c0[None]] + ([p[None]] if peepholes else [])
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(given)]
    outputs = ["y", "h"] + (["c"] if op_type == "LSTM" else [])
    node = helper.make_node(op_type, names, outputs, hidden_size=hidden, **more)
    feeds = {n: v for n, v in zip(names, given) if v is not None}
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()]
    graph = helper.make_graph([node], "g", infos, [helper.make_value_info(o, onnx.TypeProto()) for o in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, feeds)
    rows = [results[0][:, 0], results[1], results[2] if op_type == "LSTM" else np.zeros_like(h0)[None]]
    inputs = [x, r, h0] + ([c0] if op_type == "LSTM" else []) + ([bias] if later else []) + ([p] if peepholes else [])
    case("recurrence", "{" + attributes + "}", inputs + ([lengths] if lengths is not None else []),
         np.concatenate(rows), source="onnxruntime")


sigmoid, tanh = '"sigmoid(%0)"', '"tanh(%0)"'
three, two = f"activations = [{sigmoid}, {tanh}, {tanh}]", f"activations = [{sigmoid}, {tanh}]"
recurrent("RNN", f"cell = rnn, activations = [{tanh}]", 2, 3)
recurrent("RNN", "cell = rnn, backward = true, activations = [\"relu(%0)\"]", 1, 3, direction="reverse",
          activations=["Relu"])
recurrent("GRU", f"cell = gru, {two}", 2, 3)
recurrent("GRU", f"cell = gru, resetsLater = true, {two}", 2, 3, later=True, linear_before_reset=1)
recurrent("GRU", f"cell = gru, backward = true, lengths = true, {two}", 3, 2, lengths=np.array([2, 4, 1], np.int32),
          direction="reverse")
recurrent("LSTM", f"cell = lstm, {three}", 2, 3)
recurrent("LSTM", f"cell = lstm, peepholes = true, {three}", 2, 3, peepholes=True)
recurrent("LSTM", f"cell = lstm, couplesGates = true, {three}", 1, 3, input_forget=1)
recurrent("LSTM", f"cell = lstm, backward = true, lengths = true, {three}", 3, 2, lengths=np.array([4, 1, 3], np.int32),
          direction="reverse")
recurrent("LSTM", f"cell = lstm, lengths = true, {three}", 2, 2, lengths=np.array([4, 3], np.int32))

# Lines and rows.
x = f32(2, 4, 3)
for axis in range(3):
    for exclusive in [0, 1]:
        for backward in [0, 1]:
            attributes = f"{{axis = {axis}, exclusive = {str(bool(exclusive)).lower()}, backward = {str(bool(backward)).lower()}}}"
            y = run("CumSum", [x, np.array(axis)], exclusive=exclusive, reverse=backward)
            case("cumulative_sum", attributes, [x], y, source="onnxruntime")
case("cumulative_sum", "{axis = 0}", [np.array([5, -7, 1 << 40])], np.array([5, -2, (1 << 40) - 2]), source="numpy")
ties = np.array([[3, 1, 3, np.inf], [1, 1, -np.inf, 0], [2, 5, 5, 5]], dtype=np.float32)
for axis in [0, 1]:
    for largest in [True, False]:
        order = np.argsort(-ties if largest else ties, axis=axis, kind="stable")
        case("top_places", f"{{axis = {axis}, count = 2, largest = {str(largest).lower()}}}", [ties],
             np.take(order, [0, 1], axis=axis), source="numpy")
case("top_places", "{axis = 0, count = 3}", [np.array([4, 9, -3, 9])], np.array([1, 3, 0]), source="numpy")
data, updates, where = f32(4, 3), f32(3, 3), np.array([2, 0, 2])
for name, function in [("replace", None), ("add", np.add), ("multiply", np.multiply), ("minimum", np.minimum),
                       ("maximum", np.maximum)]:
    for kind in [np.float32, np.int64]:
        y, change = (data * 10).astype(kind), (updates * 10).astype(kind)
        inputs = [y.copy(), where, change]
        for i, row in enumerate(where):
            y[row] = change[i] if function is None else function(y[row], change[i])
        case("scatter_rows", f"{{reduction = {name}}}", inputs, y, source="numpy")

with open("operator_reference.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(c, separators=(',', ':')) for c in cases) + "\n]\n")
print(len(cases), "cases of", len({c["operator"] for c in cases}), "operators")
