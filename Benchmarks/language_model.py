#!/usr/bin/env python3
"""Compare generated language models with llama.cpp, paired and alternating, and print the ratios.

usage: language_model.py FOLDER [--runs 7] [--threads 2] [--mcc .build/release/mcc] [--llama-simple PROGRAM] [--quick]

FOLDER comes from make_llama.py. Compiles FOLDER/hf in several number formats. --llama-simple is the command-line program
`llama-simple` of llama.cpp, for the time from its start to the first token.
"""
import argparse
import json
import os
import statistics
import sys

import pairing
from pairing import Failed, alternate, attempt, compiled, output, ratio, row

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 2**20


class Llama:
    """The programs and files of one folder; each program is compiled at most once."""

    def __init__(self, options):
        self.options = options
        self.made = {}

    def path(self, name):
        return os.path.join(self.options.folder, name)

    def program(self, spec):
        if spec not in self.made:
            arguments = [] if spec == "bf16" else ["--quantize", spec]
            try:
                self.made[spec] = compiled(self.options, self.path("hf"), self.path("mcc-" + spec), *arguments)
            except Failed as error:
                self.made[spec] = error
        if isinstance(self.made[spec], Failed):
            raise self.made[spec]
        return self.made[spec]

    def bench(self, spec, **counts):
        """A measure of our program, with `prefill`, `decode` and `context`."""
        program = self.program(spec)[0]
        words = [word for name, value in counts.items() for word in ("--" + name, str(value))]
        command = [program, "bench", "--json", "--repeat", "1", "--threads", str(self.options.threads), *words]
        return lambda: json.loads(output(command))

    def peer(self, name, **counts):
        """A measure of llama.cpp on one of its files."""
        if not os.path.exists(self.path(name)):
            raise Failed(f"there is no {name}; make_llama.py makes it")
        words = [word for key, value in counts.items() for word in ("--" + key, str(value))]
        command = [sys.executable, os.path.join(HERE, "llama_cpp_bench.py"), self.path(name),
                   "--threads", str(self.options.threads), *words]
        return lambda: json.loads(output(command))

    def bandwidth(self):
        """A measure of the bytes per second that all threads read."""
        command = [self.options.mcc, "targets", "--measure", "--json", "--cache-dir", self.path("machine")]
        return lambda: json.loads(output(command))["machine"]["memory_bytes_all"]


DECODE, PREFILL = "decode_tokens_per_second", "prefill_tokens_per_second"


def decode(llama, spec, peer, bar):
    ours, theirs, read = alternate(
        llama.options.runs, llama.bench(spec, prefill=0, decode=32), llama.peer(peer, prefill=0, decode=32),
        llama.bandwidth())
    speed = [run[DECODE] for run in ours]
    program, summary = llama.program(spec)
    size, other = os.path.getsize(program), os.path.getsize(llama.path(peer))
    share = ratio([run["gigabytes_per_second"] * 1e9 for run in ours], read)
    rows = [row(f"decode {spec} / {peer}", statistics.median(speed), statistics.median(run[DECODE] for run in theirs),
                ratio(speed, [run[DECODE] for run in theirs]), bar, "tokens/s",
                note=f"{summary.get('bits_per_weight', 0):.2f} bits per weight, file {size / MIB:.0f} / {other / MIB:.0f} MiB")]
    rows.append(row(
        f"decode {spec}: share of read bandwidth", statistics.median(run["gigabytes_per_second"] for run in ours),
        statistics.median(read) * 1e-9, share, 0.85 if spec == "w4g32" else None, "GB/s"))
    if spec == "w4g32":
        rows.append(row(f"file of {spec} / {peer}", size / MIB, other / MIB, other / size, 1.0, "MiB"))
        bits = summary.get("bits_per_weight")
        rows.append(row(f"bits per weight of {spec}", bits, 4.5, 4.5 / bits if bits else None, 1.0, "bits"))
    return rows


