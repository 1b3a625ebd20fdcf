#!/usr/bin/env python3
"""Print how much quality mcc's quantized programs lose, against rounding to nearest and against llama.cpp's curve.

usage: quality.py FOLDER [--only weights curve ablation formats speed encoder cache keywords softmax] [--seeds 3] [--quick]
                  [--large MODEL] [--vision FOLDER] [--mcc .build/release/mcc]

FOLDER receives the tables as quality.json, whose rows of parts that are not measured stay. All parts with three seeds take half
a day on two cores, with --quick (one seed, a quarter of the text) two to three hours. --large is a language model whose
weights do not fit into caches, for `speed`; without, six layers of make_llama.py. Models and texts are those of
MCC_TEST_MODELS (default ../shared/models). Divergence (KL) is that of the next token's distribution from the original model
in f32; pycode7m by the protocol of llama-perplexity -c 256: the first 120,000 characters of eval.txt as one stream, windows of
256 with the first token replaced by BOS, tokens from 128 on counted.
Calibration is on calibration.txt; a seed is the part of it that is read. Bytes are weights with scales, and the tokenizer.

Networks of convolutions (keywords) are judged on the inputs of mlperf-tiny: keyword spotting calibrated on the first 200 inputs of
kws_eval.npz (seeds: half of these, drawn) and counted on the other 800; the others calibrated on seeded inputs of the same
distribution as those that TensorFlow Lite's outputs were recorded for, and compared on the latter. The error is the root mean
square of the difference from the float network's outputs over that of the outputs.

Codes for what softmax gives (softmax) are fitted on one text, or on the samples of the vision transformer that
make_vision_transformer.py wrote to the folder of --vision, or writes to FOLDER/vision.
"""
import argparse
import json
import math
import os
import re
import statistics
import sys

from make_llama import write_hugging_face
from pairing import Failed, alternate, compiled, output, ratio, spread
from tiny_networks import keywords

# llama.cpp of August 2026 on pycode7m: bytes of the file and KL, with an importance matrix where that is better; measured
# for this project with llama-perplexity, see the protocol above.
LLAMA = {"Q8_0": (7949888, 0.000085), "Q6_K": (6172224, 0.000464), "Q5_K_M": (5458496, 0.000695),
         "Q5_0": (5336640, 0.000873), "Q4_K_M": (4786752, 0.001532), "Q4_K_S": (4591168, 0.001739),
         "IQ4_NL": (4574784, 0.002113), "Q4_0": (4550208, 0.002424), "IQ4_XS": (4384320, 0.002262),
         "Q3_K_M": (4036160, 0.004564), "IQ3_S": (3714624, 0.006362), "IQ3_XXS": (3256096, 0.013904),
         "Q2_K": (3315264, 0.020120)}

# Bytes that the tokenizer of pycode7m takes beside its weights.
VOCABULARY = 155000


def envelope():
    """The points of LLAMA that no smaller file beats, by bytes."""
    points, best = [], math.inf
    for size, kl in sorted(LLAMA.values()):
        if kl < best:
            points.append((size, kl))
            best = kl
    return points


def llama_at(size):
    """llama.cpp's KL at a size: log KL interpolated over bytes between points of the envelope; None outside of them."""
    points = envelope()
    for (low, a), (high, b) in zip(points, points[1:]):
        if low <= size <= high:
            return math.exp(math.log(a) + (math.log(b) - math.log(a)) * (size - low) / (high - low))
    return None


