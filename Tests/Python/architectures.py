"""Compares compiled decoders with transformers.

Makes small checkpoints with random weights and odd sizes, several variants of each architecture, records the logits of
transformers in float32, compiles with mcc and compares: the logits of whole texts (the prefill function), and greedy
continuations token by token (the decode function) up to the first near tie.

    python3 Tests/Python/architectures.py [--mcc PATH] [--keep FOLDER] [--only TEXT] [--list]

Needs the packages torch (its CPU build is enough), transformers and numpy.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib

import numpy as np

# What two float32 implementations of one network differ by, relative to the largest logit, is about 1e-6.
TOLERANCE = 1e-4
LENGTHS = (1, 7, 45)
GREEDY = 24
VOCABULARY = 131

SIZES = dict(
    vocab_size=VOCABULARY, hidden_size=60, intermediate_size=76, num_hidden_layers=3, num_attention_heads=6,
    max_position_embeddings=96, bos_token_id=1, eos_token_id=2, pad_token_id=0)
GROUPED = dict(SIZES, num_key_value_heads=2)
# Heads of 10 numbers; HALF has heads of 20, of which parts turn.
HALF = dict(GROUPED, num_attention_heads=3, num_key_value_heads=1)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=24)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
LINEAR = dict(rope_type="linear", rope_theta=5000.0, factor=2.5)
DYNAMIC = dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0)


def longrope(pairs, **more):
    return dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0 + 0.1 * i for i in range(pairs)],
                long_factor=[1.5 + 0.7 * i for i in range(pairs)], **more)


def variant(architecture, name, config, **options):
    return dict(architecture=architecture, name=f"{architecture}-{name}", config=config, options=options)


def variants():
    """All cases: model_type, name, configuration, and how the checkpoint is written."""
    result = []

    def add(*arguments, **options):
        result.append(variant(*arguments, **options))

    add("llama", "grouped", dict(GROUPED))
    add("llama", "biases", dict(GROUPED, attention_bias=True, mlp_bias=True, tie_word_embeddings=True), old=True)
    add("llama", "headdim", dict(GROUPED, head_dim=14, hidden_act="gelu"))
    add("llama", "llama3", dict(GROUPED, rope_parameters=LLAMA3), old=True)
    add("llama", "yarn", dict(GROUPED, rope_parameters=YARN))
    add("llama", "yarn-options", dict(GROUPED, rope_parameters=dict(
        YARN, beta_fast=16.0, beta_slow=2.0, mscale=0.7, mscale_all_dim=0.4, truncate=False)), old=True)
    add("llama", "linear", dict(GROUPED, rope_parameters=LINEAR), old=True)
    add("llama", "dynamic", dict(GROUPED, rope_parameters=DYNAMIC))
    add("llama", "longrope", dict(GROUPED, rope_parameters=longrope(5, original_max_position_embeddings=48)),
        context=48)
    add("mistral", "window", dict(GROUPED, sliding_window=11))
    add("mistral", "all", dict(GROUPED, sliding_window=None, head_dim=12), old=True)
    add("qwen2", "plain", dict(GROUPED, tie_word_embeddings=True), old=True)
    add("qwen2", "windows", dict(GROUPED, use_sliding_window=True, sliding_window=9, max_window_layers=1))
    add("qwen3", "plain", dict(GROUPED, head_dim=16))
    add("qwen3", "biases", dict(GROUPED, head_dim=12, attention_bias=True, tie_word_embeddings=True,
                                use_sliding_window=True, sliding_window=9, max_window_layers=2), old=True)
    add("gemma2", "plain", dict(GROUPED, head_dim=16, query_pre_attn_scalar=20, sliding_window=10))
    add("gemma2", "uncapped", dict(
        GROUPED, head_dim=12, query_pre_attn_scalar=12, sliding_window=13, attn_logit_softcapping=None,
        final_logit_softcapping=None, attention_bias=True), old=True)
    add("gemma3_text", "plain", dict(GROUPED, num_hidden_layers=7, head_dim=16, query_pre_attn_scalar=20,
                                     sliding_window=10))
    add("gemma3_text", "scaled", dict(
        GROUPED, num_hidden_layers=4, head_dim=12, query_pre_attn_scalar=12, sliding_window=7, sliding_window_pattern=2,
        final_logit_softcapping=20.0, rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=500000.0, factor=4.0),
            sliding_attention=dict(rope_type="default", rope_theta=5000.0))), old=True)
    add("phi3", "plain", dict(GROUPED))
    add("phi3", "partial", dict(HALF, sliding_window=12, partial_rotary_factor=0.6, tie_word_embeddings=True))
    add("phi3", "short", dict(GROUPED, rope_parameters=longrope(5), original_max_position_embeddings=48), context=48)
    add("phi3", "long", dict(GROUPED, rope_parameters=longrope(5), original_max_position_embeddings=24), old=True,
        lengths=(45,), greedy=False)
    add("phi", "plain", dict(HALF, num_key_value_heads=3), old=True)
    add("phi", "norms", dict(HALF, qk_layernorm=True, partial_rotary_factor=0.4, hidden_act="gelu"))
    gpt2 = dict(vocab_size=VOCABULARY, n_embd=60, n_layer=3, n_head=6, n_positions=96, bos_token_id=1, eos_token_id=2)
    add("gpt2", "plain", dict(gpt2))
    add("gpt2", "options", dict(gpt2, n_inner=83, activation_function="relu", scale_attn_by_inverse_layer_idx=True,
                                scale_attn_weights=False, tie_word_embeddings=False))
    for name in ["gelu", "gelu_fast", "quick_gelu", "silu", "tanh", "gelu_pytorch_tanh", "mish", "relu2", "relu6",
                 "leaky_relu", "sigmoid", "laplace", "hardswish", "gelu_10", "gelu_accurate", "linear"]:
        add("gpt2", name.replace("_", "-"), dict(gpt2, n_layer=1, activation_function=name), lengths=(7,), greedy=False)
    add("gpt_neox", "parallel", dict(SIZES, num_attention_heads=3, hidden_act="gelu_fast"), old=True)
    add("gpt_neox", "sequential", dict(SIZES, use_parallel_residual=False, attention_bias=False,
                                       tie_word_embeddings=True, rope_parameters=dict(
                                           rope_type="default", rope_theta=5000.0, partial_rotary_factor=1.0)))
    add("olmo2", "plain", dict(GROUPED))
    add("olmo2", "biases", dict(SIZES, attention_bias=True, tie_word_embeddings=True), old=True)
    add("stablelm", "plain", dict(HALF, partial_rotary_factor=0.3), old=True)
    add("stablelm", "parallel", dict(HALF, use_parallel_residual=True, use_qkv_bias=True, qk_layernorm=True,
                                     partial_rotary_factor=0.5))
    add("starcoder2", "window", dict(GROUPED, sliding_window=9))
    add("starcoder2", "unbiased", dict(GROUPED, use_bias=False, tie_word_embeddings=False, hidden_act="relu"), old=True)
    add("granite", "factors", dict(GROUPED, embedding_multiplier=3.5, logits_scaling=2.5, residual_multiplier=0.4,
                                   attention_multiplier=0.2))
    add("granite", "biases", dict(GROUPED, attention_bias=True, mlp_bias=True, tie_word_embeddings=True), old=True)
    add("smollm3", "nope", dict(GROUPED, num_hidden_layers=5))
    add("smollm3", "windows", dict(GROUPED, no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=8,
                                   attention_bias=True, mlp_bias=True, tie_word_embeddings=False), old=True)
    add("cohere", "plain", dict(GROUPED))
    add("cohere", "norms", dict(GROUPED, use_qk_norm=True, attention_bias=True, logit_scale=0.3,
                                tie_word_embeddings=False), old=True)
    opt = dict({k: v for k, v in SIZES.items() if k != "intermediate_size"}, ffn_dim=76)
    add("opt", "before", dict(opt))
    add("opt", "after", dict(opt, do_layer_norm_before=False, word_embed_proj_dim=44))
    add("opt", "bare", dict(opt, enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu",
                            word_embed_proj_dim=36, tie_word_embeddings=False))
    bloom = dict(vocab_size=VOCABULARY, hidden_size=60, n_layer=3, n_head=6, bos_token_id=1, eos_token_id=2)
    add("bloom", "plain", dict(bloom))
    add("bloom", "normed", dict(bloom, n_head=5, apply_residual_connection_post_layernorm=True,
                                tie_word_embeddings=False))
    falcon = {k: v for k, v in SIZES.items() if k != "intermediate_size"}
    add("falcon", "multiquery", dict(falcon))
    add("falcon", "new", dict(falcon, new_decoder_architecture=True, num_kv_heads=2, bias=True), old=True)
    add("falcon", "new-one-norm", dict(falcon, new_decoder_architecture=True, num_kv_heads=3, ffn_hidden_size=84,
                                       num_ln_in_parallel_attn=1))
    add("falcon", "alibi", dict(falcon, alibi=True, multi_query=False, parallel_attn=False, bias=True,
                                activation="relu", tie_word_embeddings=False))
    add("falcon", "alibi-parallel", dict(falcon, alibi=True, num_attention_heads=5))
    return result


def randomize(model, torch, seed):
    """Weights large enough that every part of a network shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2 and "norm" not in name:
                fan = parameter.shape[0] if "c_attn" in name or "c_proj" in name or "c_fc" in name else parameter.shape[-1]
                parameter.copy_(noise * (1.6 / fan**0.5 if "embed" not in name and "wte" not in name else 0.7))
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.3)
            else:
                parameter.copy_(parameter + noise * 0.3)


