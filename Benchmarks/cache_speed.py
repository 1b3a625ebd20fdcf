#!/usr/bin/env python3
"""Print how fast programs with other KV caches decode and read a prompt behind many tokens, for what `kv16` reaches.

usage: cache_speed.py FOLDER [--model ../shared/models/pycode7m] [--text .../calibration.txt] [--behind 860] [--runs 7]
                      [--mcc .build/release/mcc]

Programs take turns; a figure is the median of the ratios of neighbouring runs, with the least and the most. FOLDER receives the programs.
"""
import argparse
import json
import os

from pairing import alternate, compiled, output, ratio

# The options of a cache; TEXT stands for a calibration text.
CACHES = (("kv16", "--kv 16"), ("kv8", "--kv 8"), ("kv4", "--kv 4"),
          ("kv4n, 1 % apart", "--kv 4n --calibrate TEXT"), ("kv3n, 1 % apart", "--kv 3n --calibrate TEXT"),
          ("kv16, half of heads", "--kv 16 --kv-rank 0.5 --kv-layers 0 --calibrate TEXT"),
          ("kv16, half of a layer", "--kv 16 --kv-rank 0.5 --calibrate TEXT"),
          ("kv8, half of a layer", "--kv 8 --kv-rank 0.5 --calibrate TEXT"),
          ("kv16, a quarter of a layer", "--kv 16 --kv-rank 0.25 --calibrate TEXT"),
          ("kv16, a quarter of two layers", "--kv 16 --kv-rank 0.25 --kv-layers 2 --calibrate TEXT"),
          ("kv16, a quarter of four layers", "--kv 16 --kv-rank 0.25 --kv-layers 4 --calibrate TEXT"),
          ("kv8, a quarter of four layers", "--kv 8 --kv-rank 0.25 --kv-layers 4 --calibrate TEXT"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--model", default=os.path.join(os.environ.get("MCC_TEST_MODELS", "../shared/models"), "pycode7m"))
    parser.add_argument("--text")
    parser.add_argument("--behind", type=int, default=860)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--mcc", default=".build/release/mcc")
    options = parser.parse_args()
    text = options.text or os.path.join(options.model, "calibration.txt")
    os.makedirs(options.folder, exist_ok=True)

    def rate(program, *arguments):
        found = json.loads(output([program, "bench", "--json", "--context", str(options.behind), *arguments]))
        return found["decode_tokens_per_second"] or found["prefill_tokens_per_second"]

    def program(number, arguments):
        path = os.path.abspath(os.path.join(options.folder, f"cache-{number}"))
        words = [text if word == "TEXT" else word for word in arguments.split()]
        return compiled(options, options.model, path, "--context", str(options.behind + 128), *words)[0]

    programs = [program(number, arguments) for number, (_, arguments) in enumerate(CACHES)]
    print(f"behind {options.behind} tokens, for kv16: median, least and most of {options.runs} rounds\n")
    print(f"{'cache':<32} {'decoding':>20} {'prompt of 128':>20}")
    kinds = [("--prefill", "0", "--decode", "48", "--repeat", "3"), ("--prefill", "128", "--decode", "0", "--repeat", "2")]
    measures = [lambda path=path, kind=kind: rate(path, *kind) for path in programs for kind in kinds]
    found = alternate(options.runs, *measures)
    for number, (name, _) in enumerate(CACHES):
        cells = []
        for kind in range(2):
            own, plain = found[2 * number + kind], found[kind]
            ratios = [x / y for x, y in zip(own, plain)]
            cells.append(f"{ratio(own, plain):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"{name:<32} {cells[0]:>20} {cells[1]:>20}")


if __name__ == "__main__":
    main()
