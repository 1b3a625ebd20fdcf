import Base
import IR

/// OPT (Zhang and others, 2022): learned positions from row 2 on, layer norms before or after the parts, and an embedding
/// that may be narrower than the decoder.
struct OPT: Architecture {
  static let modelType = "opt"
  static let className = "OPTForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.kvHeads = []
    spelling.headDim = []
    spelling.tiesEmbedding = true
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let bias = try config.field("enable_bias").bool(or: true)
    let isBefore = try config.field("do_layer_norm_before").bool(or: true)
    let lacksLast = try config.field("_remove_final_layer_norm").bool(or: false)
    var norm = NormModule("model.decoder.final_layer_norm", .layer, epsilon: 1e-5, bias: true)
    norm.isAffine = try config.field("layer_norm_elementwise_affine").bool(or: true)
    let feedForward = DecoderFeedForward(
      width: try config.field("ffn_dim").int(in: 1...limits.width),
      projections: .plain(up: LinearModule("fc1", bias: bias)), down: LinearModule("fc2", bias: bias),
      activation: try config.field("activation_function").activation(or: "relu"))
    var attention = shape.attention(bias: bias, rotary: nil)
    attention.output = LinearModule("self_attn.out_proj", bias: bias)
    let inner = config.field("word_embed_proj_dim")
    let innerWidth = inner.exists ? try inner.int(in: 1...limits.width) : shape.width

    var decoder = shape.decoder(norm: isBefore && !lacksLast ? norm : nil)
    decoder.embedding.module = "model.decoder.embed_tokens"
    decoder.embedding.positions = .init(module: "model.decoder.embed_positions", rows: shape.context + 2, first: 2)
    if innerWidth != shape.width {
      decoder.embedding.width = innerWidth
      decoder.embedding.projection = LinearModule("model.decoder.project_in")
      decoder.head.projection = LinearModule("model.decoder.project_out")
    }
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "model.decoder.layers.\(layer)", residual: isBefore ? .input : .normsSum,
        attentionNorm: norm.named("self_attn_layer_norm"), feedForwardNorm: norm.named("final_layer_norm"),
        attention: attention, feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    var decoder = decoder
    if tensors["decoder.embed_tokens.weight"] != nil { decoder.replacePrefix("model.", with: "") }
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
