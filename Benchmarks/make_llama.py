#!/usr/bin/env python3
"""Make a Llama of 1.1 B parameters with random weights, as a Hugging Face folder and as GGUF.

usage: make_llama.py FOLDER [--layers 22]

Writes FOLDER/hf (config.json, model.safetensors in bf16) and FOLDER/f16.gguf; with llama-cpp-python
installed also FOLDER/q4_0.gguf, q8_0.gguf and q4_k_m.gguf. Tensors are drawn and written one at a time.
Needs: pip install numpy gguf llama-cpp-python
"""
import argparse
import json
import os
import struct

import numpy as np

WIDTH, HEADS, KV_HEADS, FFN, VOCABULARY, CONTEXT = 2048, 32, 4, 5632, 32000, 2048
HEAD = WIDTH // HEADS


def tensors(layers):
    """(Hugging Face name, GGUF name, shape) of every tensor, in file order."""
    yield "model.embed_tokens.weight", "token_embd.weight", (VOCABULARY, WIDTH)
    for layer in range(layers):
        a, b = f"model.layers.{layer}.", f"blk.{layer}."
        yield a + "input_layernorm.weight", b + "attn_norm.weight", (WIDTH,)
        yield a + "self_attn.q_proj.weight", b + "attn_q.weight", (WIDTH, WIDTH)
        yield a + "self_attn.k_proj.weight", b + "attn_k.weight", (KV_HEADS * HEAD, WIDTH)
        yield a + "self_attn.v_proj.weight", b + "attn_v.weight", (KV_HEADS * HEAD, WIDTH)
        yield a + "self_attn.o_proj.weight", b + "attn_output.weight", (WIDTH, WIDTH)
        yield a + "post_attention_layernorm.weight", b + "ffn_norm.weight", (WIDTH,)
        yield a + "mlp.gate_proj.weight", b + "ffn_gate.weight", (FFN, WIDTH)
        yield a + "mlp.up_proj.weight", b + "ffn_up.weight", (FFN, WIDTH)
        yield a + "mlp.down_proj.weight", b + "ffn_down.weight", (WIDTH, FFN)
    yield "model.norm.weight", "output_norm.weight", (WIDTH,)
    yield "lm_head.weight", "output.weight", (VOCABULARY, WIDTH)


def values(name, shape, index):
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    rng = np.random.default_rng([7, index])
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)


def to_bf16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_hugging_face(folder, layers):
    os.makedirs(folder, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
        "intermediate_size": FFN, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
    }
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    header, offset = {}, 0
    for name, _, shape in tensors(layers):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for index, (name, _, shape) in enumerate(tensors(layers)):
            to_bf16(values(name, shape, index)).tofile(file)


def write_gguf(path, layers):
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += [f"t{i}" for i in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259))
    for _, name, shape in tensors(layers):
        kind = np.float32 if len(shape) == 1 else np.float16
        writer.add_tensor_info(name, shape, np.dtype(kind), int(np.prod(shape)) * np.dtype(kind).itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for index, (source, _, shape) in enumerate(tensors(layers)):
        x = values(source, shape, index)
        writer.write_tensor_data(x if len(shape) == 1 else x.astype(np.float16))
    writer.close()


def quantize(source, target, kind):
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = kind
    parameters.nthread = os.cpu_count()
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters) != 0:
        raise SystemExit(f"llama.cpp could not quantize {source}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--layers", type=int, default=22)
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    path = lambda name: os.path.join(options.folder, name)
    if not os.path.exists(path("hf/model.safetensors")):
        write_hugging_face(path("hf"), options.layers)
    try:
        import gguf  # noqa: F401
        import llama_cpp
    except ImportError as error:
        print(f"no GGUF files: {error}")
        return
    if not os.path.exists(path("f16.gguf")):
        write_gguf(path("f16.gguf"), options.layers)
    for name, kind in [("q4_0.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0), ("q8_0.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0),
                       ("q4_k_m.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M)]:
        if not os.path.exists(path(name)):
            quantize(path("f16.gguf"), path(name), kind)


if __name__ == "__main__":
    main()
