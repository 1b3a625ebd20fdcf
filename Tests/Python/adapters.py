"""Compares merged adapters with peft.

Makes a small Llama and a small GPT-2 with random weights, adapters of every kind that mcc reads with random numbers, merges them
with peft in float32, and compares the logits of programs compiled with `--adapter`.

    python3 Tests/Python/adapters.py [--mcc PATH]

Needs the packages torch (its CPU build is enough), transformers, peft and numpy.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

# What two float32 implementations of one network differ by, relative to the largest logit, is about 1e-6.
TOLERANCE = 1e-4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mcc", default=".build/release/mcc")
    mcc = parser.parse_args().mcc
    import peft
    import torch
    import transformers

    sizes = dict(vocab_size=131, bos_token_id=1, eos_token_id=2)
    bases = {
        "llama": transformers.LlamaConfig(
            hidden_size=60, intermediate_size=76, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
            max_position_embeddings=96, attention_bias=True, **sizes),
        "gpt2": transformers.GPT2Config(n_embd=60, n_layer=2, n_head=6, n_positions=96, **sizes),
    }
    lora = dict(r=3, lora_alpha=5, init_lora_weights=False)
    ia3 = dict(init_ia3_weights=False)
    llama, gpt2 = ["q_proj", "v_proj", "down_proj"], ["c_attn", "c_proj"]
    cases = [
        ("llama", "lora", peft.LoraConfig(target_modules=llama, **lora)),
        ("llama", "rslora", peft.LoraConfig(target_modules=llama, use_rslora=True, **lora)),
        ("llama", "dora", peft.LoraConfig(target_modules=llama, use_dora=True, **lora)),
        ("llama", "dora-rslora", peft.LoraConfig(
            target_modules=llama, use_dora=True, use_rslora=True, rank_pattern={"v_proj": 5}, **lora)),
        ("llama", "ia3", peft.IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **ia3)),
        ("gpt2", "lora", peft.LoraConfig(target_modules=gpt2, fan_in_fan_out=True, **lora)),
        ("gpt2", "dora", peft.LoraConfig(target_modules=gpt2, fan_in_fan_out=True, use_dora=True, **lora)),
        ("gpt2", "ia3", peft.IA3Config(
            target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True, **ia3)),
    ]
    failed = False
    for base, name, config in cases:
        torch.manual_seed(7)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            model = transformers.AutoModelForCausalLM.from_config(bases[base]).float().eval()
            for parameter in model.parameters():
                parameter.normal_(0, 0.2)
            model.save_pretrained(f"{folder}/base")
            tuned = peft.get_peft_model(model, config).eval()
            for key, parameter in tuned.named_parameters():
                if "lora_magnitude" in key:
                    parameter.mul_(torch.rand_like(parameter) + 0.5)
                elif "ia3_l" in key:
                    parameter.normal_(1, 0.3)
            tuned.save_pretrained(f"{folder}/adapter")
            ids = np.random.default_rng(3).integers(0, 131, (1, 41))
            wanted = tuned.merge_and_unload()(torch.tensor(ids)).logits.numpy()
            np.save(f"{folder}/ids.npy", ids)
            subprocess.run(
                [mcc, "compile", "-q", f"{folder}/base", "--adapter", f"{folder}/adapter", "-o", f"{folder}/program"],
                check=True)
            subprocess.run(
                [f"{folder}/program", "logits", "--ids", f"{folder}/ids.npy", "--output", f"{folder}/out.npz"],
                check=True)
            found = np.load(f"{folder}/out.npz")["output"]
            error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
            failed |= not error <= TOLERANCE
            print(f"{base:6} {name:12} {error:.1e}", flush=True)
    sys.exit(1 if failed else 0)


main()
