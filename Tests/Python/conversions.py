#!/usr/bin/env python3
"""Checks what `mcc convert` writes in the programs that read it.

For every folder of architectures/: the GGUF file in llama.cpp and the ONNX graph in ONNX Runtime, the latter at once and in
two steps through the cache, against the logits that transformers recorded; and the folder made from the GGUF file against
the original tensors. Needs numpy, safetensors, onnxruntime and llama-cpp-python. Exits with 1 if something differs.

usage: conversions.py MCC MODELS FOLDER
"""
import os
import subprocess
import sys

import numpy as np

# llama.cpp keeps keys and values in f16: a relative error of 2^-11 of each, carried through the layers.
LLAMA_BOUND = 5e-3
# Two correct f32 implementations.
ONNX_BOUND = 1e-4


def relative(found, wanted):
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def cases(expected):
    return [(expected[f"input_ids_{i}"].ravel(), expected[f"output_{i}"][0]) for i in (0, 1)]


def llama_error(path, expected):
    from llama_cpp import Llama

    model = Llama(path, n_ctx=128, logits_all=True, verbose=False)
    worst = 0.0
    for ids, wanted in cases(expected):
        model.reset()
        model.eval(ids.tolist())
        worst = max(worst, relative(np.array(model.scores[: len(ids)]), wanted))
    return worst


def onnx_error(path, expected):
    import onnx
    import onnxruntime

    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path)
    outputs = [output.name for output in session.get_outputs()]
    empty = {
        value.name: np.zeros([size if isinstance(size, int) else 0 for size in value.shape], np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    worst = 0.0
    for ids, wanted in cases(expected):
        ids = ids.astype(np.int64)[None]
        whole = session.run(None, {"input_ids": ids, **empty})[0][0]
        half = ids.shape[1] // 2
        first = session.run(None, {"input_ids": ids[:, :half], **empty})
        past = {
            name.replace("present", "past_key_values" if name.endswith((".key", ".value")) else "past"): value
            for name, value in zip(outputs, first)
            if name.startswith("present")
        }
        parts = [first[0][0]]
        if past:
            parts.append(session.run(None, {"input_ids": ids[:, half:], **past})[0][0])
            worst = max(worst, relative(np.concatenate(parts), wanted))
        worst = max(worst, relative(whole, wanted))
    return worst


def folder_error(original, copy):
    from safetensors.numpy import load_file

    a, b = (load_file(os.path.join(folder, "model.safetensors")) for folder in (original, copy))
    if set(a) != set(b):
        return float("inf")
    # Gains around 1 lose the last bit of gains around 0.
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    mcc, models, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    failed = False
    root = os.path.join(models, "architectures")
    for name in sorted(os.listdir(root)):
        source = os.path.join(root, name)
        expected = np.load(os.path.join(source, "expected.npz"))
        line = [f"{name:12}"]
        for form, bound, check in [("gguf", LLAMA_BOUND, llama_error), ("onnx", ONNX_BOUND, onnx_error)]:
            path = os.path.join(folder, f"{name}.{form}")
            outcome = subprocess.run([mcc, "convert", "-q", source, path], capture_output=True, text=True)
            if outcome.returncode != 0:
                line.append(f"{form}: {outcome.stderr.strip().splitlines()[0]}")
                continue
            error = check(path, expected)
            failed |= not error <= bound
            line.append(f"{form} {error:.1e}")
            if form == "gguf":
                copy = os.path.join(folder, name)
                subprocess.run([mcc, "convert", "-q", path, copy], check=True)
                error = folder_error(source, copy)
                failed |= not error <= 1e-7
                line.append(f"and back {error:.1e}")
        print(", ".join(line), flush=True)
    sys.exit(1 if failed else 0)


main()