def prefill(llama, tokens):
    names = ["q4_0.gguf", "q4_k_m.gguf", "q8_0.gguf", "f16.gguf"]
    there = [name for name in names if os.path.exists(llama.path(name))]
    if not there:
        raise Failed("there are no files for llama.cpp")
    results = alternate(
        llama.options.runs, llama.bench("w4g32", prefill=tokens, decode=0),
        *[llama.peer(name, prefill=tokens, decode=0) for name in there])
    ours = [run[PREFILL] for run in results[0]]
    peers = [[run[PREFILL] for run in runs] for runs in results[1:]]
    best = max(range(len(there)), key=lambda index: statistics.median(peers[index]))
    missing = [name for name in names if name not in there]
    note = f"best of llama.cpp: {there[best]}" + (f"; without {', '.join(missing)}" if missing else "")
    return row(f"prefill {tokens}, w4g32", statistics.median(ours), statistics.median(peers[best]),
               ratio(ours, peers[best]), 2.5, "tokens/s", note=note)


def long_context(llama):
    near, far = alternate(
        llama.options.runs, llama.bench("w4g32", prefill=0, decode=16, context=32),
        llama.bench("w4g32", prefill=0, decode=16, context=1024))
    a, b = [run[DECODE] for run in far], [run[DECODE] for run in near]
    return row("decode w4g32 at context 1024 / at 32", statistics.median(a), statistics.median(b), ratio(a, b), 0.9,
               "tokens/s")


def first_token(llama):
    peer = llama.options.llama_simple
    if not peer or not os.path.exists(peer):
        raise Failed("there is no llama-simple; --llama-simple names it")
    threads = str(llama.options.threads)
    # Start and byte tokens on both sides: llama.cpp makes five of "a" with this vocabulary.
    own = [llama.program("w4g32")[0], "generate", "--prompt-ids", "1,229,153,132,100", "-n", "1", "--threads", threads]
    other = [peer, "-m", llama.path("q4_0.gguf"), "-n", "1", "a"]
    ours, theirs = alternate(
        llama.options.runs, lambda: pairing.seconds(own)[0], lambda: pairing.seconds(other)[0])
    return row("start to first token, 5-token prompt", 1e3 * statistics.median(ours), 1e3 * statistics.median(theirs),
               ratio(theirs, ours), 3.0, "ms", note="whole runs of one token")


def memory(llama):
    program = llama.program("w4g32")[0]
    plan = json.loads(output([program, "--manifest"]))["memory"]
    planned = plan["weights_bytes"] + plan["arena_bytes"] + 16 * MIB
    _, peak = pairing.seconds([program, "bench", "--repeat", "1", "--threads", str(llama.options.threads)])
    return row("resident memory against plan + 16 MiB", peak / MIB, planned / MIB, planned / peak, 1.0, "MiB")


def code_size(llama):
    size = pairing.machine_code_bytes(llama.program("w4g32")[0])
    return row("machine code of the 1.1 B model", size / 1024, 512.0, 512 * 1024 / size, 1.0, "KiB")


def rows(options):
    """The rows of the table about language models, one list at a time."""
    llama = Llama(options)
    for spec, peer, bar in [("w4g32", "q4_0.gguf", 1.2), ("w4g128", "q4_0.gguf", 1.3), ("w8", "q8_0.gguf", 1.08),
                            ("bf16", "f16.gguf", 1.0)]:
        yield attempt(f"decode {spec} / {peer}", decode, llama, spec, peer, bar)
    for tokens in [128] if options.quick else [128, 512]:
        yield attempt(f"prefill {tokens}, w4g32", prefill, llama, tokens)
    yield attempt("decode w4g32 at context 1024 / at 32", long_context, llama)
    yield attempt("start to first token, 5-token prompt", first_token, llama)
    yield attempt("resident memory against plan + 16 MiB", memory, llama)
    yield attempt("machine code of the 1.1 B model", code_size, llama)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--llama-simple")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.runs = 1
    print(pairing.HEAD)
    for found in rows(options):
        for item in found:
            print(pairing.line(item), flush=True)


if __name__ == "__main__":
    main()
