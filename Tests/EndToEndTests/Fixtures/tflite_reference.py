#!/usr/bin/env python3
"""Writes small TensorFlow Lite models and what LiteRT computes with them.

usage: tflite_reference.py

Every case becomes tflite/NAME.tflite beside this file; inputs and outputs go to tflite/cases.npz as NAME.in0, NAME.out0 and
so on. Needs: pip install numpy ai-edge-litert (which has the schema and the interpreter)
"""
import os

import numpy as np
import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tflite")
TYPES = {np.dtype(t): n for t, n in [
    (np.float32, 0), (np.float16, 1), (np.int32, 2), (np.uint8, 3), (np.int64, 4), (bool, 6), (np.int8, 9)]}
random = np.random.default_rng(7)


class Graph:
    """A model under construction: tensors are added by the operators that need them."""

    def __init__(self):
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]
        self.values = []

    def tensor(self, name, shape, dtype, data=None, scale=None, zero=0, axis=0):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), TYPES[np.dtype(dtype)]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = np.full(len(scales), zero, np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name, data, **quantization):
        data = np.asarray(data)
        return self.tensor(name, data.shape, data.dtype, data, **quantization)

    def input(self, name, value, **quantization):
        index = self.tensor(name, value.shape, value.dtype, **quantization)
        self.values.append((index, value))
        return index

    def op(self, name, inputs, outputs, options=None, **attributes):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = attributes.pop("version", 1)
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = list(inputs), list(outputs)
        if options:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            op.builtinOptions = getattr(schema, options + "T")()
            for key, value in attributes.items():
                assert hasattr(op.builtinOptions, key), key
                setattr(op.builtinOptions, key, value)
        self.graph.operators.append(op)
        return outputs[0]

    def save(self, name, outputs, archive):
        self.graph.inputs = [index for index, _ in self.values]
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        data = bytes(builder.Output())
        with open(os.path.join(FOLDER, name + ".tflite"), "wb") as file:
            file.write(data)
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        for number, (index, value) in enumerate(self.values):
            interpreter.set_tensor(interpreter.get_input_details()[number]["index"], value)
            archive[f"{name}.in{number}"] = value
        interpreter.invoke()
        for number, detail in enumerate(interpreter.get_output_details()):
            archive[f"{name}.out{number}"] = interpreter.get_tensor(detail["index"])


def floats(*shape, low=-2.0, high=2.0):
    return random.uniform(low, high, shape).astype(np.float32)


def codes(*shape):
    return random.integers(-128, 128, shape, dtype=np.int8)


def ints(*values):
    return np.array(values, np.int32)


def single(archive, name, op, x, shape, extra=(), options=None, dtype=None, **attributes):
    """One operator on a float image `x` and constants."""
    g = Graph()
    i = g.input("x", x)
    y = g.tensor("y", shape, dtype or x.dtype)
    g.op(op, [i] + [g.constant(f"c{n}", c) for n, c in enumerate(extra)], [y], options, **attributes)
    g.save(name, [y], archive)


