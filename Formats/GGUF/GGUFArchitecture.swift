import Base
import IR
import Tensors

/// An architecture of GGUF as one of Hugging Face: what keys and tensors are called there.
///
/// Keys below the name of the architecture that are not in the table are refused by name, so that none is passed over.
struct GGUFArchitecture: Sendable {
  /// The `general.architecture`.
  let name: String
  let className: String
  let modelType: String
  /// Keys of this architecture besides the common ones: the name in GGUF, and in `config.json`.
  var integers: [(gguf: String, config: String)] = []
  var numbers: [(gguf: String, config: String)] = []
  /// Members of `config.json` that GGUF does not spell out.
  var settings: [(String, JSON)] = []
  /// Modules of a block besides the common ones.
  var modules: [String: String] = [:]
  /// Whether gains of norms are stored with 1 added (Gemma).
  var addsOneToNorms = false
  /// Whether scores are divided by the root of the width of a head that the configuration states (Gemma).
  var statesScale = false

  /// What mcc reads in this way.
  static let all: [GGUFArchitecture] = [
    GGUFArchitecture(
      name: "qwen2", className: "Qwen2ForCausalLM", modelType: "qwen2", settings: [("use_sliding_window", false)]),
    GGUFArchitecture(
      name: "qwen3", className: "Qwen3ForCausalLM", modelType: "qwen3",
      integers: [("attention.key_length", "head_dim")], settings: [("use_sliding_window", false)],
      modules: ["attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"]),
    GGUFArchitecture(
      name: "gemma2", className: "Gemma2ForCausalLM", modelType: "gemma2",
      integers: [("attention.key_length", "head_dim"), ("attention.sliding_window", "sliding_window")],
      numbers: [
        ("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping"),
      ],
      settings: [("hidden_activation", "gelu_pytorch_tanh")],
      modules: [
        "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
      ], addsOneToNorms: true, statesScale: true),
    GGUFArchitecture(
      name: "gemma3", className: "Gemma3ForCausalLM", modelType: "gemma3_text",
      integers: [("attention.key_length", "head_dim"), ("attention.sliding_window", "sliding_window")],
      settings: [
        ("hidden_activation", "gelu_pytorch_tanh"), ("rope_local_base_freq", 10000.0), ("sliding_window_pattern", 6),
      ],
      modules: [
        "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
      ], addsOneToNorms: true, statesScale: true),
    GGUFArchitecture(
      name: "phi3", className: "Phi3ForCausalLM", modelType: "phi3",
      modules: ["attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"]),
  ]

  private static let commonIntegers = [
    ("embedding_length", "hidden_size"), ("block_count", "num_hidden_layers"),
    ("feed_forward_length", "intermediate_size"), ("attention.head_count", "num_attention_heads"),
    ("context_length", "max_position_embeddings"),
  ]

  private static let commonModules = [
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
  ]

  /// Keys that say nothing about the function.
  private static let withoutEffect: Set<String> = [
    "vocab_size", "rope.scaling.finetuned", "pooling_type", "use_parallel_residual", "tensor_data_layout",
  ]