def old_spelling(config):
    """config.json as transformers 4 wrote it."""
    config = dict(config)
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    rope = config.pop("rope_parameters", None)
    if rope is None:
        return config
    if "full_attention" in rope:
        full, local = dict(rope["full_attention"]), rope["sliding_attention"]
        config["rope_theta"] = full.pop("rope_theta")
        if config["model_type"] == "gemma3_text":
            config["rope_local_base_freq"] = local["rope_theta"]
        config["rope_scaling"] = full if full["rope_type"] != "default" else None
        if "_sliding_window_pattern" in config:
            config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
        return config
    rope = dict(rope)
    names = ("rotary_emb_base", "rotary_pct") if config["model_type"] == "gpt_neox" else (
        "rope_theta", "partial_rotary_factor")
    config[names[0]] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config[names[1]] = rope.pop("partial_rotary_factor")
    if rope["rope_type"] == "default":
        config["rope_scaling"] = None
    else:
        rope["type"] = rope.pop("rope_type")
        config["rope_scaling"] = rope
    return config


def run(command):
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise RuntimeError(f"{os.path.basename(command[0])} {command[1]}: {outcome.stderr.strip() or outcome.returncode}")
    return outcome.stdout


def check(case, folder, mcc, torch, transformers):
    """The largest relative difference of logits; raises if something fails or tokens differ."""
    options = case["options"]
    seed = zlib.crc32(case["name"].encode())
    torch.manual_seed(seed)
    config = transformers.CONFIG_MAPPING[case["architecture"]](**case["config"])
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    randomize(model, torch, seed)
    model.save_pretrained(folder)
    if options.get("old"):
        path = os.path.join(folder, "config.json")
        with open(path) as file:
            written = json.load(file)
        with open(path, "w") as file:
            json.dump(old_spelling(written), file)

    program = os.path.join(folder, "program")
    command = [mcc, "compile", folder, "-o", program, "-q"]
    if "context" in options:
        command += ["--context", str(options["context"])]
    run(command)
    worst = 0.0
    generator = np.random.default_rng(seed)
    for length in options.get("lengths", LENGTHS):
        ids = generator.integers(3, VOCABULARY, (1, length))
        with torch.no_grad():
            expected = model(torch.from_numpy(ids)).logits[0].numpy()
        np.save(os.path.join(folder, "ids.npy"), ids)
        run([program, "logits", "--ids", os.path.join(folder, "ids.npy"), "--output", os.path.join(folder, "out.npz")])
        found = np.load(os.path.join(folder, "out.npz"))["output"][0]
        if found.shape != expected.shape:
            raise RuntimeError(f"logits of shape {found.shape}, expected {expected.shape}")
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    if not worst <= TOLERANCE:
        raise RuntimeError(f"logits differ by {worst:.2e} of the largest")
    if options.get("greedy", True):
        compare_greedy(model, program, generator.integers(3, VOCABULARY, (1, 5)), torch)
    return worst


