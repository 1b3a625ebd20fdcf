import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// Checkpoints of Hugging Face written as GGUF by gguf-py, against what transformers recorded for them.
@Suite struct GGUFArchitectureTests {
  private static let script = #"""
    import json, sys, numpy as np, gguf
    source, target = sys.argv[1:]
    c = json.load(open(source + '/config.json'))
    raw = open(source + '/model.safetensors', 'rb').read()
    n = int.from_bytes(raw[:8], 'little')
    tensors = {k: np.frombuffer(raw[8 + n + v['data_offsets'][0]:8 + n + v['data_offsets'][1]], np.float32).reshape(v['shape'])
               for k, v in json.loads(raw[8:8 + n]).items() if k != '__metadata__'}
    arch = {'gemma3_text': 'gemma3'}.get(c['model_type'], c['model_type'])
    gemma = arch.startswith('gemma')
    rope = c['rope_parameters']
    if 'full_attention' in rope: rope = rope['full_attention']
    w = gguf.GGUFWriter(target, arch)
    w.add_embedding_length(c['hidden_size']); w.add_block_count(c['num_hidden_layers'])
    w.add_feed_forward_length(c['intermediate_size']); w.add_head_count(c['num_attention_heads'])
    w.add_head_count_kv(c['num_key_value_heads']); w.add_context_length(c['max_position_embeddings'])
    w.add_layer_norm_rms_eps(c['rms_norm_eps']); w.add_rope_freq_base(rope['rope_theta'])
    if 'head_dim' in c: w.add_key_length(c['head_dim']); w.add_value_length(c['head_dim'])
    if c.get('sliding_window'): w.add_sliding_window(c['sliding_window'])
    if c.get('attn_logit_softcapping'): w.add_attn_logit_softcapping(c['attn_logit_softcapping'])
    if c.get('final_logit_softcapping'): w.add_final_logit_softcapping(c['final_logit_softcapping'])
    modules = {'input_layernorm': 'attn_norm', 'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
               'self_attn.o_proj': 'attn_output', 'self_attn.q_norm': 'attn_q_norm', 'self_attn.k_norm': 'attn_k_norm',
               'self_attn.qkv_proj': 'attn_qkv', 'mlp.gate_up_proj': 'ffn_up', 'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up',
               'mlp.down_proj': 'ffn_down', 'post_attention_layernorm': 'post_attention_norm' if gemma else 'ffn_norm',
               'pre_feedforward_layernorm': 'ffn_norm', 'post_feedforward_layernorm': 'post_ffw_norm'}
    for name, a in tensors.items():
      if gemma and 'norm' in name: a = a + np.float32(1)
      if name.startswith('model.layers.'):
        _, _, layer, rest = name.split('.', 3)
        module, kind = rest.rsplit('.', 1)
        name = 'blk.%s.%s.%s' % (layer, modules[module], kind)
      else:
        name = {'model.embed_tokens.weight': 'token_embd.weight', 'model.norm.weight': 'output_norm.weight', 'lm_head.weight': 'output.weight'}[name]
      w.add_tensor(name, np.ascontiguousarray(a))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    """#

  @Test(arguments: ["qwen2", "qwen3", "gemma2", "gemma3", "phi3"])
  func equalsRecordedLogits(name: String) throws {
    guard let source = Fixtures.path("architectures/\(name)") else { return }
    guard Fixtures.python(["gguf", "numpy"]) else { return }
    let folder = try TemporaryFolder()
    let script = try folder.write("make.py", Self.script)
    let outcome = try Command.run("python3", [script, source, folder.path("m.gguf")])
    guard outcome.exitCode == 0 else { throw CompileError(.check, "python3 failed: \(outcome.errors)") }
    let model = try FormatRegistry.load(folder.path("m.gguf"))
    try Verifier.verify(model)
    let recorded = try NumPyArchive(path: source + "/expected.npz")
    for number in 0..<2 {
      let ids = try recorded.require("input_ids_\(number)", file: "expected.npz")
      let expected = try recorded.require("output_\(number)", file: "expected.npz")
      let tokens = Tensor(.i32, [ids.count], ids.integers.map { Int32($0) })
      let results = try Evaluator(model).run([tokens, Tensor(.i32, [1], [0] as [Int32])], symbols: ["L": ids.count])
      let found = try #require(results.outputs.first).array(of: Float.self)
      // What two correct f32 implementations reach on these networks.
      #expect(maxRelativeError(found, expected.floats) <= 1e-4, "\(name), prompt \(number)")
    }
  }
}