  /// The metadata as a `config.json`.
  func config(_ keys: inout GGUFMetadata, _ tensors: [CheckpointTensor], limits: LoadLimits) throws -> JSONObject {
    var members: [(String, JSON)] = [("architectures", [.string(className)]), ("model_type", .string(modelType))]
    var integers: [String: Int] = [:]
    func add(_ key: String, _ member: String) throws {
      guard let value = try keys.optionalInt("\(name).\(key)", in: 0...1 << 40) else { return }
      integers[member] = value
      members.append((member, .integer(Int64(value))))
    }
    for (key, member) in Self.commonIntegers {
      try add(key, member)
      guard integers[member] != nil else { throw keys.failure("missing '\(name).\(key)', expected an integer") }
    }
    try add("attention.head_count_kv", "num_key_value_heads")
    for (key, member) in self.integers { try add(key, member) }
    let epsilon = try keys.optionalDouble("\(name).attention.layer_norm_rms_epsilon") ?? 1e-6
    let theta = try keys.optionalDouble("\(name).rope.freq_base") ?? 10000
    members += [("rms_norm_eps", .number(epsilon)), ("rope_theta", .number(theta))]
    for (key, member) in numbers {
      if let value = try keys.optionalDouble("\(name).\(key)") { members.append((member, .number(value))) }
    }
    let headDim = integers["head_dim"] ?? (integers["hidden_size"] ?? 0) / max(integers["num_attention_heads"] ?? 1, 1)
    for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
      if let other = try keys.optionalInt("\(name).\(key)", in: 0...65536), other != headDim {
        throw keys.failure(
          "'\(name).\(key)' is \(other), only \(headDim), the width of a head, is supported", kind: .unsupported)
      }
    }
    if statesScale { members.append(("query_pre_attn_scalar", .integer(Int64(scale(integers, headDim))))) }
    if let scaling = try self.scaling(&keys) { members.append(("rope_scaling", scaling)) }
    guard let embedding = tensors.first(where: { $0.name == "token_embd.weight" })?.shape.fixedSizes?.first else {
      throw keys.failure("missing tensor 'token_embd.weight'")
    }
    members.append(("vocab_size", .integer(Int64(embedding))))
    members.append(("tie_word_embeddings", .bool(!tensors.contains { $0.name == "output.weight" })))
    let prefix = name + "."
    for key in keys.keys where key.hasPrefix(prefix) && !keys.readKeys.contains(key) {
      guard Self.withoutEffect.contains(String(key.dropFirst(prefix.count))) else {
        throw keys.failure("'\(key)' is not supported for the architecture '\(name)'", kind: .unsupported)
      }
    }
    return JSONObject(members + settings)
  }

  /// The number whose root divides the scores: the width of a head, but for the largest models of Gemma 2 and 3, where it is the
  /// width of the network over the number of heads (GGUF does not say it).
  private func scale(_ integers: [String: Int], _ headDim: Int) -> Int {
    let layers = integers["num_hidden_layers"] ?? 0
    guard name == "gemma2" && layers == 46 || name == "gemma3" && layers == 62 else { return headDim }
    return (integers["hidden_size"] ?? 0) / max(integers["num_attention_heads"] ?? 1, 1)
  }

  private func scaling(_ keys: inout GGUFMetadata) throws -> JSON? {
    let type = try keys.optionalString("\(name).rope.scaling.type") ?? "none"
    let factor = try keys.optionalDouble("\(name).rope.scaling.factor")
    switch type {
    case "none": return nil
    case "linear":
      guard let factor else { throw keys.failure("missing '\(name).rope.scaling.factor'") }
      return ["rope_type": "linear", "factor": .number(factor)]
    default:
      throw keys.failure(
        "'\(name).rope.scaling.type' '\(type)' is not supported, only none and linear", kind: .unsupported)
    }
  }

  /// The tensors under the names of Hugging Face; those without one keep theirs, and are refused later.
  func renamed(_ tensors: [CheckpointTensor]) -> [CheckpointTensor] {
    let modules = Self.commonModules.merging(self.modules) { $1 }
    return tensors.map { tensor in
      let parts = tensor.name.split(separator: ".")
      var result = tensor
      switch (parts.first, parts.count) {
      case ("token_embd", 2): result.name = "model.embed_tokens.\(parts[1])"
      case ("output_norm", 2): result.name = "model.norm.\(parts[1])"
      case ("output", 2): result.name = "lm_head.\(parts[1])"
      case ("blk", 4):
        guard let module = modules[String(parts[2])] else { return tensor }
        result.name = "model.layers.\(parts[1]).\(module).\(parts[3])"
      default: return tensor
      }
      return addsOneToNorms && result.name.contains("norm.") ? Self.withoutOne(result) : result
    }
  }

  /// A gain less the 1 that is added to it in the file.
  private static func withoutOne(_ tensor: CheckpointTensor) -> CheckpointTensor {
    var result = tensor
    result.recipe = { model, builder in
      var value = try tensor.constant(into: &model, &builder)
      if builder.type(of: value).element != .f32 { value = try builder.emit(Cast(.f32), value) }
      let one = builder.constant(.inline("gguf.one", .f32, [1], [Float(1)]))
      return try builder.emit(Subtract(), value, one, name: tensor.name)
    }
    return result
  }
}