def compare_greedy(model, program, ids, torch):
    prompt = ",".join(str(token) for token in ids[0])
    text = run([program, "--prompt-ids", prompt, "-n", str(GREEDY), "--temperature", "0", "--ignore-eos", "--print-ids"])
    found = [int(token) for token in text.replace(",", " ").split()]
    tokens = list(map(int, ids[0]))
    for step in range(GREEDY):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, -1].numpy()
        best = np.sort(logits)[-2:]
        if best[1] - best[0] <= TOLERANCE * np.abs(logits).max():
            return
        tokens.append(int(logits.argmax()))
        if found[: len(tokens)] != tokens:
            raise RuntimeError(f"token {step} is {found[len(tokens) - 1:len(tokens)]}, expected {tokens[-1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--keep", help="a folder for the checkpoints, which are then not removed")
    parser.add_argument("--only", help="cases whose names contain this text")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    given = parser.parse_args()
    cases = [case for case in variants() if given.only is None or given.only in case["name"]]
    if given.list:
        print("\n".join(case["name"] for case in cases))
        return 0
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import torch
        import transformers
    except ImportError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 1 if os.environ.get("MCC_TEST_STRICT") == "1" else 0
    torch.set_num_threads(1)
    root = given.keep or tempfile.mkdtemp(prefix="mcc-architectures-")
    failures = 0
    for case in cases:
        folder = os.path.join(root, case["name"])
        os.makedirs(folder, exist_ok=True)
        try:
            worst = check(case, folder, given.mcc, torch, transformers)
            print(f"{case['name']:28} {worst:.1e}", flush=True)
        except Exception as error:
            failures += 1
            print(f"{case['name']:28} FAILED: {error}", flush=True)
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if given.keep is None:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{len(cases) - failures} of {len(cases)} cases agree with transformers {transformers.__version__}")
    return 1 if failures or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
