import Base
import IR

/// BLOOM (BigScience, 2022): ALiBi instead of positions, a norm of the embedding, a joined projection with queries, keys and
/// values of each head together.
struct Bloom: Architecture {
  static let modelType = "bloom"
  static let className = "BloomForCausalLM"
  static let otherClassNames = ["BloomModel"]

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.width = ["hidden_size", "n_embed"]
    spelling.layers = ["n_layer", "num_hidden_layers"]
    spelling.heads = ["n_head", "num_attention_heads"]
    spelling.kvHeads = []
    spelling.headDim = []
    spelling.context = ["seq_length"]
    spelling.tiesEmbedding = true
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    // Ways of computing the same.
    config.ignore(
      "slow_but_exact", "attention_softmax_in_fp32", "masked_softmax_fusion", "bias_dropout_fusion", "skip_bias_add",
      "skip_bias_add_qkv", "offset_alibi")
    let norm = NormModule(
      "transformer.ln_f", .layer, epsilon: try config.epsilon("layer_norm_epsilon", or: 1e-5), bias: true)
    let addsNormed = try config.field("apply_residual_connection_post_layernorm").bool(or: false)
    let feedForward = DecoderFeedForward(
      width: 4 * shape.width, projections: .plain(up: LinearModule("mlp.dense_h_to_4h", bias: true)),
      down: LinearModule("mlp.dense_4h_to_h", bias: true), activation: .geluTanh)
    var attention = shape.attention(rotary: nil)
    attention.module = "self_attention"
    attention.projections = .grouped(LinearModule("self_attention.query_key_value", bias: true))
    attention.output = LinearModule("self_attention.dense", bias: true)
    attention.slopes = AttentionSlopes(AttentionSlopes.standard(heads: shape.heads))

    var decoder = shape.decoder(norm: norm)
    decoder.embedding.module = "transformer.word_embeddings"
    decoder.embedding.norm = norm.named("transformer.word_embeddings_layernorm")
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "transformer.h.\(layer)", residual: addsNormed ? .normed : .input,
        attentionNorm: norm.named("input_layernorm"), feedForwardNorm: norm.named("post_attention_layernorm"),
        attention: attention, feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    var decoder = decoder
    if tensors["word_embeddings.weight"] != nil { decoder.replacePrefix("transformer.", with: "") }
    try decoder.buildHuggingFace(&tensors, into: &model, options: options, layersKey: "n_layer")
  }
}
