import Base
import IR

/// Mixtral (Jiang and others, 2024): Mistral with experts as feed-forward layers, whose weights are a softmax over the
/// chosen alone.
struct Mixtral: DecoderArchitecture {
  static let modelType = "mixtral"
  static let className = "MixtralForCausalLM"

  var decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    // Losses and noise of training.
    for key in ["output_router_logits", "router_aux_loss_coef", "router_jitter_noise"] { _ = config.field(key) }
    let shape = try DecoderConfig(&config, limits: limits)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-5))
    let width = try config.field("intermediate_size").int(in: 1...limits.width)
    let experts = try config.field("num_local_experts", "num_experts").int(in: 1...limits.experts)
    let chosen = try config.field("num_experts_per_tok").int(in: 1...experts)
    let activation = try config.field("hidden_act").activation(or: "silu")
    let window = try config.window()
    var spelling = RotaryConfig.Spelling()
    spelling.theta = 1e6
    let rotary = try RotaryConfig(&config, context: shape.context, spelling)

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = [try rotary.rotary(headDim: shape.headDim)].compactMap { $0 }
    decoder.blocks = (0..<shape.layers).map { layer in
      var attention = shape.attention()
      attention.window = window
      return DecoderBlock(
        module: "model.layers.\(layer)", attentionNorm: norm.named("input_layernorm"),
        feedForwardNorm: norm.named("post_attention_layernorm"), attention: attention,
        feedForward: DecoderExperts(
          module: "block_sparse_moe", experts: experts, width: width, route: Route(count: chosen, normalizes: true),
          names: DecoderExperts.Names(gate: "w1", up: "w3", down: "w2"), activation: activation))
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
