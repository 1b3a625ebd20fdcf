import Base
import IR

/// Qwen3-MoE (Yang and others, 2025): Qwen3, with norms of queries and keys, and experts in the layers that
/// `decoder_sparse_step` and `mlp_only_layers` leave to them.
struct Qwen3Moe: Architecture {
  static let modelType = "qwen3_moe"
  static let className = "Qwen3MoeForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    // Losses of training, and a number of layers that the network does not look at.
    for key in ["output_router_logits", "router_aux_loss_coef", "max_window_layers"] { _ = config.field(key) }
    let shape = try DecoderConfig(&config, limits: limits)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let bias = try config.field("attention_bias").bool(or: false)
    let activation = try config.field("hidden_act").activation(or: "silu")
    let usesWindow = try config.field("use_sliding_window").bool(or: false)
    let said = try config.window()
    let window = usesWindow ? said : nil
    let dense = try config.field("intermediate_size").int(in: 1...limits.width)
    let sparse = try SparseLayers(&config, layers: shape.layers, limits: limits)
    let rotary = try RotaryConfig(&config, context: shape.context)

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = [try rotary.rotary(headDim: shape.headDim)].compactMap { $0 }
    decoder.blocks = (0..<shape.layers).map { layer in
      var attention = shape.attention(bias: bias, outputBias: bias)
      attention.window = window
      attention.queryNorm = .init(norm: norm.named("self_attn.q_norm"), scope: .head)
      attention.keyNorm = .init(norm: norm.named("self_attn.k_norm"), scope: .head)
      let experts = DecoderExperts(
        experts: sparse.experts, width: sparse.width, route: sparse.route, activation: activation)
      return DecoderBlock(
        module: "model.layers.\(layer)", attentionNorm: norm.named("input_layernorm"),
        feedForwardNorm: norm.named("post_attention_layernorm"), attention: attention,
        feedForward: sparse.contains(layer) ? experts : shape.gatedFeedForward(dense, activation))
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}

/// What configurations of Qwen's networks with experts say about these.
private struct SparseLayers {
  let experts: Int
  let width: Int
  let route: Route
  private let step: Int
  private let denseLayers: Set<Int>

  init(_ config: inout CheckpointConfig, layers: Int, limits: LoadLimits) throws {
    experts = try config.field("num_experts", "num_local_experts").int(in: 0...limits.experts)
    width = try config.field("moe_intermediate_size").int(in: 1...limits.width)
    let chosen = try config.field("num_experts_per_tok").int(in: 1...max(1, experts))
    route = Route(count: chosen, normalizes: try config.field("norm_topk_prob").bool(or: false))
    step = try config.field("decoder_sparse_step").int(or: 1)
    guard step >= 1 else { throw config.root.failure("'decoder_sparse_step' is \(step), expected 1 or more") }
    denseLayers = Set(try config.field("mlp_only_layers").optionalElements()?.map { try $0.int(in: 0...layers) } ?? [])
  }

  /// Whether a layer has experts.
  func contains(_ layer: Int) -> Bool { experts > 0 && !denseLayers.contains(layer) && (layer + 1) % step == 0 }
}
