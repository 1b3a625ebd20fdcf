#!/usr/bin/env python3
"""Measure prefill and decode of a GGUF file with llama.cpp, as JSON in the form of a generated program's `bench`.

usage: llama_cpp_bench.py MODEL.gguf [--prefill 128] [--decode 32] [--threads 2] [--repeat 1]

As llama-bench does: one warm-up, then a batch of `prefill` tokens (logits of the last), and `decode` single tokens
from an empty cache; 0 of either leaves it out. Needs: pip install llama-cpp-python
"""
import argparse
import json
import time

import llama_cpp as L


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prefill", type=int, default=128)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    L.llama_backend_init()
    silent = L.llama_log_callback(lambda *_: None)
    L.llama_log_set(silent, None)
    model = L.llama_model_load_from_file(options.model.encode(), L.llama_model_default_params())
    parameters = L.llama_context_default_params()
    parameters.n_ctx = 2048
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = options.threads
    context = L.llama_init_from_model(model, parameters)
    memory = L.llama_get_memory(context)

    def run(count, together):
        if count == 0:
            return 0.0
        L.llama_memory_clear(memory, True)
        start = time.perf_counter()
        step = count if together else 1
        for _ in range(0, count, step):
            tokens = (L.llama_token * step)(*[(i * 97) % 31000 + 300 for i in range(step)])
            if L.llama_decode(context, L.llama_batch_get_one(tokens, step)) != 0:
                raise SystemExit("llama_decode failed")
            L.llama_synchronize(context)
        return count / (time.perf_counter() - start)

    run(16, True)
    run(2, False)
    prefill = sorted(run(options.prefill, True) for _ in range(options.repeat))
    decode = sorted(run(options.decode, False) for _ in range(options.repeat))
    print(json.dumps({
        "prefill_tokens_per_second": prefill[len(prefill) // 2],
        "decode_tokens_per_second": decode[len(decode) // 2],
        "threads": options.threads,
        "system": L.llama_print_system_info().decode(),
    }))


if __name__ == "__main__":
    main()