def cases(archive):
    def case(*arguments, **named):
        single(archive, *arguments, **named)

    conv = dict(strideH=2, strideW=1, dilationHFactor=1, dilationWFactor=1)
    case("conv_same_relu", "CONV_2D", floats(1, 7, 6, 3), (1, 4, 6, 5), [floats(5, 3, 2, 3), floats(5)],
         "Conv2DOptions", padding=0, fusedActivationFunction=1, **conv)
    case("conv_valid_relu6", "CONV_2D", floats(2, 7, 6, 3), (2, 3, 5, 5), [floats(5, 3, 2, 3), floats(5)],
         "Conv2DOptions", padding=1, fusedActivationFunction=3, **conv)
    case("depthwise", "DEPTHWISE_CONV_2D", floats(1, 5, 6, 3), (1, 5, 6, 6), [floats(1, 3, 3, 6), floats(6)],
         "DepthwiseConv2DOptions", padding=0, strideH=1, strideW=1, depthMultiplier=2, dilationHFactor=1,
         dilationWFactor=1, fusedActivationFunction=0)
    case("fully_connected", "FULLY_CONNECTED", floats(3, 2, 4), (3, 2, 5), [floats(5, 4), floats(5)],
         "FullyConnectedOptions", fusedActivationFunction=1, keepNumDims=True)
    case("average_pool", "AVERAGE_POOL_2D", floats(1, 5, 6, 3), (1, 3, 3, 3), [], "Pool2DOptions", padding=0,
         strideH=2, strideW=2, filterHeight=3, filterWidth=2, fusedActivationFunction=0)
    case("max_pool", "MAX_POOL_2D", floats(1, 5, 6, 3), (1, 2, 3, 3), [], "Pool2DOptions", padding=1, strideH=2,
         strideW=2, filterHeight=2, filterWidth=2, fusedActivationFunction=1)
    case("softmax", "SOFTMAX", floats(2, 7), (2, 7), [], "SoftmaxOptions", beta=1.5)
    case("log_softmax", "LOG_SOFTMAX", floats(2, 7), (2, 7), [], "LogSoftmaxOptions")
    case("l2_normalization", "L2_NORMALIZATION", floats(2, 7), (2, 7), [], "L2NormOptions")
    case("add_relu", "ADD", floats(2, 1, 3), (2, 4, 3), [floats(4, 1)], "AddOptions", fusedActivationFunction=1)
    case("mul", "MUL", floats(2, 3), (2, 3), [floats(2, 3)], "MulOptions")
    case("sub_relu6", "SUB", floats(2, 3), (2, 3), [floats(3)], "SubOptions", fusedActivationFunction=3)
    case("squared_difference", "SQUARED_DIFFERENCE", floats(2, 3), (2, 3), [floats(3)])
    case("less", "LESS", floats(2, 3), (2, 3), [floats(3)], dtype=bool)
    case("prelu", "PRELU", floats(1, 2, 2, 3), (1, 2, 2, 3), [floats(1, 1, 3)])
    for name in ["HARD_SWISH", "LOGISTIC", "TANH", "ELU", "EXP", "SQUARE", "ABS", "NEG", "FLOOR", "ROUND"]:
        case(name.lower(), name, floats(3, 5, low=-4, high=4), (3, 5))
    case("rsqrt", "RSQRT", floats(3, 5, low=0.1, high=4), (3, 5))
    case("leaky_relu", "LEAKY_RELU", floats(3, 5), (3, 5), [], "LeakyReluOptions", alpha=0.3)
    case("gelu_tanh", "GELU", floats(3, 5), (3, 5), [], "GeluOptions", approximate=True)
    case("reshape", "RESHAPE", floats(2, 6), (3, 4), [ints(3, -1)], "ReshapeOptions", newShape=[3, -1])
    case("transpose", "TRANSPOSE", floats(2, 3, 4), (4, 2, 3), [ints(2, 0, 1)])
    case("mean", "MEAN", floats(2, 3, 4, 5), (2, 5), [ints(1, 2)], "ReducerOptions", keepDims=False)
    case("sum_keep", "SUM", floats(2, 3, 4), (2, 1, 4), [ints(-2)], "ReducerOptions", keepDims=True)
    case("pad", "PAD", floats(2, 3), (3, 6), [ints(0, 1, 2, 1).reshape(2, 2)])
    case("pad_v2", "PADV2", floats(2, 3), (3, 6), [ints(0, 1, 2, 1).reshape(2, 2), np.float32(1.5)])
    case("mirror_pad", "MIRROR_PAD", floats(3, 4), (5, 8), [ints(1, 1, 2, 2).reshape(2, 2)], "MirrorPadOptions",
         mode=0)
    case("strided_slice", "STRIDED_SLICE", floats(4, 5, 6), (2, 3), [ints(-3, 1, 5), ints(4, 2, -7), ints(2, 1, -2)],
         "StridedSliceOptions", beginMask=0, endMask=1, shrinkAxisMask=2)
    case("slice", "SLICE", floats(4, 5), (2, 4), [ints(1, 1), ints(2, -1)])
    case("squeeze", "SQUEEZE", floats(1, 3, 1), (3, 1), [], "SqueezeOptions", squeezeDims=[0])
    case("gather", "GATHER", floats(4, 5), (4, 3), [ints(4, 0, 2)], "GatherOptions", axis=1)
    case("tile", "TILE", floats(2, 3), (4, 9), [ints(2, 3)])
    case("cast", "CAST", floats(2, 3), (2, 3), [], "CastOptions", dtype=np.int32, inDataType=0, outDataType=2)
    case("batch_matmul", "BATCH_MATMUL", floats(2, 3, 4), (2, 3, 5), [floats(2, 5, 4)], "BatchMatMulOptions",
         adjX=False, adjY=True)
    for half, align in [(False, False), (True, False), (False, True)]:
        name = "half" if half else "align" if align else "plain"
        case(f"resize_bilinear_{name}", "RESIZE_BILINEAR", floats(1, 3, 5, 2), (1, 7, 4, 2), [ints(7, 4)],
             "ResizeBilinearOptions", alignCorners=align, halfPixelCenters=half)
        case(f"resize_nearest_{name}", "RESIZE_NEAREST_NEIGHBOR", floats(1, 3, 5, 2), (1, 7, 4, 2), [ints(7, 4)],
             "ResizeNearestNeighborOptions", alignCorners=align, halfPixelCenters=half)
    case("space_to_depth", "SPACE_TO_DEPTH", floats(1, 4, 6, 3), (1, 2, 3, 12), [], "SpaceToDepthOptions",
         blockSize=2)
    case("depth_to_space", "DEPTH_TO_SPACE", floats(1, 2, 3, 12), (1, 4, 6, 3), [], "DepthToSpaceOptions",
         blockSize=2)

    g = Graph()
    w, x = floats(4, 3, 2, 3), floats(1, 3, 4, 3)
    i, y = g.input("x", x), g.tensor("y", (1, 6, 8, 4), np.float32)
    g.op("TRANSPOSE_CONV", [g.constant("size", ints(1, 6, 8, 4)), g.constant("w", w), i], [y], "TransposeConvOptions",
         padding=0, strideH=2, strideW=2)
    g.save("transpose_conv", [y], archive)

    g = Graph()
    i = g.input("x", floats(2, 6))
    parts = [g.tensor(f"p{n}", (2, 3), np.float32) for n in range(2)]
    g.op("SPLIT", [g.constant("axis", np.int32(1)), i], parts, "SplitOptions", numSplits=2)
    packed, joined = g.tensor("packed", (2, 2, 3), np.float32), g.tensor("joined", (4, 3), np.float32)
    g.op("PACK", parts, [packed], "PackOptions", valuesCount=2, axis=1)
    g.op("CONCATENATION", parts[::-1], [joined], "ConcatenationOptions", axis=0)
    rows = [g.tensor(f"r{n}", (2, 3), np.float32) for n in range(2)]
    g.op("UNPACK", [packed], rows, "UnpackOptions", num=2, axis=0)
    g.save("parts", [joined] + rows, archive)

    # Weights in half precision behind a conversion.
    g = Graph()
    i, w = g.input("x", floats(2, 4)), g.constant("w", floats(3, 4).astype(np.float16))
    wide, y = g.tensor("wide", (3, 4), np.float32), g.tensor("y", (2, 3), np.float32)
    g.op("DEQUANTIZE", [w], [wide], "DequantizeOptions")
    g.op("FULLY_CONNECTED", [i, wide, -1], [y], "FullyConnectedOptions")
    g.save("half_weights", [y], archive)

    # Float image, 8-bit weights: numbers are rounded to the range of each row.
    g = Graph()
    i = g.input("x", floats(3, 8))
    w = g.constant("w", codes(5, 8).clip(-127), scale=0.02)
    y = g.tensor("y", (3, 5), np.float32)
    g.op("FULLY_CONNECTED", [i, w, g.constant("b", floats(5))], [y], "FullyConnectedOptions", version=3)
    g.save("hybrid", [y], archive)

    quantized(archive)


