#!/usr/bin/env python3
"""Checks what `mcc convert` writes in the programs that read it.

For every folder of architectures/: the GGUF file in llama.cpp and the ONNX graph in ONNX Runtime, the latter at once and in
two steps through the cache, against the logits (or hidden states) that transformers recorded; and the folder made from the GGUF file
against the original tensors and, where torch is installed, in transformers against the recorded outputs. minilm/ in llama.cpp against its recorded embeddings; rotary embedding by YaRN and the encoder of
T5 alone against ONNX Runtime on the graph of the same checkpoint. Needs numpy, safetensors, onnxruntime and llama-cpp-python.
Exits with 1 if something differs.

usage: conversions.py MCC MODELS FOLDER
"""
import json
import os
import subprocess
import sys

import numpy as np

# llama.cpp keeps keys and values in f16: a relative error of 2^-11 of each, carried through the layers.
LLAMA_BOUND = 5e-3
# Two correct f32 implementations.
ONNX_BOUND = 1e-4
# BERT in llama.cpp has GELU from a table of f16.
GELU_BOUND = 1e-2


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


def context(path, **options):
    """A model in llama.cpp, and a context with the given settings."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    context.quiet = quiet
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    assert model, path
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 512
    for key, value in options.items():
        setattr(settings, key, value)
    return model, llama_cpp.llama_init_from_model(model, settings)


def batch(ids):
    import llama_cpp

    tokens = llama_cpp.llama_batch_init(len(ids), 0, 1)
    tokens.n_tokens = len(ids)
    for place, token in enumerate(ids):
        tokens.token[place], tokens.pos[place], tokens.n_seq_id[place] = int(token), place, 1
        tokens.seq_id[place][0], tokens.logits[place] = 0, 1
    return tokens


def hidden_states(path, ids):
    """The last hidden states of an encoder in llama.cpp."""
    import llama_cpp

    model, state = context(path, embeddings=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_NONE)
    assert llama_cpp.llama_encode(state, batch(ids)) == 0
    width = llama_cpp.llama_model_n_embd(model)
    return np.array([llama_cpp.llama_get_embeddings_ith(state, row)[:width] for row in range(len(ids))])


def bert_error(path, expected):
    return max(relative(hidden_states(path, ids), wanted) for ids, wanted in cases(expected))


def t5_error(path, expected):
    import llama_cpp

    worst = 0.0
    for case in (0, 1):
        model, state = context(path)
        assert llama_cpp.llama_encode(state, batch(expected[f"input_ids_{case}"].ravel())) == 0
        ids, wanted = expected[f"decoder_input_ids_{case}"].ravel(), expected[f"output_{case}"][0]
        assert llama_cpp.llama_decode(state, batch(ids)) == 0
        rows = [llama_cpp.llama_get_logits_ith(state, row)[: wanted.shape[1]] for row in range(len(ids))]
        worst = max(worst, relative(np.array(rows), wanted))
    return worst


def t5_onnx_error(path, expected):
    import onnxruntime

    encoder, decoder = (
        onnxruntime.InferenceSession(path.replace(".onnx", f".{part}.onnx")) for part in ("encoder", "decoder"))
    names = [output.name for output in decoder.get_outputs()]
    worst = 0.0
    for case in "01":
        found = encoder.run(None, {"input_ids": expected["input_ids_" + case].astype(np.int64)})
        source = {output.name.replace("present", "past_key_values"): value
                  for output, value in zip(encoder.get_outputs(), found) if output.name.startswith("present")}
        empty = {value.name: np.zeros([1, value.shape[1], 0, value.shape[3]], np.float32)
                 for value in decoder.get_inputs() if ".decoder." in value.name}
        ids, wanted = expected["decoder_input_ids_" + case].astype(np.int64), expected["output_" + case]
        worst = max(worst, relative(decoder.run(None, {"input_ids": ids, **source, **empty})[0], wanted))
        first = dict(zip(names, decoder.run(None, {"input_ids": ids[:, :3], **source, **empty})))
        past = {name.replace("present", "past_key_values"): value for name, value in first.items() if "present" in name}
        second = decoder.run(None, {"input_ids": ids[:, 3:], **source, **past})[0]
        worst = max(worst, relative(np.concatenate([first["logits"], second], 1), wanted))
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
    # The layer over the first token of BERT has no place in GGUF.
    a = {name: value for name, value in a.items() if not name.startswith("pooler.")}
    if set(a) != set(b):
        return float("inf")
    # Gains around 1 lose the last bit of gains around 0.
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def transformers_error(folder, expected):
    """The error of a folder in transformers; None without torch."""
    try:
        import torch
        import transformers
    except ImportError:
        return None
    transformers.logging.set_verbosity_error()
    config = transformers.AutoConfig.from_pretrained(folder)
    if config.is_encoder_decoder:
        kind = transformers.AutoModelForSeq2SeqLM
    else:
        kind = transformers.AutoModel if config.model_type == "bert" else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    worst = 0.0
    for case in (0, 1):
        inputs = {"input_ids": torch.tensor(expected[f"input_ids_{case}"].astype(np.int64))}
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor(expected[f"decoder_input_ids_{case}"].astype(np.int64))
        with torch.no_grad():
            found = model(**inputs)
        rows = found.last_hidden_state if config.model_type == "bert" else found.logits
        worst = max(worst, relative(rows.numpy(), expected[f"output_{case}"]))
    return worst


def changed(source, folder, change, tensors=lambda tensors: tensors):
    """A copy of a checkpoint with another configuration, and with what becomes of its tensors."""
    from safetensors.numpy import load_file, save_file

    os.makedirs(folder, exist_ok=True)
    config = json.load(open(os.path.join(source, "config.json")))
    config.update(change)
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    save_file(tensors(load_file(os.path.join(source, "model.safetensors"))), os.path.join(folder, "model.safetensors"))
    return folder


def variants(mcc, models, folder):
    """Names, bounds and errors of what no folder of architectures/ has."""
    import onnxruntime

    def convert(source, name):
        path = os.path.join(folder, name)
        subprocess.run([mcc, "convert", "-q", source, path], check=True)
        return path

    embedder = convert(os.path.join(models, "minilm"), "minilm.gguf")
    from llama_cpp import Llama

    recorded = json.load(open(os.path.join(models, "minilm", "expected.json")))
    model = Llama(embedder, embedding=True, n_ctx=512, verbose=False)
    found = [model.embed(case["text"], normalize=True) for case in recorded]
    cosines = [float(np.dot(a, case["embedding"]) / np.linalg.norm(a)) for a, case in zip(found, recorded)]
    yield "minilm", 1e-4, 1 - min(cosines)

    ids = np.random.default_rng(1).integers(0, 500, 60)
    yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
    for name, table in [("yarn", yarn), ("yarn-factor", dict(yarn, attention_factor=0.8))]:
        source = changed(
            os.path.join(models, "architectures", "llama"), os.path.join(folder, name + "-hf"), dict(rope_parameters=table))
        session = onnxruntime.InferenceSession(convert(source, name + ".onnx"))
        empty = {value.name: np.zeros([1, value.shape[1], 0, value.shape[3]], np.float32)
                 for value in session.get_inputs() if value.name.startswith("past")}
        wanted = session.run(None, {"input_ids": ids[None].astype(np.int64), **empty})[0][0]
        model = Llama(convert(source, name + ".gguf"), n_ctx=128, logits_all=True, verbose=False)
        model.eval(ids.tolist())
        yield name, LLAMA_BOUND, relative(np.array(model.scores[: len(ids)]), wanted)

    source = changed(
        os.path.join(models, "architectures", "t5"), os.path.join(folder, "t5encoder-hf"),
        dict(architectures=["T5EncoderModel"]),
        lambda tensors: {key: value for key, value in tensors.items() if not key.startswith("decoder.")})
    session = onnxruntime.InferenceSession(convert(source, "t5encoder.onnx"))
    wanted = session.run(None, {"input_ids": ids[None].astype(np.int64)})[0][0]
    yield "t5encoder", GELU_BOUND, relative(hidden_states(convert(source, "t5encoder.gguf"), ids), wanted)


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
        forms = [("gguf", LLAMA_BOUND, llama_error), ("onnx", ONNX_BOUND, onnx_error)]
        if name == "bert":
            forms[0] = ("gguf", GELU_BOUND, bert_error)
        if name == "t5":
            forms = [("gguf", GELU_BOUND, t5_error), ("onnx", ONNX_BOUND, t5_onnx_error)]
        for form, bound, check in forms:
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
                error = transformers_error(copy, expected)
                failed |= error is not None and not error <= ONNX_BOUND
                line.append("transformers " + ("skipped: no torch" if error is None else f"{error:.1e}"))
        print(", ".join(line), flush=True)
    for name, bound, error in variants(mcc, models, folder):
        failed |= not error <= bound
        print(f"{name:12}, gguf {error:.1e}", flush=True)
    sys.exit(1 if failed else 0)


main()
