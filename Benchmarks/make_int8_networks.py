#!/usr/bin/env python3
"""Make int8 forms of ONNX networks for the peers: QDQ, static, one scale per output channel, by ONNX Runtime's own quantizer.

usage: make_int8_networks.py FOLDER MODEL.onnx ...

For each NAME.onnx writes to FOLDER: NAME.u8s8.onnx and NAME.s8s8.onnx (activations unsigned and signed), and NAME.samples.npz, the
inputs both were calibrated on, for 'mcc compile --quantize w8 --calibrate'. Files that are there already are kept.
"""
import os
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

SAMPLES = 8


def samples(model):
    """Normally distributed inputs, seeded, as an array per input with the samples along the first axis."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    arrays = {}
    for item in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in item.shape]
        draws = [np.random.default_rng([1, k]).standard_normal(shape, dtype=np.float32) for k in range(1, SAMPLES + 1)]
        arrays[item.name] = np.concatenate(draws)
    return arrays


class Reader(CalibrationDataReader):
    def __init__(self, arrays):
        self.runs = iter([{name: part[None] if part.ndim < array.ndim else part for name, array in arrays.items()
                           for part in [array[k:k + 1]]} for k in range(SAMPLES)])

    def get_next(self):
        return next(self.runs, None)


def make_samples(model, folder):
    """Writes the samples of a model; their path."""
    data = os.path.join(folder, os.path.basename(model).removesuffix(".onnx") + ".samples.npz")
    if not os.path.exists(data):
        np.savez(data, **samples(model))
    return data


def make(model, folder):
    """Writes the samples and both int8 forms of a model; their paths."""
    name = os.path.basename(model).removesuffix(".onnx")
    data = make_samples(model, folder)
    arrays = samples(model)
    results = []
    for suffix, activation in [("u8s8", QuantType.QUInt8), ("s8s8", QuantType.QInt8)]:
        target = os.path.join(folder, f"{name}.{suffix}.onnx")
        results.append(target)
        if os.path.exists(target):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            prepared = os.path.join(scratch, "prepared.onnx")
            # Symbolic shape inference needs models that name their sizes; without it the result is the same for fixed ones.
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared, target, Reader(arrays), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=activation, weight_type=QuantType.QInt8)
        onnx.checker.check_model(target)
    return data, results


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for model in sys.argv[2:]:
        data, results = make(model, sys.argv[1])
        print(*results, data)


if __name__ == "__main__":
    main()
