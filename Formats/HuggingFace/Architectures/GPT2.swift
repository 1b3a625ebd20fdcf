import Base
import IR

/// GPT-2 (Radford and others, 2019): a decoder with learned positions, layer norms and weights stored with one row per
/// input.
struct GPT2: Architecture {
  static let modelType = "gpt2"
  static let className = "GPT2LMHeadModel"
  static let otherClassNames = ["GPT2Model"]

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.width = ["n_embd", "hidden_size"]
    spelling.layers = ["n_layer", "num_hidden_layers"]
    spelling.heads = ["n_head", "num_attention_heads"]
    spelling.kvHeads = []
    spelling.headDim = []
    spelling.context = ["n_positions", "n_ctx", "max_position_embeddings"]
    spelling.defaultContext = 1024
    spelling.tiesEmbedding = true
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    try config.refuse("add_cross_attention")
    // Ways of computing the same in narrow types.
    config.ignore("reorder_and_upcast_attn")
    let norm = NormModule(
      "transformer.ln_f", .layer, epsilon: try config.epsilon("layer_norm_epsilon", or: 1e-5), bias: true)
    func linear(_ module: String) -> LinearModule { LinearModule(module, bias: true, isTransposed: true) }
    let inner = config.field("n_inner")
    let feedForward = DecoderFeedForward(
      width: inner.exists ? try inner.int(in: 1...limits.width) : 4 * shape.width,
      projections: .plain(up: linear("mlp.c_fc")), down: linear("mlp.c_proj"),
      activation: try config.field("activation_function").activation(or: "gelu_new"))
    let scales = try config.field("scale_attn_weights").bool(or: true)
    let scalesByLayer = try config.field("scale_attn_by_inverse_layer_idx").bool(or: false)

    var decoder = shape.decoder(norm: norm)
    decoder.embedding.module = "transformer.wte"
    decoder.embedding.positions = .init(module: "transformer.wpe", rows: shape.context)
    decoder.blocks = (0..<shape.layers).map { layer in
      var attention = shape.attention(rotary: nil)
      attention.module = "attn"
      attention.projections = .joined(linear("attn.c_attn"))
      attention.output = linear("attn.c_proj")
      if !scales { attention.scale = 1 }
      if scalesByLayer { attention.scale /= Float(layer + 1) }
      return DecoderBlock(
        module: "transformer.h.\(layer)", attentionNorm: norm.named("ln_1"), feedForwardNorm: norm.named("ln_2"),
        attention: attention, feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    var decoder = decoder
    if tensors["wte.weight"] != nil { decoder.replacePrefix("transformer.", with: "") }
    // Masks that old versions of transformers save.
    for block in decoder.blocks {
      tensors.ignore(block.module + ".attn.bias")
      tensors.ignore(block.module + ".attn.masked_bias")
    }
    try decoder.buildHuggingFace(&tensors, into: &model, options: options, layersKey: "n_layer")
  }
}
