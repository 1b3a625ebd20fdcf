#!/usr/bin/env python3
"""Compare generated networks with ONNX Runtime and OpenVINO, paired and alternating, and print the ratios.

usage: networks.py FOLDER [--int8] [--encoder] [--runs 7] [--threads 2] [--mcc .build/release/mcc] [MODEL.onnx ...]

Without models: the seven image networks from MCC_TEST_MODELS (default ../shared/models), filled with seeded weights, in
FOLDER. --int8 compares int8 forms (make_int8_networks.py) with the peers' int8; --encoder a BERT of six layers, 128 tokens.
"""
import argparse
import json
import math
import os
import statistics
import sys
import time

import numpy as np

import pairing
from pairing import Failed, alternate, attempt, compiled, output, ratio, row

IMAGE_NETWORKS = ["resnet50", "mobilenet_v2", "efficientnet_b0", "repvgg_a0", "vit_small", "swin_tiny", "convnext_tiny"]
INT8_NETWORKS = {"resnet50": 1.05, "mobilenet_v2": 1.2, "vit_small": 1.05}


def timed(call, repeat):
    """The median milliseconds of some calls."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def onnx_runtime(model, inputs, options):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    # Threads that wait by spinning would take the cores from the program that is measured next.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    session.run(None, inputs)
    return lambda: timed(lambda: session.run(None, inputs), options.repeat)


def open_vino(model, inputs, options):
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape({name: list(array.shape) for name, array in inputs.items()})
    settings = {"INFERENCE_NUM_THREADS": options.threads, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    request.infer(inputs)
    return lambda: timed(lambda: request.infer(inputs), options.repeat)


def mcc(program, inputs, options):
    if isinstance(inputs, int):  # an encoder, which takes a number of tokens
        given = ["--tokens", str(inputs)]
    else:
        given = ["--input", program + ".inputs.npz"]
        np.savez(given[1], **inputs)
    command = [program, "bench", "--json", *given, "--threads", str(options.threads), "--repeat", str(options.repeat)]
    return lambda: json.loads(output(command))["milliseconds"]["median"]


def image_inputs(model):
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    known = {item.name for item in graph.initializer}
    generator = np.random.default_rng(0)
    return {item.name: generator.standard_normal(
        [size.dim_value or 1 for size in item.type.tensor_type.shape.dim], dtype=np.float32)
        for item in graph.input if item.name not in known}


def filled(options, name):
    """A graph of the fixtures with seeded weights."""
    target = os.path.join(options.folder, name + ".onnx")
    if not os.path.exists(target):
        source = os.path.join(os.environ.get("MCC_TEST_MODELS", "../shared/models"), "onnx")
        output([sys.executable, os.path.join(source, "fill_weights.py"), os.path.join(source, name + ".onnx"), target])
    return target


def against_peers(work, options, program, inputs, peers, bar, note="", **more):
    """A row of our program against the better of the peers, which are pairs of a name and a measure."""
    results = alternate(options.runs, mcc(program, inputs, options), *[measure for _, measure in peers])
    ours, theirs = results[0], results[1:]
    best = min(range(len(peers)), key=lambda index: statistics.median(theirs[index]))
    return row(work, statistics.median(ours), statistics.median(theirs[best]), ratio(theirs[best], ours), bar, "ms",
               note=peers[best][0] + note, **more)


def available(work, *attempts):
    """The peers that can be made; (name, function, arguments...)."""
    found, problems = [], []
    for name, function, *arguments in attempts:
        try:
            found.append((name, function(*arguments)))
        except Exception as error:  # each peer has exceptions of its own
            problems.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    if not found:
        raise Failed("; ".join(problems))
    return found, "".join(f"; without {problem}" for problem in problems)


def image_network(options, model):
    name = os.path.basename(model).removesuffix(".onnx")
    program, _ = compiled(options, model, os.path.join(options.folder, name))
    inputs = image_inputs(model)
    peers, note = available(
        name, ("ONNX Runtime", onnx_runtime, model, inputs, options), ("OpenVINO", open_vino, model, inputs, options))
    return against_peers(f"{name}, fp32", options, program, inputs, peers, 0.95, note)


def fp32_rows(options, models=None):
    """The rows of fp32 networks, with their geometric mean."""
    ratios = []
    names = models or IMAGE_NETWORKS
    for name in names:
        work = os.path.basename(name).removesuffix(".onnx") + ", fp32"
        found = attempt(work, lambda: image_network(options, name if models else filled(options, name)))
        ratios += [item["ratio"] for item in found if item.get("ratio")]
        yield found
    if len(names) > 1 and ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        whole = len(ratios) == len(names)
        yield [row("geometric mean, fp32 networks", None, None, mean, 1.15,
                   note="" if whole else f"of {len(ratios)} out of {len(names)}")]


def int8_network(options, name, bar):
    import make_int8_networks

    model = filled(options, name)
    data, quantized = make_int8_networks.make(model, options.folder)
    program, _ = compiled(options, model, os.path.join(options.folder, name + "-int8"), "--quantize", "w8", "--calibrate", data)
    float_program, _ = compiled(options, model, os.path.join(options.folder, name))
    inputs = image_inputs(model)
    attempts = [(f"{peer} {os.path.basename(file).split('.')[-2]}", function, file, inputs, options)
                for file in quantized for peer, function in [("ONNX Runtime", onnx_runtime), ("OpenVINO", open_vino)]]
    peers, note = available(name, *attempts)
    own = against_peers(f"{name}, int8", options, program, inputs, peers, bar, note)
    narrow, wide = alternate(options.runs, mcc(program, inputs, options), mcc(float_program, inputs, options))
    return [own, row(f"{name}, int8 / own fp32", statistics.median(narrow), statistics.median(wide), ratio(wide, narrow),
                     1.0, "ms")]


def int8_rows(options):
    """The rows of int8 networks."""
    for name, bar in INT8_NETWORKS.items():
        yield attempt(f"{name}, int8", int8_network, options, name, bar)


def encoder(options, tokens):
    model = filled(options, "bert_dynamic")
    generator = np.random.default_rng(0)
    inputs = {"input_ids": generator.integers(1000, 20000, (1, tokens)), "attention_mask": np.ones((1, tokens), np.int64)}
    peers, note = available("bert", ("ONNX Runtime", onnx_runtime, model, inputs, options))
    checkpoint = os.path.join(os.environ.get("MCC_TEST_MODELS", "../shared/models"), "minilm")
    try:
        program, _ = compiled(options, checkpoint, os.path.join(options.folder, "minilm"), "--quantize", "wf32")
        given = tokens
    except Failed:  # the same network as a graph
        program, _ = compiled(
            options, model, os.path.join(options.folder, "bert"), "--dim", "b=1", "--dim", f"s={tokens}")
        given, note = inputs, note + "; the ONNX graph"
    return against_peers(f"MiniLM, {tokens} tokens, fp32", options, program, given, peers, 1.2, note)


def encoder_rows(options):
    """The row of the sentence encoder."""
    yield attempt("MiniLM, 128 tokens, fp32", encoder, options, 128)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--encoder", action="store_true")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=10, help="calls in a run, of which the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mcc", default=".build/release/mcc")
    options = parser.parse_intermixed_args()
    print(pairing.HEAD)
    kinds = [int8_rows(options)] if options.int8 else [encoder_rows(options)] if options.encoder else [
        fp32_rows(options, options.models)]
    for found in (found for kind in kinds for found in kind):
        for item in found:
            print(pairing.line(item), flush=True)


if __name__ == "__main__":
    main()
