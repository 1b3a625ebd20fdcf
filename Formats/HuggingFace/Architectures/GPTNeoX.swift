import Base
import IR

/// GPT-NeoX and Pythia (Black and others, 2022): layer norms, a joined projection with queries, keys and values of each head
/// together, parts of which a quarter turns, and parts of blocks side by side.
struct GPTNeoX: Architecture {
  static let modelType = "gpt_neox"
  static let className = "GPTNeoXForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.kvHeads = []
    spelling.headDim = []
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule(
      "gpt_neox.final_layer_norm", .layer, epsilon: try config.epsilon("layer_norm_eps", or: 1e-5), bias: true)
    let feedForward = DecoderFeedForward(
      width: try config.field("intermediate_size").int(in: 1...limits.width),
      projections: .plain(up: LinearModule("mlp.dense_h_to_4h", bias: true)),
      down: LinearModule("mlp.dense_4h_to_h", bias: true),
      activation: try config.field("hidden_act").activation(or: "gelu"))
    let bias = try config.field("attention_bias").bool(or: true)
    let isParallel = try config.field("use_parallel_residual").bool(or: true)
    config.ignore("is_decoder")
    var attention = shape.attention()
    attention.module = "attention"
    attention.projections = .grouped(LinearModule("attention.query_key_value", bias: bias))
    attention.output = LinearModule("attention.dense", bias: bias)
    var rotary = RotaryConfig.Spelling.partial(0.25)
    rotary.thetaKeys = ["rotary_emb_base", "rope_theta"]
    rotary.partialKeys = ["rotary_pct", "partial_rotary_factor"]

    var decoder = shape.decoder(norm: norm)
    decoder.embedding.module = "gpt_neox.embed_in"
    decoder.head.module.module = "embed_out"
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context, rotary))
    if decoder.rotaries.isEmpty { attention.rotary = nil }
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "gpt_neox.layers.\(layer)", isParallel: isParallel, attentionNorm: norm.named("input_layernorm"),
        feedForwardNorm: norm.named("post_attention_layernorm"), attention: attention, feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    var decoder = decoder
    if tensors["embed_out.weight"] == nil, tensors["lm_head.weight"] != nil { decoder.head.module.module = "lm_head" }
    // Masks and frequencies that old versions of transformers save.
    for block in decoder.blocks {
      for name in ["bias", "masked_bias", "rotary_emb.inv_freq"] {
        tensors.ignore("\(block.module).attention.\(name)")
      }
    }
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
