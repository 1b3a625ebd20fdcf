"""Compares compiled networks with transformers: random checkpoints with odd sizes, for encoders, translators, recurrent
networks and those with experts, and low-rank adapters with peft, where it is installed.

Needs torch and transformers 5: python3 check_sequence_architectures.py [--mcc PROGRAM] [--target TARGET] [NAME...]
Prints for each case the largest difference relative to the largest value; exits with 1 if one exceeds 1e-4.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers as tf

TOLERANCE = 1e-4
base = dict(vocab_size=97, bos_token_id=1, eos_token_id=2, pad_token_id=0)
t5 = dict(base, d_model=33, d_kv=7, d_ff=45, num_heads=3, num_layers=2, num_decoder_layers=3,
          relative_attention_num_buckets=12, relative_attention_max_distance=21, decoder_start_token_id=0)
mamba = dict(base, hidden_size=37, state_size=5, num_hidden_layers=3, conv_kernel=3)
moe = dict(base, hidden_size=36, intermediate_size=43, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3,
           max_position_embeddings=64)
qwen = dict(moe, head_dim=10, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=21)
deepseek = dict(moe, num_key_value_heads=6, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=19,
                n_shared_experts=2, first_k_dense_replace=1, kv_lora_rank=14, qk_nope_head_dim=10, qk_rope_head_dim=6,
                v_head_dim=7, routed_scaling_factor=1.7)
bert = dict(vocab_size=97, hidden_size=36, intermediate_size=43, num_hidden_layers=3, num_attention_heads=3,
            max_position_embeddings=40, type_vocab_size=3, pad_token_id=1)
vit = dict(hidden_size=36, intermediate_size=43, num_hidden_layers=2, num_attention_heads=3, image_size=[21, 30],
           patch_size=[5, 7], num_channels=2)
whisper = dict(vocab_size=97, num_mel_bins=11, d_model=36, encoder_layers=2, encoder_attention_heads=3,
               decoder_layers=3, decoder_attention_heads=4, decoder_ffn_dim=43, encoder_ffn_dim=29,
               max_source_positions=23, max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=2,
               decoder_start_token_id=3)
yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16, beta_fast=32,
            beta_slow=1, mscale=0.707, mscale_all_dim=0.707)

# Name: class of the network, its configuration.
CASES = {
    "t5": (tf.T5ForConditionalGeneration, tf.T5Config(**t5)),
    "t5-gated": (tf.T5ForConditionalGeneration, tf.T5Config(**t5, feed_forward_proj="gated-gelu")),
    "t5-silu": (tf.T5ForConditionalGeneration, tf.T5Config(**t5, feed_forward_proj="gated-silu", layer_norm_epsilon=1e-3)),
    "t5-unscaled": (tf.T5ForConditionalGeneration, tf.T5Config(**t5, tie_word_embeddings=False)),
    "mt5": (tf.MT5ForConditionalGeneration, tf.MT5Config(**t5)),
    "t5-encoder": (tf.T5EncoderModel, tf.T5Config(**t5)),
    "mamba": (tf.MambaForCausalLM, tf.MambaConfig(**mamba)),
    "mamba-biases": (tf.MambaForCausalLM, tf.MambaConfig(
        **mamba, use_bias=True, use_conv_bias=False, expand=3, time_step_rank=7, tie_word_embeddings=False,
        layer_norm_epsilon=1e-3)),
    "mixtral": (tf.MixtralForCausalLM, tf.MixtralConfig(**moe, num_local_experts=5, num_experts_per_tok=3)),
    "mixtral-window": (tf.MixtralForCausalLM, tf.MixtralConfig(
        **moe, head_dim=10, num_local_experts=3, num_experts_per_tok=1, sliding_window=7, tie_word_embeddings=True,
        hidden_act="gelu_pytorch_tanh")),
    "qwen3-moe": (tf.Qwen3MoeForCausalLM, tf.Qwen3MoeConfig(**qwen, norm_topk_prob=True)),
    "qwen3-moe-mixed": (tf.Qwen3MoeForCausalLM, tf.Qwen3MoeConfig(
        **qwen, norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[1], attention_bias=True,
        use_sliding_window=True, sliding_window=6, max_window_layers=0)),
    "deepseek-v2": (tf.DeepseekV2ForCausalLM, tf.DeepseekV2Config(**deepseek, q_lora_rank=None)),
    "deepseek-v2-groups": (tf.DeepseekV2ForCausalLM, tf.DeepseekV2Config(
        **deepseek, q_lora_rank=11, topk_method="group_limited_greedy", n_group=4, topk_group=2, attention_bias=True,
        rope_parameters=yarn)),
    "bert": (tf.BertModel, tf.BertConfig(**bert)),
    "bert-lm": (tf.BertForMaskedLM, tf.BertConfig(**bert, hidden_act="gelu_new", layer_norm_eps=1e-3)),
    "roberta": (tf.RobertaModel, tf.RobertaConfig(**bert, hidden_act="relu")),
    "roberta-lm": (tf.RobertaForMaskedLM, tf.RobertaConfig(**dict(bert, pad_token_id=3), hidden_act="silu")),
    "xlm-roberta": (tf.XLMRobertaModel, tf.XLMRobertaConfig(**bert, hidden_act="quick_gelu")),
    "distilbert": (tf.DistilBertModel, tf.DistilBertConfig(
        vocab_size=97, dim=36, hidden_dim=43, n_layers=3, n_heads=3, max_position_embeddings=40, pad_token_id=0)),
    "distilbert-lm": (tf.DistilBertForMaskedLM, tf.DistilBertConfig(
        vocab_size=97, dim=36, hidden_dim=43, n_layers=2, n_heads=4, max_position_embeddings=40, activation="relu")),
    "vit": (tf.ViTModel, tf.ViTConfig(**vit, qkv_bias=False)),
    "vit-labels": (tf.ViTForImageClassification, tf.ViTConfig(**vit, num_labels=5, hidden_act="gelu_new")),
    "whisper": (tf.WhisperForConditionalGeneration, tf.WhisperConfig(**whisper)),
    "whisper-relu": (tf.WhisperForConditionalGeneration, tf.WhisperConfig(**whisper, activation_function="relu")),
}


def randomize(model, seed):
    """Weights away from their initial values, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("A_log"):
                parameter += 0.3 * noise
            elif parameter.dim() == 1:
                parameter += 0.2 * noise
            else:
                parameter.copy_(noise * (0.6 if "relative_attention_bias" in name else 0.15))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:2])}: {done.stderr.strip() or done.stdout.strip()}")


