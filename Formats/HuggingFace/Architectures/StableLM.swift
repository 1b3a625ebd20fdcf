import Base
import IR

/// StableLM 3B and 2 (Bellagente and others, 2024): Llama with layer norms; a part of each head turns, parts of blocks may
/// stand side by side, heads may have norms.
struct StableLM: Architecture {
  static let modelType = "stablelm"
  static let className = "StableLmForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.headDim = []
    spelling.defaultKVHeads = 32
    spelling.defaultContext = 4096
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule(
      "model.norm", .layer, epsilon: try config.epsilon("layer_norm_eps", or: 1e-5), bias: true)
    let feedForward = shape.gatedFeedForward(
      try config.field("intermediate_size").int(in: 1...limits.width),
      try config.field("hidden_act").activation(or: "silu"))
    let isParallel = try config.field("use_parallel_residual").bool(or: false)
    var attention = shape.attention(bias: try config.field("use_qkv_bias").bool(or: false))
    if try config.field("qk_layernorm").bool(or: false) {
      var plain = norm
      plain.hasBias = false
      attention.queryNorm = .init(norm: plain.named("self_attn.q_layernorm"), scope: .headWithOwnModule)
      attention.keyNorm = .init(norm: plain.named("self_attn.k_layernorm"), scope: .headWithOwnModule)
    }

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context, .partial(0.25)))
    if decoder.rotaries.isEmpty { attention.rotary = nil }
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "model.layers.\(layer)", isParallel: isParallel, attentionNorm: norm.named("input_layernorm"),
        feedForwardNorm: isParallel ? nil : norm.named("post_attention_layernorm"), attention: attention,
        feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
