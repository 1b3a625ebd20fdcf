import Base
import Testing

/// Small Llama checkpoints whose linear layers are quantized, made by a Python script with NumPy alone from the published
/// definitions of each packing, with the numbers that the codes stand for.
package enum QuantizedCheckpoints {
  /// The forms, each as the script calls it.
  package static let forms = [
    "gptq4", "gptq4_sym", "gptq4_v2", "gptq4_channel", "gptq2", "gptq3", "gptq8", "gptq8_sym", "gptq4_order",
    "gptq4_trivial_order", "awq", "ct_pack4", "ct_pack4_asym", "ct_pack8", "ct_pack4_bf16", "ct_pack4_channel",
    "ct_int8",
    "ct_int8_asym", "ct_fp8", "ct_fp8_tensor", "ct_nvfp4", "ct_mxfp4", "fp8_block", "bnb_nf4", "bnb_nf4_double",
    "bnb_int8",
    "bitnet_auto", "bitnet",
  ]

  /// A folder with `config.json`, `model.safetensors` and `expected.npz` (an array per quantized weight); nil, having said
  /// so, if there is no Python with NumPy.
  package static func make(_ form: String) throws -> TemporaryFolder? {
    guard Fixtures.python(["numpy"]) else { return nil }
    let folder = try TemporaryFolder()
    let script = try folder.write("make.py", source)
    let outcome = try Command.run("python3", [script, folder.path, form])
    guard outcome.exitCode == 0 else { throw CompileError(.check, "python3 failed: \(outcome.errors)") }
    return folder
  }

  private static let source = #"""
    import json, sys, numpy as np
    folder, form = sys.argv[1], sys.argv[2]
    rng = np.random.default_rng(sum(map(ord, form)))
    D, F, V, H, KV = 64, 96, 16, 4, 2
    tensors, expected, quant = {}, {}, {}
    def bf16(x):
      u = np.ascontiguousarray(x, np.float32).view(np.uint32)
      return ((u + 0x7fff + ((u >> 16) & 1)) >> 16).astype(np.uint16)
    def from_bf16(u): return (u.astype(np.uint32) << 16).view(np.float32)
    def put(name, a, dtype=None):
      names = {'float32': 'F32', 'float16': 'F16', 'int32': 'I32', 'int8': 'I8', 'uint8': 'U8', 'int64': 'I64'}
      tensors[name] = (dtype or names[str(a.dtype)], np.ascontiguousarray(a))
    def bits_of(codes, bits, axis):
      # A stream of codes, low bits first, in words of 32 bits along an axis.
      codes = np.moveaxis(codes.astype(np.uint64), axis, -1)
      b = ((codes[..., None] >> np.arange(bits, dtype=np.uint64)) & 1).reshape(codes.shape[:-1] + (-1,))
      pad = (-b.shape[-1]) % 32
      b = np.concatenate([b, np.zeros(b.shape[:-1] + (pad,), np.uint64)], -1).reshape(b.shape[:-1] + (-1, 32))
      words = (b << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)
      return np.moveaxis(words, -1, axis)
    E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    def e4m3(u):
      s, e, m = u >> 7, (u >> 3) & 15, u & 7
      v = np.where(e == 0, m / 8 * 2.0**-6, (1 + m / 8) * 2.0**(e.astype(np.float64) - 7))
      return np.where(s == 1, -v, v).astype(np.float32)
    def gptq(name, N, K):
      bits = int(form[4])
      sym, v2 = 'sym' in form, 'v2' in form
      group = K if 'channel' in form else 32
      G = K // group
      q = rng.integers(0, 1 << bits, (K, N))
      z = np.full((G, N), 1 << (bits - 1)) if sym else rng.integers(1, 1 << bits, (G, N))
      s = rng.uniform(0.001, 0.01, (G, N)).astype(np.float16)
      g = np.arange(K) // group
      if form.endswith('_order') and 'trivial' not in form: g = rng.permutation(g)
      put(name + '.qweight', bits_of(q, bits, 0))
      put(name + '.qzeros', bits_of(z if v2 else z - 1, bits, 1))
      put(name + '.scales', s)
      if 'order' in form: put(name + '.g_idx', g.astype(np.int32))
      quant.update(quant_method='gptq', bits=bits, group_size=-1 if 'channel' in form else 32, desc_act='order' in form,
                   sym=sym, checkpoint_format='gptq_v2' if v2 else 'gptq', damp_percent=0.01)
      return ((q - z[g]).astype(np.float32) * s[g].astype(np.float32)).T
    def awq(name, N, K):
      order = [0, 2, 4, 6, 1, 3, 5, 7]
      def pack(a):
        w = np.zeros((a.shape[0], a.shape[1] // 8), np.uint32)
        for i in range(8): w |= a[:, order[i]::8].astype(np.uint32) << np.uint32(4 * i)
        return w.view(np.int32)
      q, z = rng.integers(0, 16, (K, N)), rng.integers(0, 16, (K // 32, N))
      s = rng.uniform(0.001, 0.01, (K // 32, N)).astype(np.float16)
      put(name + '.qweight', pack(q)); put(name + '.qzeros', pack(z)); put(name + '.scales', s)
      quant.update(quant_method='awq', bits=4, group_size=32, zero_point=True, version='gemm')
      g = np.arange(K) // 32
      return ((q - z[g]).astype(np.float32) * s[g].astype(np.float32)).T
    def compressed(name, N, K):
      groups = {'pack4': 'pack-quantized', 'pack8': 'pack-quantized', 'int8': 'int-quantized', 'fp8': 'float-quantized',
                'nvfp4': 'nvfp4-pack-quantized', 'mxfp4': 'mxfp4-pack-quantized'}
      kind = form.split('_')[1]
      quant.update(quant_method='compressed-tensors', format=groups[kind], quantization_status='compressed', ignore=['lm_head'],
                   config_groups={'group_0': {'targets': ['Linear'], 'weights': {'num_bits': 4}, 'input_activations': None}})
      if kind.startswith('pack'):
        bits = int(kind[4]); half = 1 << (bits - 1)
        group = K if 'channel' in form else 32
        G = K // group
        q = rng.integers(-half, half, (N, K)); z = rng.integers(-half, half, (N, G)) if 'asym' in form else np.zeros((N, G), int)
        s = rng.uniform(0.001, 0.01, (N, G)).astype(np.float32)
        if 'bf16' in form:
          put(name + '.weight_scale', bf16(s), 'BF16'); s = from_bf16(bf16(s))
        else:
          s = s.astype(np.float16); put(name + '.weight_scale', s); s = s.astype(np.float32)
        put(name + '.weight_packed', bits_of(q + half, bits, 1))
        put(name + '.weight_shape', np.array([N, K], np.int64))
        if 'asym' in form: put(name + '.weight_zero_point', bits_of(z + half, bits, 0))
        g = np.arange(K) // group
        return (q - z[:, g]).astype(np.float32) * s[:, g]
      if kind == 'int8':
        q = rng.integers(-128, 128, (N, K)).astype(np.int8); s = bf16(rng.uniform(0.001, 0.01, (N, 1)).astype(np.float32))
        z = rng.integers(-20, 20, (N, 1)).astype(np.int8)
        put(name + '.weight', q); put(name + '.weight_scale', s, 'BF16')
        if 'asym' not in form: return q.astype(np.float32) * from_bf16(s)
        put(name + '.weight_zero_point', z)
        return (q.astype(np.float32) - z) * from_bf16(s)
      if kind == 'fp8':
        q = rng.integers(0, 127, (N, K)).astype(np.uint8) | (rng.integers(0, 2, (N, K)) << 7).astype(np.uint8)
        s = bf16(rng.uniform(0.001, 0.01, (1,) if 'tensor' in form else (N, 1)).astype(np.float32))
        put(name + '.weight', q, 'F8_E4M3'); put(name + '.weight_scale', s, 'BF16')
        return e4m3(q) * from_bf16(s)
      c = rng.integers(0, 16, (N, K)).astype(np.uint8)
      put(name + '.weight_packed', c[:, 0::2] | c[:, 1::2] << 4)
      if kind == 'nvfp4':
        s = rng.integers(40, 120, (N, K // 16)).astype(np.uint8); top = np.array([300.0], np.float32)
        put(name + '.weight_scale', s, 'F8_E4M3'); put(name + '.weight_global_scale', top)
        return E2M1[c] * (e4m3(s) / top)[:, np.arange(K) // 16]
      s = rng.integers(110, 130, (N, K // 32)).astype(np.uint8)
      put(name + '.weight_scale', s)
      return E2M1[c] * (2.0 ** (s.astype(np.float32) - 127)).astype(np.float32)[:, np.arange(K) // 32]
    def fp8(name, N, K):
      quant.update(quant_method='fp8', weight_block_size=[40, 32], activation_scheme='dynamic')
      q = rng.integers(0, 127, (N, K)).astype(np.uint8)
      s = rng.uniform(0.001, 0.01, (-(-N // 40), -(-K // 32))).astype(np.float32)
      put(name + '.weight', q, 'F8_E4M3'); put(name + '.weight_scale_inv', s)
      return e4m3(q) * s[np.arange(N) // 40][:, np.arange(K) // 32]
    def bnb(name, N, K):
      if form == 'bnb_int8':
        quant.update(quant_method='bitsandbytes', load_in_8bit=True)
        q = rng.integers(-127, 128, (N, K)).astype(np.int8); s = rng.uniform(0.1, 1, N).astype(np.float32)
        put(name + '.weight', q); put(name + '.SCB', s); put(name + '.weight_format', np.array(0, np.uint8))
        return q.astype(np.float32) * (s * (np.float32(1) / np.float32(127)))[:, None]
      quant.update(quant_method='bitsandbytes', load_in_4bit=True, bnb_4bit_quant_type='nf4')
      c = rng.integers(0, 16, N * K).astype(np.uint8)
      table = np.sort(rng.uniform(-1, 1, 16)).astype(np.float32)
      put(name + '.weight', (c[0::2] << 4 | c[1::2])[:, None]); put(name + '.weight.quant_map', table)
      B = N * K // 64
      state = {'quant_type': 'nf4', 'blocksize': 64, 'dtype': 'float16', 'shape': [N, K]}
      if 'double' in form:
        a = rng.integers(0, 256, B).astype(np.uint8); m = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)
        o = rng.uniform(0.1, 1, -(-B // 40)).astype(np.float32); state.update(nested_blocksize=40, nested_dtype='float32', nested_offset=0.25)
        put(name + '.weight.absmax', a); put(name + '.weight.nested_quant_map', m); put(name + '.weight.nested_absmax', o)
        s = m[a] * o[np.arange(B) // 40] + np.float32(0.25)
      else:
        s = rng.uniform(0.1, 1, B).astype(np.float32); put(name + '.weight.absmax', s)
      put(name + '.weight.quant_state.bitsandbytes__nf4', np.frombuffer(json.dumps(state).encode(), np.uint8))
      return (table[c] * s[np.arange(N * K) // 64]).reshape(N, K)
    def bitnet(name, N, K):
      auto = form.endswith('auto')
      quant.update(quant_method='bitnet', linear_class='autobitlinear' if auto else 'bitlinear', quantization_mode='offline')
      q = rng.integers(0, 3, (N, K)).astype(np.uint8); M = N // 4
      put(name + '.weight', q[:M] | q[M:2 * M] << 2 | q[2 * M:3 * M] << 4 | q[3 * M:] << 6)
      s = bf16(rng.uniform(1, 2, 1).astype(np.float32)); put(name + '.weight_scale', s, 'BF16')
      s = from_bf16(s)
      t = q.astype(np.float32) - 1
      return t * s if auto else t / s
    makers = {'gptq': gptq, 'awq': awq, 'ct': compressed, 'fp8': fp8, 'bnb': bnb, 'bitnet': bitnet}
    make = next(f for k, f in makers.items() if form.startswith(k))
    def dense(name, *shape): put(name, (rng.standard_normal(shape) * 0.2 + (1 if len(shape) == 1 else 0)).astype(np.float32))
    dense('model.embed_tokens.weight', V, D)
    p = 'model.layers.0.'
    for n, N, K in [('self_attn.q_proj', D, D), ('self_attn.k_proj', D * KV // H, D), ('self_attn.v_proj', D * KV // H, D),
                    ('self_attn.o_proj', D, D), ('mlp.gate_proj', F, D), ('mlp.up_proj', F, D), ('mlp.down_proj', D, F)]:
      expected[p + n + '.weight'] = make(p + n, N, K).astype(np.float32)
    dense(p + 'input_layernorm.weight', D); dense(p + 'post_attention_layernorm.weight', D); dense('model.norm.weight', D)
    header, data = {}, b''
    # Aligned types first, so that every tensor begins at a multiple of its elements.
    for name, (dtype, a) in sorted(tensors.items(), key=lambda e: -e[1][1].itemsize):
      raw = a.tobytes(); header[name] = {'dtype': dtype, 'shape': list(a.shape), 'data_offsets': [len(data), len(data) + len(raw)]}
      data += raw
    text = json.dumps(header).encode(); text += b' ' * (-len(text) % 8)
    open(folder + '/model.safetensors', 'wb').write(len(text).to_bytes(8, 'little') + text + data)
    json.dump({'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'hidden_size': D, 'intermediate_size': F,
               'num_hidden_layers': 1, 'num_attention_heads': H, 'num_key_value_heads': KV, 'vocab_size': V,
               'max_position_embeddings': 64, 'rms_norm_eps': 1e-5, 'rope_theta': 10000.0, 'hidden_act': 'silu',
               'tie_word_embeddings': True, 'torch_dtype': 'float32', 'quantization_config': quant},
              open(folder + '/config.json', 'w'))
    np.savez(folder + '/expected.npz', **expected)
    """#
}
