import Base
import IR

/// The text decoder of Gemma 3 (Gemma Team, 2025): Gemma 2 with norms of queries and keys instead of caps, five layers with
/// a window for each without, and a rotary embedding of its own for either kind.
///
/// Of a checkpoint that also sees images (`model_type` `gemma3`) the text decoder is taken.
struct Gemma3: Architecture {
  static let modelType = "gemma3_text"
  static let otherModelTypes = ["gemma3"]
  static let className = "Gemma3ForCausalLM"
  static let otherClassNames = ["Gemma3ForConditionalGeneration", "Gemma3TextModel"]

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    if config.field("text_config").exists {
      config.ignore(
        "vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index",
        "image_token_id", "boi_token_id", "eoi_token_id")
      var inner = CheckpointConfig(config.root["text_config"])
      let ties = config.field("tie_word_embeddings")
      decoder = try Self.decoder(&inner, ties: try ties.optionalBool(), limits: limits)
      try inner.requireAllRead(architecture: Self.modelType)
    } else {
      decoder = try Self.decoder(&config, ties: nil, limits: limits)
    }
  }

  private static func decoder(_ config: inout CheckpointConfig, ties: Bool?, limits: LoadLimits) throws -> Decoder {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultKVHeads = 4
    spelling.defaultHeadDim = 256
    spelling.defaultContext = 131072
    spelling.tiesEmbedding = ties ?? true
    spelling.vocabulary = 262_208
    spelling.defaultHeads = 8
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let gemma = try GemmaBlocks(&config, shape, limits: limits)
    try config.refuse("use_bidirectional_attention")
    let softcap = try config.optionalPositive("attn_logit_softcapping")
    let pattern = try config.field("sliding_window_pattern", "_sliding_window_pattern").int(or: 6)
    guard pattern >= 1 else { throw config.root.failure("'sliding_window_pattern' is \(pattern), expected 1 or more") }
    let windows = try config.windows(layers: shape.layers, config.window(or: 4096)) { ($0 + 1) % pattern != 0 }

    var decoder = shape.decoder(norm: gemma.norm.named("model.norm"))
    decoder.embedding.scale = Float(Double(shape.width).squareRoot())
    decoder.head.softcap = try config.optionalPositive("final_logit_softcapping")
    let (full, local) = try rotaries(&config, context: shape.context)
    decoder.rotaries = try shape.rotaries(full) + shape.rotaries(local)
    decoder.blocks = (0..<shape.layers).map { layer in
      var attention = gemma.attention
      attention.softcap = softcap
      attention.window = windows[layer]
      attention.rotary = windows[layer] == nil ? 0 : 1
      attention.queryNorm = .init(norm: gemma.norm.named("self_attn.q_norm"), scope: .head)
      attention.keyNorm = .init(norm: gemma.norm.named("self_attn.k_norm"), scope: .head)
      return gemma.block("model.layers.\(layer)", attention)
    }
    return decoder
  }

  /// The rotary embeddings of layers that see all keys, and of those with a window: before transformers 5, `rope_scaling` is
  /// for the former alone and the latter have a base of their own.
  private static func rotaries(
    _ config: inout CheckpointConfig, context: Int
  ) throws -> (full: RotaryConfig, local: RotaryConfig) {
    var global = RotaryConfig.Spelling()
    global.theta = 1_000_000
    var local = RotaryConfig.Spelling()
    local.theta = 10000
    local.thetaKeys = ["rope_local_base_freq"]
    let table = config.field("rope_parameters")
    let (full, sliding) = (table["full_attention"], table["sliding_attention"])
    if table.exists {
      for (key, _) in try table.members() where key != "full_attention" && key != "sliding_attention" {
        throw table.failure("'rope_parameters.\(key)' is not supported, only tables for the types of layers")
      }
      guard !config.field("rope_scaling").exists else {
        throw table.failure("'rope_parameters' and 'rope_scaling' contradict each other")
      }
    }
    return (
      try RotaryConfig(&config, table.exists ? full : config.field("rope_scaling"), context: context, global),
      try RotaryConfig(&config, sliding, context: context, local)
    )
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    var decoder = decoder
    let prefixes = ["model.language_model.", "language_model.model."]
    if let prefix = prefixes.first(where: { tensors["\($0)norm.weight"] != nil }) {
      decoder.replacePrefix("model.", with: prefix)
      if prefix == "language_model.model." { decoder.head.module.module = "language_model.lm_head" }
      let left = ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."]
      for tensor in tensors.all where left.contains(where: { tensor.name.hasPrefix($0) }) {
        tensors.ignore(tensor.name)
      }
      model[metadata: "left out"] = "vision_tower, multi_modal_projector"
    }
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
