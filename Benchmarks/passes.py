#!/usr/bin/env python3
"""Print for every pass of -O1 that changes a network how much longer its program takes without it; below 1 the pass slows
the program down.

usage: passes.py FOLDER MODEL... [--runs 15] [--repeat 50] [--threads 2] [--mcc .build/release/mcc] [--json FILE]
                [--only compile|time]

A model is an ONNX graph, whose open sizes --dim names for all, or a language model, whose decoding is measured. FOLDER receives
the programs; all are compiled before the first is timed, and `--only time` times those of an earlier `--only compile`. A pass
without which the model does not compile is told; one that leaves code and weights the same is passed over. The row `folds` lacks all
passes that fold layers into others, `O0` all passes, `itself` none: how far two runs of one program differ. A ratio is the median
of those of neighbouring runs, with their quartiles.
"""
import argparse
import json
import os
import shutil
import statistics

from pairing import Failed, alternate, compiled, output, ratio


def measure(program, options):
    """The least time of a run in milliseconds, which others on the machine change least; or the mean of a token."""
    text = json.loads(output([program, "bench", "--json", "--threads", str(options.threads),
                              "--repeat", str(options.repeat)]))
    if "decode_tokens_per_second" in text:
        return 1e3 / text["decode_tokens_per_second"]
    return text["milliseconds"]["minimum"]


def same_code(a, b):
    """Whether two programs carry the same machine code and weights: their manifests differ anyway."""
    first, second = (json.loads(output([program, "--manifest"])) for program in (a, b))
    return all(first[key] == second[key] for key in ("functions", "kernels", "weights"))


def folder(model, options):
    """Where the programs of a model are; `full` is the one of all passes, the others are named after the pass they lack."""
    return os.path.join(options.folder, os.path.splitext(os.path.basename(model.rstrip("/")))[0])


def build(model, options):
    """Compiles a model with all passes of -O1, and without each of those that change it."""
    arguments = [f"--dim={dim}" for dim in options.dim]
    shutil.rmtree(folder(model, options), ignore_errors=True)
    os.makedirs(folder(model, options))
    full, summary = compiled(options, model, os.path.join(folder(model, options), "full"), *arguments)
    passes = [(entry["pass"], sum(entry["counters"].values())) for entry in summary["passes"]]
    busy = dict.fromkeys(name for name, count in passes if count)
    lacking = {name: [name] for name in busy}
    lacking["folds"] = [name for name in busy if name.startswith("fold-") and name != "fold-constants"]
    lacking["O0"] = [name for name, _ in passes]
    for name, left_out in lacking.items():
        pipeline = [other for other, _ in passes if other not in left_out]
        program = os.path.join(folder(model, options), name)
        try:
            compiled(options, model, program, *(["--pipeline", ",".join(pipeline)] if pipeline else ["-O0"]), *arguments)
        except Failed as error:
            print(f"{os.path.basename(model)} needs {name} ({error})", flush=True)
            continue
        if same_code(full, program):
            os.remove(program)


def rows(model, options):
    """A row for each pass: its name, times with and without it, and their ratio."""
    full = os.path.join(folder(model, options), "full")
    for name in sorted(set(os.listdir(folder(model, options))) - {"full"}) + ["itself"]:
        without = full if name == "itself" else os.path.join(folder(model, options), name)
        times = alternate(options.runs, lambda: measure(without, options), lambda: measure(full, options))
        low, _, high = statistics.quantiles((a / b for a, b in zip(*times)), n=4)
        yield {"model": os.path.basename(folder(model, options)), "pass": name, "without": statistics.median(times[0]),
               "with": statistics.median(times[1]), "ratio": ratio(*times), "quartiles": [low, high]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dim", action="append", default=[])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--json")
    parser.add_argument("--only", choices=["compile", "time"])
    options = parser.parse_args()
    if options.only != "time":
        for model in options.models:
            build(model, options)
    if options.only == "compile":
        return
    found = []
    print(f"{'model':<24} {'pass':<28} {'without':>9} {'with':>9} {'ratio':>6}  quartiles")
    for model in options.models:
        for row in rows(model, options):
            found.append(row)
            print(f"{row['model']:<24} {row['pass']:<28} {row['without']:>9.3f} {row['with']:>9.3f} {row['ratio']:>6.2f}  "
                  f"{row['quartiles'][0]:.2f} {row['quartiles'][1]:.2f}", flush=True)
    slower = [row for row in found if row["ratio"] < 0.98]
    print(f"{len(found)} passes measured, {len(slower)} of them with a ratio below 0.98")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
