import Base

extension GGUFSchema {
  private static func pair(_ config: String, _ gguf: String) -> [Weight] {
    ["weight", "bias"].map { Weight("\(config).\($0)", "\(gguf).\($0)") }
  }

  private static let bertTables = [
    Weight("embeddings.word_embeddings.weight", "token_embd.weight"),
    Weight("embeddings.position_embeddings.weight", "position_embd.weight", .wide),
    Weight("embeddings.token_type_embeddings.weight", "token_types.weight", .wide),
  ]

  private static let bertModules = [
    ("attention.self.query", "attn_q"), ("attention.self.key", "attn_k"), ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"), ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"), ("output.dense", "ffn_down"), ("output.LayerNorm", "layer_output_norm"),
  ]

  /// BERT: what gives hidden states. The layer over the first token has no place.
  static let bert = GGUFSchema(
    name: "bert", modelType: "bert", className: "BertModel", prefix: "bert.",
    keys: sizes + [.float("attention.layer_norm_epsilon", "layer_norm_eps")],
    weights: bertTables + pair("embeddings.LayerNorm", "token_embd_norm")
      + bertModules.flatMap { pair("encoder.layer.{}.\($0.0)", "blk.{}.\($0.1)") },
    granted: [("hidden_act", ["gelu"]), ("position_embedding_type", ["absolute"])],
    formalities: [("attention.causal", .bool(false))],
    ignored: [
      "attention_probs_dropout_prob", "hidden_dropout_prob", "directionality", "pooler_fc_size",
      "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
    ],
    unread: ["embeddings.position_ids", "embeddings.token_type_ids"], hasRotary: false, isTiedByDefault: true)

  private static let t5Keys: [Key] = [
    .int("block_count", "num_layers"), .int("context_length", "n_positions", or: 512),
    .int("embedding_length", "d_model"), .int("feed_forward_length", "d_ff"),
    .int("attention.head_count", "num_heads"), .int("attention.key_length", "d_kv"),
    .int("attention.value_length", "d_kv"), .float("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
    .int("attention.relative_buckets_count", "relative_attention_num_buckets", or: 32),
  ]

  /// The weights of one half of T5; `layer` is the number of the feed-forward layer in a block.
  private static func t5Half(_ config: String, _ gguf: String, feedForward layer: Int) -> [Weight] {
    var pieces = [
      ("layer.0.layer_norm", "attn_norm"), ("layer.\(layer).layer_norm", "ffn_norm"),
      ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
    ]
    for part in ["q", "k", "v", "o"] { pieces.append(("layer.0.SelfAttention.\(part)", "attn_\(part)")) }
    // Without a gate the layer in front is `wi`, with one `wi_1`.
    for (own, other) in [("wi", "ffn_up"), ("wi_0", "ffn_gate"), ("wi_1", "ffn_up"), ("wo", "ffn_down")] {
      pieces.append(("layer.\(layer).DenseReluDense.\(own)", other))
    }
    return [Weight("\(config).final_layer_norm.weight", "\(gguf).output_norm.weight")]
      + pieces.map { Weight("\(config).block.{}.\($0.0).weight", "\(gguf).blk.{}.\($0.1).weight") }
  }

  private static let t5Ends = [
    Weight("shared.weight", "token_embd.weight"), Weight("lm_head.weight", "output.weight"),
  ]

  private static let t5Cross = [
    ("EncDecAttention.q", "attn_q"), ("EncDecAttention.k", "attn_k"), ("EncDecAttention.v", "attn_v"),
    ("EncDecAttention.o", "attn_o"), ("layer_norm", "attn_norm"),
  ].map { Weight("decoder.block.{}.layer.1.\($0.0).weight", "dec.blk.{}.cross_\($0.1).weight") }

  private static let t5Unread = [
    "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
    // Biases of cross attention in old checkpoints.
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
  ]

  private static let t5Ignored = [
    "dropout_rate", "initializer_factor", "output_past", "num_hidden_layers", "hidden_size", "num_attention_heads",
  ]

  /// T5 and mT5: both halves, or the encoder alone.
  static let t5 = GGUFSchema(
    name: "t5", modelType: "t5", className: "T5ForConditionalGeneration", otherModelTypes: ["mt5"],
    otherClassNames: ["T5WithLMHeadModel", "MT5ForConditionalGeneration"],
    stacks: [
      Stack(prefix: "enc.blk.", count: "block_count"), Stack(prefix: "dec.blk.", count: "decoder_block_count"),
    ],
    keys: t5Keys + [
      .int("decoder_block_count", "num_decoder_layers"),
      .int("decoder_start_token_id", "decoder_start_token_id", or: 0),
    ],
    weights: t5Ends + t5Half("encoder", "enc", feedForward: 1) + t5Half("decoder", "dec", feedForward: 2) + t5Cross,
    granted: [("relative_attention_max_distance", [128]), ("is_encoder_decoder", [true])], ignored: t5Ignored,
    unread: t5Unread, hasRotary: false)

  static let t5Encoder = GGUFSchema(
    name: "t5encoder", modelType: "t5", className: "T5EncoderModel", otherModelTypes: ["mt5"],
    otherClassNames: ["MT5EncoderModel"], stacks: [Stack(prefix: "enc.blk.", count: "block_count")], keys: t5Keys,
    weights: [Weight("shared.weight", "token_embd.weight")] + t5Half("encoder", "enc", feedForward: 1),
    granted: [("relative_attention_max_distance", [128]), ("is_encoder_decoder", [false, true])],
    ignored: t5Ignored + ["num_decoder_layers", "decoder_start_token_id", "scale_decoder_outputs"], unread: t5Unread,
    hasRotary: false, isTiedByDefault: true)

  /// The key of what logits are multiplied by.
  static let logitScale = "logit_scale"

  /// Lets the norm before the head of T5 hold what hidden states are multiplied by there: readers of GGUF multiply by
  /// nothing. Files that say so have a ``logitScale`` of 1.
  mutating func foldHeadScale(width: Int) {
    weights = weights.map { weight in
      guard weight.gguf == "dec.output_norm.weight" else { return weight }
      return Weight(weight.config, weight.gguf, .scale(1 / Float(width).squareRoot()))
    }
  }

  /// Reads what BERT and T5 have beside sizes, of which some follows from the tensors alone.
  func readEncoder(_ keys: inout GGUFMetadata, _ config: inout JSONObject, _ tensors: [CheckpointTensor]) throws {
    switch name {
    case "bert":
      guard let types = tensors.first(where: { $0.name == "token_types.weight" }) else {
        throw keys.failure("missing tensor 'token_types.weight'")
      }
      config["type_vocab_size"] = types.shape.dims.first?.fixedValue.map { .int($0) }
      if try keys.optionalBool("\(name).attention.causal") ?? false {
        throw keys.failure("'\(name).attention.causal' is true, only false is supported", kind: .unsupported)
      }
    case "t5", "t5encoder":
      let isGated = tensors.contains { $0.name == "enc.blk.0.ffn_gate.weight" }
      config["feed_forward_proj"] = .string(isGated ? "gated-gelu" : "relu")
      // The norms have no mean, so that the other epsilon says nothing.
      _ = try keys.optionalDouble("\(name).attention.layer_norm_epsilon")
      guard name == "t5" else { break }
      let factor = try keys.optionalDouble("\(name).\(Self.logitScale)")
      guard factor == nil || factor == 1 else {
        throw keys.failure("'\(name).\(Self.logitScale)' is \(factor ?? 0), only 1 is supported", kind: .unsupported)
      }
      config["scale_decoder_outputs"] = .bool(factor == 1 || config["tie_word_embeddings"]?.bool == true)
    default: break
    }
  }
}
