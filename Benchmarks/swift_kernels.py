#!/usr/bin/env python3
"""Compare kernels in Swift with the same kernels in C: time of C / time of Swift, kernel by kernel.

usage: swift_kernels.py FOLDER [--mcc .build/release/mcc] [--target native] [--rounds 7] [--network FILE ...]
                        [--reuse]

Compiles a small Llama with random weights (f32, bf16, w8, w4g32, both also with f32 activations) and the given
networks with both languages, profiles the programs on one thread in turns and takes the least time of each kernel.
With `--reuse` programs that are in the folder already are not compiled again; `--rounds 0` only compiles.
Needs: numpy.
"""
import argparse
import json
import math
import os
import struct
import subprocess

import numpy as np

WIDTH, HEADS, KV_HEADS, FFN, VOCABULARY, CONTEXT, LAYERS = 512, 8, 4, 1408, 4096, 512, 2


def tensors():
    head = WIDTH // HEADS
    yield "model.embed_tokens.weight", (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (WIDTH,)
        yield prefix + "self_attn.q_proj.weight", (WIDTH, WIDTH)
        yield prefix + "self_attn.k_proj.weight", (KV_HEADS * head, WIDTH)
        yield prefix + "self_attn.v_proj.weight", (KV_HEADS * head, WIDTH)
        yield prefix + "self_attn.o_proj.weight", (WIDTH, WIDTH)
        yield prefix + "post_attention_layernorm.weight", (WIDTH,)
        yield prefix + "mlp.gate_proj.weight", (FFN, WIDTH)
        yield prefix + "mlp.up_proj.weight", (FFN, WIDTH)
        yield prefix + "mlp.down_proj.weight", (WIDTH, FFN)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (VOCABULARY, WIDTH)


def write_llama(folder, dtype):
    os.makedirs(folder, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": FFN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    }
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    random = np.random.default_rng(7)
    header, parts, offset = {}, [], 0
    for name, shape in tensors():
        values = np.ones(shape, np.float32) if len(shape) == 1 else random.standard_normal(shape, np.float32) * 0.02
        values = values.astype(np.float32)
        data = values.tobytes() if dtype == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    return folder


def profile(mcc, program, arguments):
    """The least time of one step of each kernel."""
    command = [mcc, "profile", program, "--threads", "1", "--json", *arguments]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    times = {}
    for function in report["functions"]:
        for kernel in function["kernels"]:
            # `least_seconds` counts all calls as if they were like the fastest.
            times[kernel["name"]] = kernel["least_seconds"] / function["calls"] / kernel["steps"]
    return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--target", default="native")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--reuse", action="store_true")
    options = parser.parse_args()
    f32 = write_llama(os.path.join(options.folder, "f32"), "F32")
    bf16 = write_llama(os.path.join(options.folder, "bf16"), "BF16")
    decode, prefill = ["--decode", "16", "--context", "256"], ["--prefill", "128"]
    runs = [("f32", f32, [], [decode, prefill]), ("bf16", bf16, [], [decode, prefill])]
    for spec in ["w8", "w4g32", "w8a32", "w4g32a32"]:
        runs.append((spec, f32, ["--quantize", spec], [decode, prefill]))
    for network in options.network:
        runs.append((os.path.splitext(os.path.basename(network))[0], network, [], [[]]))

    ratios = {}
    print(f"{'C us':>10} {'Swift us':>10} {'C/Swift':>8}  kernel")
    for name, model, arguments, workloads in runs:
        programs = {}
        for language in ["c", "swift"]:
            programs[language] = os.path.join(options.folder, f"{name}-{language}")
            if options.reuse and os.path.exists(programs[language]):
                continue
            subprocess.run(
                [options.mcc, "compile", "-q", model, "-o", programs[language], "--kernels", language, "--target",
                 options.target, *arguments], check=True)
        for workload in workloads:
            least = {"c": {}, "swift": {}}
            for _ in range(options.rounds):
                for language, program in programs.items():
                    for kernel, seconds in profile(options.mcc, program, workload).items():
                        least[language][kernel] = min(seconds, least[language].get(kernel, math.inf))
            for kernel, seconds in sorted(least["c"].items(), key=lambda pair: -pair[1]):
                if kernel not in ratios:
                    ratios[kernel] = (seconds / least["swift"][kernel], seconds)
                    print(f"{seconds * 1e6:10.2f} {least['swift'][kernel] * 1e6:10.2f} {ratios[kernel][0]:8.2f}  {kernel}",
                          flush=True)

    families = {}
    for kernel, (ratio, seconds) in ratios.items():
        # Shorter ones measure the clock.
        if seconds >= 1e-6:
            words = kernel.split("_")
            family = " ".join(words[1:3]) if words[1] == "matmul" else words[1]
            families.setdefault(family, []).append(ratio)
    print("\nfamily: geometric mean and least of C/Swift over kernels of at least a microsecond")
    for family, values in sorted(families.items()):
        mean = math.exp(sum(map(math.log, values)) / len(values))
        print(f"{family:24} {mean:6.2f} {min(values):6.2f}  of {len(values)}")


if __name__ == "__main__":
    main()
