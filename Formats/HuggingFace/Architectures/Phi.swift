import Base
import IR

/// Phi 1, 1.5 and 2 (Gunasekar and others, 2023): attention and feed-forward layer side by side behind one layer norm; a
/// part of each head turns.
struct Phi: Architecture {
  static let modelType = "phi"
  static let className = "PhiForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    let shape = try DecoderConfig(&config, limits: limits)
    let norm = NormModule(
      "model.final_layernorm", .layer, epsilon: try config.epsilon("layer_norm_eps", or: 1e-5), bias: true)
    let feedForward = DecoderFeedForward(
      width: try config.field("intermediate_size").int(in: 1...limits.width),
      projections: .plain(up: LinearModule("mlp.fc1", bias: true)), down: LinearModule("mlp.fc2", bias: true),
      activation: try config.field("hidden_act").activation(or: "gelu_new"))
    var attention = shape.attention(bias: true)
    attention.output = LinearModule("self_attn.dense", bias: true)
    if try config.field("qk_layernorm").bool(or: false) {
      attention.queryNorm = .init(norm: norm.named("self_attn.q_layernorm"), scope: .head)
      attention.keyNorm = .init(norm: norm.named("self_attn.k_layernorm"), scope: .head)
    }

    var decoder = shape.decoder(norm: norm)
    decoder.head.module.hasBias = true
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context, .partial(0.5)))
    if decoder.rotaries.isEmpty { attention.rotary = nil }
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "model.layers.\(layer)", isParallel: true, attentionNorm: norm.named("input_layernorm"),
        attention: attention, feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
