#!/usr/bin/env python3
"""Print the table of speeds and sizes: every row with its ratio, the bar, and whether it is reached.

usage: table.py FOLDER [--runs 7] [--threads 2] [--mcc .build/release/mcc] [--llama-simple PROGRAM] [--only PART ...]
                [--json FILE] [--markdown FILE] [--quick]

FOLDER/llama comes from make_llama.py. Rows that cannot be measured say why. --quick: one run each, to see that all works.
"""
import argparse
import copy
import json
import os

import language_model
import networks
import pairing


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--llama-simple")
    parser.add_argument("--only", nargs="*", choices=["llama", "fp32", "int8", "encoder"])
    parser.add_argument("--json")
    parser.add_argument("--markdown", help="a file for the rows as the README has them")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.repeat = 1, 2
    os.makedirs(options.folder, exist_ok=True)
    llama = copy.copy(options)
    llama.folder = os.path.join(options.folder, "llama")
    parts = {"llama": lambda: language_model.rows(llama), "fp32": lambda: networks.fp32_rows(options),
             "int8": lambda: networks.int8_rows(options), "encoder": lambda: networks.encoder_rows(options)}
    print(f"{options.threads} threads, medians of {options.runs} alternating runs")
    print(pairing.HEAD)
    rows = []
    for name, part in parts.items():
        if options.only and name not in options.only:
            continue
        for found in part():
            rows += found
            for item in found:
                print(pairing.line(item), flush=True)
    judged = [item for item in rows if item.get("reached") is not None]
    print(f"{sum(item['reached'] for item in judged)} of {len(judged)} bars reached; "
          f"{sum('error' in item for item in rows)} rows not measured")
    if options.markdown:
        with open(options.markdown, "w") as file:
            print("| work | mcc | peer | ratio | bar |\n|---|---|---|---|---|", file=file)
            for item in rows:
                print(pairing.markdown(item), file=file)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"threads": options.threads, "runs": options.runs, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