class Lab:
    """The commands that judge recipes."""

    def __init__(self, options):
        self.options = options
        self.models = os.environ.get("MCC_TEST_MODELS", "../shared/models")
        self.exact = ",".join(line.split()[0] for line in output([options.mcc, "passes", "--preset", "O1"]).splitlines())

    def path(self, name):
        return os.path.join(self.models, name)

    def file(self, name):
        return os.path.join(self.options.folder, name)

    def texts(self):
        """A calibration text per seed: all of calibration.txt, turned so that it begins elsewhere."""
        with open(self.path("pycode7m/calibration.txt"), encoding="utf-8") as file:
            text = file.read()
        paths = []
        for seed in range(self.options.seeds):
            start = len(text) * seed // self.options.seeds
            paths.append(os.path.join(self.options.folder, f"calibration-{seed}.txt"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write(text[start:] + text[:start])
        return paths

    def tales(self, count=24):
        """A calibration text per seed for stories260K: what the model itself tells, as there is no other text of its kind."""
        program = os.path.join(self.options.folder, "stories")
        output([self.options.mcc, "compile", "-q", self.path("stories260K/hf"), "-o", program])
        paths = []
        for seed in range(self.options.seeds):
            tales = [output([program, "--temperature", "1", "--seed", str(100 * seed + number), "-n", "400", "--threads", "1",
                             "Once upon a time"]) for number in range(count)]
            paths.append(os.path.join(self.options.folder, f"tales-{seed}.txt"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write("\n".join(tales))
        return paths

    def prose(self, name):
        """Comments and lines of documentation in a Python source that read as sentences, each once."""
        found = {}
        with open(self.path(name), encoding="utf-8") as file:
            for line in file:
                line = line.strip().lstrip("#").strip().strip('"').strip()
                words = re.findall(r"[A-Za-z][a-z']+", line)
                plain = re.fullmatch(r"[A-Z][A-Za-z0-9 ,.'`()\-/:;]+", line)
                if plain and len(words) >= 6 and len(" ".join(words)) > 0.7 * len(line):
                    found[line] = None
        return list(found)

    def sentences(self):
        """What encoders are judged on: the sentences of tinystories_sample.txt, the prose of eval.txt, the texts that embeddings
        were recorded of."""
        with open(self.path("stories260K/tinystories_sample.txt"), encoding="utf-8") as file:
            stories = re.split(r"(?<=[.!?])[\"']?\s+", file.read().replace("<|endoftext|>", "\n"))
        with open(self.path("minilm/expected.json"), encoding="utf-8") as file:
            recorded = [case["text"] for case in json.load(file)]
        lines = [line.strip() for line in stories if len(line.split()) >= 4] + self.prose("pycode7m/eval.txt") + recorded
        path = os.path.join(self.options.folder, "sentences.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(dict.fromkeys(" ".join(line.split()) for line in lines)))
        return path

    def lessons(self):
        """A calibration text for encoders per seed, of other sentences: stories that stories260K tells, and the prose of
        calibration.txt."""
        with open(self.sentences(), encoding="utf-8") as file:
            taken = set(file.read().split("\n"))
        paths = []
        for seed, tale in enumerate(self.tales(100)):
            with open(tale, encoding="utf-8") as file:
                lines = re.split(r"(?<=[.!?])[\"']?\s+", file.read())
            lines = [" ".join(line.split()) for line in lines + self.prose("pycode7m/calibration.txt")]
            paths.append(os.path.join(self.options.folder, f"lessons-{seed}.txt"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write("\n".join(line for line in dict.fromkeys(lines) if line and line not in taken))
        return paths

    def eval(self, model, text, passes, *arguments):
        """The row of a model after passes behind the exact ones."""
        command = [self.options.mcc, "eval", self.path(model), "--json", "--pipeline", f"{self.exact},{passes}", *arguments]
        return json.loads(output(command + ["--text", self.path(text)]))["results"][-1]

    def code(self, passes):
        """pycode7m by the protocol."""
        characters = "30000" if self.options.quick else "120000"
        return self.eval("pycode7m", "pycode7m/eval.txt", passes, "--kv", "32", "--window", "256", "--score-from", "128",
                         "--bos", "0", "--characters", characters)

    def row(self, passes, texts):
        """What pycode7m gives with passes, in which TEXT stands for a calibration text: means over the texts, the spread of KL."""
        rows = [self.code(passes.replace("TEXT", text)) for text in (texts if "TEXT" in passes else [""])]
        kl, half = spread([row["kl"] for row in rows])
        return {"bytes": max(row["bytes"] for row in rows), "kl": kl, "spread": half,
                "same_top": statistics.mean(row["same_top"] for row in rows)}

    def stories(self, passes):
        return self.eval("stories260K/hf", "stories260K/tinystories_sample.txt", passes, "--kv", "32")


def weights(lab):
    """Weights alone, linear layers alone: KL of chosen codes over that of rounding to nearest, the grid asymmetric in groups of 32."""
    print("\nweights only, linear layers, groups of 32 with zero points: KL against round-to-nearest\n")
    print(f"{'model':<12} {'bits':>4} {'nearest':>10} {'chosen':>10} {'+-':>9} {'ratio':>6} {'bar':>5}")
    for name, run, texts, bars in (("pycode7m", lab.code, lab.texts(), {4: 0.25, 3: 0.2}),
                                   ("stories260K", lab.stories, lab.tales(), {4: 0.4, 3: 0.4})):
        for bits, bar in bars.items():
            quantize = f"quantize{{spec=w{bits}g32za32,embeddings=keep}}"
            nearest = run(quantize)["kl"]
            found = [run(f'{quantize},gptq{{text="{text}"}}')["kl"] for text in texts]
            mean, half = spread(found)
            yield {"table": "weights", "model": name, "bits": bits, "nearest": nearest, "chosen": mean, "spread": half,
                   "ratio": mean / nearest, "bar": bar}
            print(f"{name:<12} {bits:>4} {nearest:>10.6f} {mean:>10.6f} {half:>9.6f} {mean / nearest:>6.3f} {bar:>5}", flush=True)


def curve(lab):
    """Sizes from 3.3 to 7 MB with bits allocated to layers, and formats as a whole, against llama.cpp's curve."""
    print("\nquality over size, pycode7m, a8: KL against llama.cpp's lower envelope at the same bytes\n")
    print(f"{'recipe':<34} {'bytes':>9} {'KL':>10} {'+-':>9} {'llama.cpp':>10} {'ratio':>6} {'same top':>9}")
    recipes = [(f"allocate {size / 1e6:.1f} MB", f'allocate-bits{{text="TEXT",bytes={size - VOCABULARY}}},gptq{{text="TEXT"}}')
               for size in (3300000, 3700000, 4000000, 4400000, 4800000, 5200000, 5500000)]
    recipes += [(spec, f'quantize{{spec={spec}}},gptq{{text="TEXT"}}')
                for spec in ("w3g128z", "w3g32z", "w4g128z", "w4g32z", "w5g32z", "w6g32")]
    recipes += [("w8g32", "quantize{spec=w8g32}")]
    texts = lab.texts()
    for name, passes in recipes:
        row = lab.row(passes, texts)
        peer = llama_at(row["bytes"])
        ratio = "" if peer is None else f"{row['kl'] / peer:.2f}"
        print(f"{name:<34} {row['bytes']:>9} {row['kl']:>10.6f} {row['spread']:>9.6f} "
              f"{'' if peer is None else f'{peer:.6f}':>10} {ratio:>6} {100 * row['same_top']:>8.2f}%", flush=True)
        yield {"table": "curve", "recipe": name, "llama": peer, **row}


# The formats whose bytes, for all layers alike, are the budget of the ablation.
UNIFORM = {"4": "w4g128z", "3": "w3g128z", "2.5": "w2g64z"}

# What is left out of the default recipe, or put into it, as arguments of gptq and passes before the rounding.
INGREDIENTS = {
    "as it is": ("", ""),
    "without scale search": ("search=false", ""),
    "without refinement": ("refinements=0", ""),
    "without activation order": ("order=none", ""),
    "without sequential Hessians": ("inputs=original", ""),
    "without aiming at the original": ("inputs=sequential", ""),
    "with token weights": ("tokenWeight=attention", ""),
    "with rotation": ("", "rotate,"),
    "with smoothing": ("", "smooth,"),
}


def ablation(lab):
    """The default recipe with each ingredient left out once, or put in where it is off by default."""
    print("\nablation, pycode7m, a8: KL, and its ratio to the default recipe at the same bits\n")
    print(f"{'bits':>5} {'recipe':<32} {'bytes':>9} {'KL':>10} {'+-':>9} {'ratio':>6}")
    texts = lab.texts()
    for name, spec in UNIFORM.items():
        alike = f"quantize{{spec={spec}}}"
        budget = lab.code(alike)["bytes"] - VOCABULARY
        allocated = f'allocate-bits{{text="TEXT",bytes={budget}}}'
        recipes = [(label, f'{before}{allocated},gptq{{text="TEXT"{"," + option if option else ""}}}')
                   for label, (option, before) in INGREDIENTS.items()]
        recipes += [("without bit allocation", f'{alike},gptq{{text="TEXT"}}'), ("without GPTQ", allocated),
                    ("to the nearest, all alike", alike)]
        usual = None
        for label, passes in recipes:
            try:
                row = lab.row(passes, texts)
            except Failed as error:
                print(f"{name:>5} {label:<32} not measured: {error}", flush=True)
                continue
            usual = usual or row["kl"]
            ratio = row["kl"] / usual
            print(f"{name:>5} {label:<32} {row['bytes']:>9} {row['kl']:>10.6f} {row['spread']:>9.6f} {ratio:>6.2f}", flush=True)
            yield {"table": "ablation", "bits": name, "recipe": label, "ratio": ratio, **row}


# Formats of 4 bits and less that differ in their levels and scales, for all layers alike.
FORMATS = ("w4g32", "w4g32z", "wiq4nl", "wnf4", "wtl4", "wcb4", "wmxfp4", "wnvfp4", "w3g32", "w3g32z", "wtl3", "wcb3", "wfp8")


def formats(lab):
    """Formats against each other: rounded to the nearest, the same in bases turned by Hadamard matrices, and with codes chosen."""
    print("\nformats, pycode7m, a8: KL\n")
    print(f"{'format':<8} {'bytes':>9} {'nearest':>10} {'rotated':>10} {'chosen':>10} {'+-':>9}")
    texts = lab.texts()
    for spec in FORMATS:
        alike = f"quantize{{spec={spec}}}"
        nearest, rotated = lab.code(alike), lab.code(f"rotate,{alike}")
        chosen = lab.row(f'{alike},gptq{{text="TEXT"}}', texts)
        print(f"{spec:<8} {nearest['bytes']:>9} {nearest['kl']:>10.6f} {rotated['kl']:>10.6f} {chosen['kl']:>10.6f} "
              f"{chosen['spread']:>9.6f}", flush=True)
        yield {"table": "formats", "format": spec, "bytes": nearest["bytes"], "nearest": nearest["kl"],
               "rotated": rotated["kl"], "chosen": chosen["kl"], "spread": chosen["spread"]}


def speed(lab):
    """The time per decoded token of each format over that of w8, and what a rotation adds to w4g32; programs take turns."""
    large = lab.options.large or lab.file("llama")
    if lab.options.large is None and not os.path.exists(os.path.join(large, "model.safetensors")):
        write_hugging_face(large, layers=6)
    print("\ntokens per second, decoding, against w8\n")
    print(f"{'format':<26} {'bytes':>11} {'tokens/s':>9} {'to w8':>6} {'bar':>5}")

    def build(name, *arguments):
        path, _ = compiled(lab.options, large, lab.file(name), *arguments)
        return path

    def rate(program):
        return json.loads(output([program, "bench", "--json", "--prefill", "0", "--repeat", "2"]))["decode_tokens_per_second"]

    def against(name, peer, bar, *arguments):
        ours = build("ours", *arguments)
        found = alternate(9 if bar < 1 else 5, lambda: rate(ours), lambda: rate(peer))
        size, median, to_peer = os.path.getsize(ours), statistics.median(found[0]), ratio(*found)
        print(f"{name:<26} {size:>11} {median:>9.1f} {to_peer:>6.2f} {bar:>5}", flush=True)
        return {"table": "speed", "format": name, "bytes": size, "tokens_per_second": median, "ratio": to_peer, "bar": bar}

    peer = build("w8", "--quantize", "w8")
    for spec in FORMATS:
        yield against(spec, peer, 1, "--quantize", spec)
    plain = build("plain", "--quantize", "w4g32")
    yield against("w4g32 rotated, to w4g32", plain, 0.93, "--quantize", "w4g32", "--rotate", "hadamard")


def encoder(lab):
    """MiniLM: cosine of sentence embeddings to those of the original, on sentences that nothing was calibrated on."""
    print("\nMiniLM, cosine of embeddings to the original's on other sentences than those of the calibration\n")
    print(f"{'recipe':<22} {'sentences':>9} {'bytes':>9} {'cosine':>9} {'+-':>9} {'least':>9} {'bar':>7}")
    sentences, lessons = lab.sentences(), lab.lessons()
    for recipe, bar, method in (("w8a8", 0.9995, None), ("w8a8", 0.9995, "best"), ("w4", None, None), ("w4", 0.995, "best"),
                                ("w4", None, "gptq"), ("w3", None, "best"), ("w3", None, "gptq")):
        rows = []
        for lesson in lessons if method else [None]:
            command = [lab.options.mcc, "eval", lab.path("minilm"), "--json", "--quantize", recipe, "--text", sentences]
            chosen = ["--calibrate", lesson, "--method", method] if method else []
            rows.append(json.loads(output(command + chosen))["results"][-1])
        (mean, half), least = spread([row["cosine"] for row in rows]), min(row["smallest_cosine"] for row in rows)
        name = recipe + (f", {method}" if method else "")
        print(f"{name:<22} {rows[0]['count']:>9} {rows[0]['bytes']:>9} {mean:>9.6f} {half:>9.6f} {least:>9.6f} {bar or '':>7}",
              flush=True)
        yield {"table": "encoder", "recipe": name, "count": rows[0]["count"], "bytes": rows[0]["bytes"], "cosine": mean,
               "spread": half, "least": least, "bar": bar}


# Caches: a name, the type, and passes; TEXT stands for a calibration text. Tokens are read one by one where layers have rows in
# common, as rows of a call are whole there.
CACHES = (("4t", "4t", "eliminate-dead-code"), ("4", "4", "eliminate-dead-code"), ("4 + text", "4", 'center-keys{text="TEXT"}'),
          ("8", "8", "eliminate-dead-code"), ("16", "16", "eliminate-dead-code"),
          ("16 rank 0.5 of heads", "16", 'factor-cache{rank=0.5,text="TEXT"}'),
          ("16 rank 0.5", "16", 'factor-cache{rank=0.5,layers=1,text="TEXT"}'),
          ("16 rank 0.25", "16", 'factor-cache{rank=0.25,layers=1,text="TEXT"}'),
          ("8 rank 0.5", "8", 'factor-cache{rank=0.5,layers=1,text="TEXT"}'),
          ("8 rank 0.25 of 4", "8", 'factor-cache{rank=0.25,layers=4,text="TEXT"}'),
          ("16 keep 0.5", "16", 'bound-cache{keep=0.5,text="TEXT"}'),
          ("4n", "4n", "eliminate-dead-code"), ("4n + text", "4n", 'channel-cache{text="TEXT"}'),
          *((f"{bits}n + text, 1 % apart", f"{bits}n", 'channel-cache{outliers=0.01,text="TEXT"}') for bits in (4, 3, 2)),
          # What each part is good for: all but it.
          ("3n + text, 2 % apart", "3n", 'channel-cache{outliers=0.02,text="TEXT"}'),
          ("3n, none apart", "3n", 'channel-cache{text="TEXT"}'),
          ("3n, keys as they turn", "3n", 'channel-cache{outliers=0.01,channels=false,text="TEXT"}'),
          ("3n, levels given", "3n", 'channel-cache{outliers=0.01,levels=given,text="TEXT"}'),
          ("3n, even ranges", "3n", 'channel-cache{outliers=0.01,metric=plain,text="TEXT"}'))


def cache(lab):
    """Types of the KV cache, weights as they are: KL against the cache in f32, and over that of the plain scheme; with a text the
    mean of the keys is taken out, or levels are fitted."""
    print("\nKV cache: KL against the cache in f32\n")
    print(f"{'model':<24} {'cache':>24} {'KL':>11} {'same top':>9} {'to 4t':>6}")
    characters = "30000" if lab.options.quick else "120000"
    pycode = ["--bos", "0", "--characters", characters]
    code, tale = lab.texts()[0], lab.tales()[0]
    for name, model, text, lesson, windows in (
            ("pycode7m, 256 tokens", "pycode7m", "pycode7m/eval.txt", code, ["--window", "256", "--score-from", "128", *pycode]),
            ("pycode7m, 1024 tokens", "pycode7m", "pycode7m/eval.txt", code, ["--window", "1024", "--score-from", "512", *pycode]),
            ("stories260K", "stories260K/hf", "stories260K/tinystories_sample.txt", tale, [])):
        plain = None
        for label, bits, passes in CACHES:
            calls = ["--chunk", "1"] if " of 4" in label else []
            row = lab.eval(model, text, passes.replace("TEXT", lesson), "--kv", bits, *windows, *calls)
            plain = plain or row["kl"]
            print(f"{name:<24} {label:>24} {row['kl']:>11.7f} {100 * row['same_top']:>8.2f}% {row['kl'] / plain:>6.3f}", flush=True)
            yield {"table": "cache", "model": name, "cache": label, "kl": row["kl"], "same_top": row["same_top"]}


def softmax(lab):
    """Codes for the weights of attention: the cosine of MiniLM's embeddings to the original's, and with --vision the accuracy of
    a vision transformer and its logits' error, each with and without layers in few bits."""
    print("\nweights of attention in few bits\n")
    cases = [("MiniLM", lab.path("minilm"), lab.lessons()[0], ["--text", lab.sentences()])]
    folder = lab.options.vision or lab.file("vision")
    try:
        if lab.options.vision is None and not os.path.exists(os.path.join(folder, "test.npz")):
            maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "make_vision_transformer.py")
            output([sys.executable, maker, folder])
        cases.append(("ViT", os.path.join(folder, "vit"), os.path.join(folder, "samples.npz"),
                      ["--data", os.path.join(folder, "test.npz")]))
    except Failed as error:
        print(f"ViT      not measured: {error}", file=sys.stderr)
    for name, model, samples, arguments in cases:
        for layers in ("", "w4a4", "w3a4"):
            for bits, kind in [(32, "")] + [(bits, kind) for bits in (4, 3) for kind in ("sulq", "log2", "uniform")]:
                passes = [lab.exact]
                if kind:
                    passes.append(f'quantize-softmax{{text="{samples}",bits={bits},kind={kind}}}')
                if layers:
                    passes.append(f"quantize{{spec={layers}}}")
                if len(passes) == 1 and name == "MiniLM":
                    continue
                command = [lab.options.mcc, "eval", model, "--json", "--pipeline", ",".join(passes), *arguments]
                row = json.loads(output(command))["results"][-1]
                figures = {key: row[key] for key in ("accuracy", "cosine", "smallest_cosine", "error") if key in row}
                print(f"{name:<8} {layers or 'f32':<6} {bits:>3} {kind:<8}",
                      " ".join(f"{key} {value:.5f}" for key, value in figures.items()), flush=True)
                yield {"table": "softmax", "network": name, "layers": layers or "f32", "bits": bits, "kind": kind, **figures}


PARTS = {"weights": weights, "curve": curve, "ablation": ablation, "formats": formats, "speed": speed, "encoder": encoder,
         "cache": cache, "keywords": keywords, "softmax": softmax}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large")
    parser.add_argument("--vision")
    parser.add_argument("--mcc", default=".build/release/mcc")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    if options.quick:
        options.seeds = 1
    lab = Lab(options)
    path = lab.file("quality.json")
    known = []
    if os.path.exists(path):
        with open(path) as file:
            known = json.load(file)
    for part in options.only:
        found = []
        try:
            for row in PARTS[part](lab):
                found.append(row)
        except (Failed, OSError, KeyError, ValueError) as error:
            print(f"{part}: not measured: {error}", file=sys.stderr)
        known = [row for row in known if row["table"] != part] + found
        with open(path, "w") as file:
            json.dump(known, file, indent=1)


if __name__ == "__main__":
    main()