def quantized(archive):
    """8-bit cases; every tensor has a scale."""
    def start(*shape, scale=0.05, zero=-3):
        g = Graph()
        return g, g.input("x", codes(*shape), scale=scale, zero=zero)

    def result(g, shape, scale, zero, name="y"):
        return g.tensor(name, shape, np.int8, scale=scale, zero=zero)

    conv = dict(strideH=1, strideW=2, dilationHFactor=1, dilationWFactor=1)
    g, i = start(1, 7, 6, 3)
    scales = np.linspace(0.005, 0.02, 5)
    w = g.constant("w", codes(5, 3, 3, 3).clip(-127), scale=scales)
    b = g.constant("b", random.integers(-500, 500, 5, dtype=np.int32), scale=scales * 0.05)
    y = result(g, (1, 7, 3, 5), 0.06, 10)
    g.op("CONV_2D", [i, w, b], [y], "Conv2DOptions", padding=0, fusedActivationFunction=1, version=3, **conv)
    g.save("q_conv", [y], archive)

    conv = dict(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    g, i = start(1, 5, 6, 4, zero=-128)
    scales = np.linspace(0.01, 0.03, 4)
    w = g.constant("w", codes(1, 3, 3, 4).clip(-127), scale=scales, axis=3)
    b = g.constant("b", random.integers(-500, 500, 4, dtype=np.int32), scale=scales * 0.05)
    y = result(g, (1, 5, 6, 4), 0.1, 0)
    g.op("DEPTHWISE_CONV_2D", [i, w, b], [y], "DepthwiseConv2DOptions", padding=0, depthMultiplier=1,
         fusedActivationFunction=3, version=3, **conv)
    g.save("q_depthwise", [y], archive)

    g, i = start(3, 10)
    w = g.constant("w", codes(6, 10).clip(-127), scale=0.01)
    b = g.constant("b", random.integers(-500, 500, 6, dtype=np.int32), scale=0.01 * 0.05)
    y = result(g, (3, 6), 0.08, -5)
    g.op("FULLY_CONNECTED", [i, w, b], [y], "FullyConnectedOptions", version=4)
    p = result(g, (3, 6), 1 / 256, -128, "p")
    g.op("SOFTMAX", [y], [p], "SoftmaxOptions", beta=1.0, version=2)
    g.save("q_classifier", [p], archive)

    for name, scale in [("ADD", 0.07), ("MUL", 0.2), ("SUB", 0.07)]:
        g, i = start(1, 4, 5, 3)
        j = g.input("x2", codes(1, 4, 5, 3), scale=0.03, zero=7)
        y = result(g, (1, 4, 5, 3), scale, -2)
        options = name.capitalize() + "Options"
        g.op(name, [i, j], [y], options, fusedActivationFunction=1 if name == "ADD" else 0, version=2)
        g.save("q_" + name.lower(), [y], archive)

    g, i = start(1, 8, 8, 3)
    y = result(g, (1, 4, 4, 3), 0.05, -3)
    pool = dict(padding=1, strideH=2, strideW=2, filterHeight=2, filterWidth=2, version=2)
    g.op("AVERAGE_POOL_2D", [i], [y], "Pool2DOptions", **pool)
    m = result(g, (1, 2, 2, 3), 0.05, -3, "m")
    g.op("MAX_POOL_2D", [y], [m], "Pool2DOptions", **pool)
    g.save("q_pools", [y, m], archive)

    g, i = start(1, 4, 5, 3)
    y = result(g, (1, 3), 0.04, 4)
    g.op("MEAN", [i, g.constant("axes", ints(1, 2))], [y], "ReducerOptions", version=2)
    g.save("q_mean", [y], archive)

    g, i = start(2, 3)
    padded = result(g, (3, 5), 0.05, -3, "padded")
    g.op("PAD", [i, g.constant("pads", ints(0, 1, 1, 1).reshape(2, 2))], [padded], version=2)
    other = result(g, (3, 5), 0.09, 11, "other")
    g.op("QUANTIZE", [padded], [other], "QuantizeOptions", version=2)
    joined = result(g, (3, 10), 0.05, -3, "joined")
    g.op("CONCATENATION", [padded, padded], [joined], "ConcatenationOptions", axis=1, version=2)
    back = g.tensor("back", (3, 10), np.float32)
    g.op("DEQUANTIZE", [joined], [back], "DequantizeOptions", version=2)
    g.save("q_moves", [other, joined, back], archive)

    for name, scale, zero in [("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0), ("HARD_SWISH", 0.05, -60)]:
        g, i = start(3, 7, scale=0.05, zero=4)
        y = result(g, (3, 7), scale, zero)
        g.op(name, [i], [y], version=2 if name != "HARD_SWISH" else 1)
        g.save("q_" + name.lower(), [y], archive)

    g = Graph()
    i = g.input("x", floats(2, 9, low=-3, high=3))
    y = result(g, (2, 9), 0.0234, -1)
    g.op("QUANTIZE", [i], [y], "QuantizeOptions")
    g.save("q_quantize", [y], archive)


if __name__ == "__main__":
    os.makedirs(FOLDER, exist_ok=True)
    results = {}
    cases(results)
    np.savez_compressed(os.path.join(FOLDER, "cases.npz"), **results)
    print(len({key.split(".")[0] for key in results}), "cases")