def compare(name, mcc, folder, target):
    kind, config = CASES[name]
    config._experts_implementation = "eager"  # the grouped products of torch want sizes that are not odd
    model = kind(config).eval()
    randomize(model, sum(name.encode()))
    path = os.path.join(folder, name)
    model.save_pretrained(path)
    program = path + ".program"
    run([mcc, "compile", path, "-o", program] + target)
    rng = np.random.default_rng(len(name))
    worst = 0.0
    for length in (1, 5, 21):
        ids = rng.integers(4, 97, (1, length))
        arguments, inputs, keys = ["logits", "--ids", ids], dict(input_ids=torch.tensor(ids)), ["output"]
        if kind in (tf.T5ForConditionalGeneration, tf.MT5ForConditionalGeneration):
            answer = rng.integers(0, 97, (1, 9))
            arguments += ["--decoder-ids", answer]
            inputs["decoder_input_ids"] = torch.tensor(answer)
        elif name.startswith("whisper"):
            features = rng.standard_normal((1, 11, 46)).astype(np.float32)
            arguments = ["logits", "--features", features, "--decoder-ids", ids]
            inputs = dict(input_features=torch.tensor(features), decoder_input_ids=torch.tensor(ids))
        elif name.startswith("vit"):
            pixels = rng.standard_normal((1, 2, 21, 30)).astype(np.float32)
            arguments, inputs = ["--input", pixels], dict(pixel_values=torch.tensor(pixels))
            keys = ["logits"] if "labels" in name else ["last_hidden_state", "pooler_output"]
        with torch.no_grad():
            result = model(**inputs)
        wanted = [result[key] for key in keys] if name.startswith("vit") else [
            result.logits if "logits" in result else result.last_hidden_state]
        command = [program]
        for index, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                file = os.path.join(folder, f"{index}.npy")
                np.save(file, argument)
                argument = ("pixel_values=" if arguments[0] == "--input" else "") + file
            command.append(argument)
        output = os.path.join(folder, "output.npz")
        run(command + ["--output", output])
        found = np.load(output)
        for key, value in zip(keys, wanted):
            value = value.numpy()
            assert found[key].shape == value.shape, f"{name}: {found[key].shape}, expected {value.shape}"
            worst = max(worst, float(np.abs(found[key] - value).max() / np.abs(value).max()))
    return worst


def compare_adapter(keeps, mcc, folder, target):
    import peft
    config = tf.LlamaConfig(vocab_size=97, hidden_size=36, intermediate_size=43, num_hidden_layers=3, num_attention_heads=6,
                            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
    model = tf.LlamaForCausalLM(config).eval()
    randomize(model, 1)
    path = os.path.join(folder, "adapted")
    model.save_pretrained(path)
    adapted = peft.get_peft_model(model, peft.LoraConfig(
        r=5, lora_alpha=7, target_modules=["q_proj", "down_proj", "v_proj"], use_rslora=True, task_type="CAUSAL_LM",
        rank_pattern={"model.layers.1.self_attn.q_proj": 3}, alpha_pattern={"down_proj": 11},
        modules_to_save=["lm_head"])).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
    adapted.save_pretrained(path + ".adapter")
    program = path + ".program"
    run([mcc, "compile", path, "--adapter", path + ".adapter", "-o", program] + (["--keep-adapter"] if keeps else []) + target)
    ids = np.random.default_rng(3).integers(4, 97, (1, 17))
    np.save(os.path.join(folder, "ids.npy"), ids)
    output = os.path.join(folder, "output.npz")
    run([program, "logits", "--ids", os.path.join(folder, "ids.npy"), "--output", output])
    with torch.no_grad():
        wanted = adapted(input_ids=torch.tensor(ids)).logits.numpy()
    return float(np.abs(np.load(output)["output"] - wanted).max() / np.abs(wanted).max())


ADAPTERS = {"adapter": False, "adapter-kept": True}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--target", default="native")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in given.names or [*CASES, *ADAPTERS]:
            try:
                kind, what = (compare_adapter, ADAPTERS[name]) if name in ADAPTERS else (compare, name)
                error = kind(what, given.mcc, folder, ["--target", given.target])
                print(f"{name:24} {error:.2e}{'' if error <= TOLERANCE else '  FAILED'}", flush=True)
                failed += not error <= TOLERANCE
            except Exception as problem:
                print(f"{name:24} FAILED: {problem}", flush=True)
                failed += 1
    sys.exit(1 if failed else 0)


main()
