import Base
import IR

/// Falcon 7B, 40B, 180B and RW (Almazrouei and others, 2023): one head of keys for all or for groups of queries, rotary
/// embedding or ALiBi, parts of blocks mostly side by side.
struct Falcon: Architecture {
  static let modelType = "falcon"
  static let className = "FalconForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.width = ["hidden_size", "n_embed"]
    spelling.layers = ["num_hidden_layers", "n_layer"]
    spelling.heads = ["num_attention_heads", "n_head"]
    spelling.kvHeads = ["num_kv_heads", "n_head_kv"]
    spelling.headDim = []
    spelling.tiesEmbedding = true
    var shape = try DecoderConfig(&config, limits: limits, spelling)
    let isNew = try config.field("new_decoder_architecture").bool(or: false)
    let isParallel = try config.field("parallel_attn").bool(or: true)
    let sharesKeys = try config.field("multi_query").bool(or: true)
    let norms = config.field("num_ln_in_parallel_attn")
    let hasTwoNorms = norms.exists ? try norms.int(in: 1...2) == 2 : isNew
    guard isParallel || !isNew, !hasTwoNorms || isNew || !isParallel else {
      throw CompileError(
        .unsupported,
        "'new_decoder_architecture' \(isNew), 'parallel_attn' \(isParallel) and \(hasTwoNorms ? 2 : 1) norms are no "
          + "Falcon that is known", subject: .init(file: config.root.file))
    }
    try config.refuse("apply_residual_connection_post_layernorm")
    if !isNew { shape.kvHeads = sharesKeys ? 1 : shape.heads }
    let bias = try config.field("bias").bool(or: false)
    let norm = NormModule(
      "transformer.ln_f", .layer, epsilon: try config.epsilon("layer_norm_epsilon", or: 1e-5), bias: true)
    let inner = config.field("ffn_hidden_size"), factor = config.field("ff_factor")
    let feedForwardWidth = inner.exists ? try inner.int(in: 1...limits.width) : try factor.int(or: 4) &* shape.width
    guard feedForwardWidth >= 1, feedForwardWidth <= limits.width,
      try !factor.exists || factor.int() &* shape.width == feedForwardWidth
    else { throw config.root.failure("'ffn_hidden_size' is \(feedForwardWidth), which 'ff_factor' contradicts") }
    let feedForward = DecoderFeedForward(
      width: feedForwardWidth,
      projections: .plain(up: LinearModule("mlp.dense_h_to_4h", bias: bias)),
      down: LinearModule("mlp.dense_4h_to_h", bias: bias),
      activation: try config.field("activation").activation(or: "gelu"))
    var attention = shape.attention()
    attention.module = "self_attention"
    let joined = LinearModule("self_attention.query_key_value", bias: bias)
    attention.projections = isNew || !sharesKeys ? .grouped(joined) : .joined(joined)
    attention.output = LinearModule("self_attention.dense", bias: bias)

    var decoder = shape.decoder(norm: norm)
    decoder.embedding.module = "transformer.word_embeddings"
    let rotary = try RotaryConfig(&config, context: shape.context)
    if try config.field("alibi").bool(or: false) {
      attention.rotary = nil
      attention.slopes = AttentionSlopes(
        AttentionSlopes.standard(heads: shape.heads), isRounded: true, scale: attention.scale)
    } else {
      decoder.rotaries = try shape.rotaries(rotary)
    }
    let separate = isParallel && hasTwoNorms
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "transformer.h.\(layer)", isParallel: isParallel,
        attentionNorm: norm.named(separate ? "ln_attn" : "input_layernorm"),
        feedForwardNorm: separate
          ? norm.named("ln_mlp") : isParallel ? nil : norm.named("post_attention_layernorm"),
        attention: attention, feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
