"""Networks of MLPerf Tiny in int8, judged on their inputs: the part `keywords` of quality.py."""
import json
import re

import numpy as np

from pairing import output, spread

# Networks of MLPerf Tiny: float, int8 as TensorFlow Lite has it.
TINY = (("ad01_fp32", "ad01_int8"), ("pretrainedResnet", "pretrainedResnet_quant"), ("vww_96_float", "vww_96_int8"))
# What is tried: the default (minmax, biases corrected), other ranges, and codes chosen by the windows of convolutions.
NETWORK_RECIPES = (("default", []), ("percentile", ["--calibration-range", "percentile"]),
                   ("mse", ["--calibration-range", "mse"]),
                   ("entropy", ["--calibration-range", "entropy"]),
                   ("sparse-minmax", ["--calibration-range", "sparse-minmax"]), ("gptq", ["--method", "gptq"]))
SAMPLES = 32


def codes(lab, model):
    """The scales and zero points, for signed codes, of the input and the output of a TensorFlow Lite model in int8."""
    text = output([lab.options.mcc, "dump", model])
    found = [(float(scale), int(zero) - 128) for scale, zero in
             re.findall(r"\{scale = ([0-9.e+-]+), zeroPoint = (\d+)\}", text)]
    first = re.search(r"input = \{scale = ([0-9.e+-]+), zeroPoint = (\d+)\}", text)
    return (float(first[1]), int(first[2]) - 128), found[-1]


def runs(lab, program, inputs):
    """The first output of a program for each input, as rows."""
    source, target = lab.file("x.npy"), lab.file("y.npz")
    rows = []
    for x in inputs:
        np.save(source, x)
        output([program, "--input", source, "--output", target])
        with np.load(target) as archive:
            rows.append(archive[archive.files[0]].reshape(-1))
    return np.stack(rows)


def network(lab, model, *arguments):
    """The program of a network."""
    program = lab.file("network")
    output([lab.options.mcc, "compile", "-q", lab.path(model), "-o", program, *arguments])
    return program


def distance(found, wanted):
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted ** 2)))


def spotting(lab):
    """Keyword spotting: the share of the last 800 inputs that get their label."""
    model = "mlperf-tiny/kws_ref_model_float32.onnx"
    with np.load(lab.path("mlperf-tiny/kws_eval.npz")) as archive:
        inputs, labels, expected = (archive[name] for name in ("input", "label", "expected"))
    data = lab.file("rest.npz")
    np.savez(data, input=inputs[200:], label=labels[200:], expected=expected[200:])
    float_accuracy = float(np.mean(np.argmax(expected[200:], 1) == labels[200:]))
    for recipe, arguments in NETWORK_RECIPES:
        accuracies, errors = [], []
        for seed in range(lab.options.seeds):
            order = range(200) if seed == 0 else sorted(np.random.default_rng(seed).permutation(200)[:100])
            samples = lab.file("samples.npz")
            np.savez(samples, input=inputs[list(order)])
            command = [lab.options.mcc, "eval", "--json", network(lab, model, "--quantize", "w8", "--calibrate", samples,
                                                                  *arguments), "--data", data]
            row = json.loads(output(command))["results"][-1]
            accuracies.append(row["accuracy"])
            errors.append(row["error"])
        (accuracy, half), (error, _) = spread(accuracies), spread(errors)
        print(f"{'keyword spotting':<18} {recipe:<14} {100 * accuracy:>8.2f}% +-{100 * half:.2f} (float "
              f"{100 * float_accuracy:.2f}%) {error:>10.5f}", flush=True)
        yield {"table": "keywords", "network": "keyword spotting", "recipe": recipe, "accuracy": accuracy,
               "spread": half, "float": float_accuracy, "bar": float_accuracy - 0.003, "error": error}


def keywords(lab):
    """Networks of convolutions in int8: accuracy, and errors against those of TensorFlow Lite's own int8 files."""
    print("\nnetworks of convolutions in int8, activations calibrated by mcc\n")
    yield from spotting(lab)
    print(f"\n{'network':<18} {'recipe':<14} {'error':>9} {'+-':>9} {'TFLite':>9} {'ratio':>6}")
    for name, peer in TINY:
        with np.load(lab.path(f"mlperf-tiny/{peer}.expected.npz")) as archive:
            stored, found = archive["input"], archive["output"].reshape(8, -1)
        (scale, zero), (out_scale, out_zero) = codes(lab, lab.path(f"mlperf-tiny/{peer}.tflite"))
        inputs = ((stored.astype(np.float32) - zero) * np.float32(scale)).astype(np.float32)
        model = f"mlperf-tiny/{name}.onnx"
        wanted = runs(lab, network(lab, model), inputs)
        theirs = distance((found.astype(np.float64) - out_zero) * out_scale, wanted)
        for recipe, arguments in NETWORK_RECIPES:
            errors = []
            for seed in range(lab.options.seeds):
                drawn = np.random.default_rng([7, seed]).integers(-128, 128, (SAMPLES, *inputs.shape[2:]))
                samples = lab.file("samples.npz")
                np.savez(samples, input=((drawn.astype(np.float32) - zero) * np.float32(scale)).astype(np.float32))
                program = network(lab, model, "--quantize", "w8", "--calibrate", samples, *arguments)
                errors.append(distance(runs(lab, program, inputs), wanted))
            error, half = spread(errors)
            print(f"{name:<18} {recipe:<14} {error:>9.5f} {half:>9.5f} {theirs:>9.5f} {error / theirs:>6.2f}", flush=True)
            yield {"table": "keywords", "network": name, "recipe": recipe, "error": error, "spread": half,
                   "tflite": theirs, "ratio": error / theirs, "bar": 1.01}
