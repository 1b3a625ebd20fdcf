import Base
import IR

/// BERT (Devlin and others, 2018): an encoder whose blocks normalize after each residual sum. The graph is that of
/// ``BertEncoder``; `BertModel` gives hidden states, `BertForMaskedLM` logits of every token.
struct Bert: Architecture {
  static let modelType = "bert"
  static let className = "BertModel"
  static let otherClassNames = ["BertForMaskedLM", "BertForPreTraining"]

  let encoder: BertEncoder
  let predicts: Bool

  var vocabulary: Int { encoder.vocabulary }
  var longestText: Int? { predicts ? nil : encoder.longest }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    // Settings of the pooler in configurations of 2018, which its code does not read.
    for key in [
      "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
      "pooler_size_per_head", "pooler_type",
    ] { _ = config.field(key) }
    encoder = try BertEncoder(bert: &config, limits: limits)
    predicts = try config.predictsTokens()
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let prefix = tensors["bert.embeddings.word_embeddings.weight"] == nil ? "" : "bert."
    let head = BertHeadNames(
      dense: "cls.predictions.transform.dense", norm: "cls.predictions.transform.LayerNorm",
      decoder: "cls.predictions.decoder", bias: "cls.predictions.bias")
    tensors.ignorePooler(prefix)
    for name in ["weight", "bias"] { tensors.ignore("cls.seq_relationship.\(name)") }
    if !predicts { tensors.ignoreAll(prefix: "cls.") }
    try encoder.build(
      &tensors, names: BertModuleNames(prefix: prefix), head: predicts ? head : nil, into: &model,
      options: options)
  }
}

/// RoBERTa (Liu and others, 2019): BERT with positions that count from the padding token's id plus one; also for many
/// languages (XLM-RoBERTa; Conneau and others, 2020) and for French (CamemBERT; Martin and others, 2020).
struct Roberta: Architecture {
  static let modelType = "roberta"
  static let otherModelTypes = ["xlm-roberta", "camembert"]
  static let className = "RobertaModel"
  static let otherClassNames = [
    "RobertaForMaskedLM", "XLMRobertaModel", "XLMRobertaForMaskedLM", "CamembertModel", "CamembertForMaskedLM",
  ]

  let encoder: BertEncoder
  let predicts: Bool

  var vocabulary: Int { encoder.vocabulary }
  var longestText: Int? { predicts ? nil : encoder.longest }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var encoder = try BertEncoder(bert: &config, limits: limits)
    let padding = config.field("pad_token_id")
    encoder.firstPosition = 1 + (padding.exists ? try padding.int(in: 0...limits.tokens) : 1)
    guard encoder.longest >= 1 else {
      throw padding.failure(
        "'max_position_embeddings' is \(encoder.positions), which leaves none after those of padding")
    }
    self.encoder = encoder
    predicts = try config.predictsTokens()
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let prefix = tensors["roberta.embeddings.word_embeddings.weight"] == nil ? "" : "roberta."
    let head = BertHeadNames(
      dense: "lm_head.dense", norm: "lm_head.layer_norm", decoder: "lm_head.decoder", bias: "lm_head.bias",
      activation: .gelu)
    tensors.ignorePooler(prefix)
    if !predicts { tensors.ignoreAll(prefix: "lm_head.") }
    try encoder.build(
      &tensors, names: BertModuleNames(prefix: prefix), head: predicts ? head : nil, into: &model,
      options: options)
  }
}

/// DistilBERT (Sanh and others, 2019): BERT with half the blocks and no token types.
struct DistilBert: Architecture {
  static let modelType = "distilbert"
  static let className = "DistilBertModel"
  static let otherClassNames = ["DistilBertForMaskedLM"]

  let encoder: BertEncoder
  let predicts: Bool

  var vocabulary: Int { encoder.vocabulary }
  var longestText: Int? { predicts ? nil : encoder.longest }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    for key in [
      "dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "pad_token_id",
      "tie_weights_", "tie_word_embeddings", "output_past",
    ] { _ = config.field(key) }
    var encoder = BertEncoder()
    encoder.vocabulary = try config.field("vocab_size").int(in: 1...limits.tokens)
    encoder.width = try config.field("dim").int(in: 1...limits.width)
    encoder.feedForward = try config.field("hidden_dim").int(in: 1...limits.width)
    encoder.layers = try config.field("n_layers").int(in: 1...limits.layers)
    encoder.heads = try config.field("n_heads").int(in: 1...65536)
    encoder.positions = try config.field("max_position_embeddings").int(in: 1...limits.context)
    encoder.activation = try config.field("activation").activation(or: "gelu")
    try encoder.check(config.root)
    self.encoder = encoder
    predicts = try config.predictsTokens()
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let prefix = tensors["distilbert.embeddings.word_embeddings.weight"] == nil ? "" : "distilbert."
    tensors.ignore(prefix + "embeddings.position_ids")
    if !predicts { tensors.ignoreAll(prefix: "vocab_") }
    let head = BertHeadNames(
      dense: "vocab_transform", norm: "vocab_layer_norm", decoder: "vocab_projector", bias: "vocab_projector.bias")
    try encoder.build(
      &tensors, names: DistilBertModuleNames(prefix: prefix), head: predicts ? head : nil, into: &model,
      options: options)
  }
}

extension BertEncoder {
  /// The hyper-parameters in the spelling of BERT and RoBERTa.
  fileprivate init(bert config: inout CheckpointConfig, limits: LoadLimits) throws {
    self.init()
    for key in ["attention_probs_dropout_prob", "hidden_dropout_prob", "pad_token_id", "tie_word_embeddings"] {
      _ = config.field(key)
    }
    vocabulary = try config.field("vocab_size").int(in: 1...limits.tokens)
    width = try config.field("hidden_size").int(in: 1...limits.width)
    feedForward = try config.field("intermediate_size").int(in: 1...limits.width)
    layers = try config.field("num_hidden_layers").int(in: 1...limits.layers)
    heads = try config.field("num_attention_heads").int(in: 1...65536)
    positions = try config.field("max_position_embeddings").int(in: 1...limits.context)
    types = try config.field("type_vocab_size").int(in: 1...limits.tokens)
    let kind = try config.field("position_embedding_type").string(or: "absolute")
    guard kind == "absolute" else {
      throw CompileError(
        .unsupported, "'position_embedding_type' '\(kind)' is not supported, only absolute",
        subject: .init(file: config.root.file))
    }
    let epsilon = try config.field("layer_norm_eps").double(or: 1e-12)
    guard epsilon >= 0, epsilon < 1 else {
      throw config.root.failure("'layer_norm_eps' is \(epsilon), expected 0 to 1")
    }
    self.epsilon = Float(epsilon)
    activation = try config.field("hidden_act").activation(or: "gelu")
    try check(config.root)
  }

  fileprivate func check(_ config: JSONField) throws {
    guard width % heads == 0 else {
      throw config.failure("\(heads) attention heads do not divide the width \(width)")
    }
  }
}

extension CheckpointConfig {
  /// Whether the checkpoint is one that predicts masked tokens.
  fileprivate func predictsTokens() throws -> Bool {
    try (root["architectures"].optionalElements() ?? []).contains { !(try $0.string().hasSuffix("Model")) }
  }
}

extension CheckpointTensors {
  /// Leaves out the layer over the first token, and numbers that follow from the configuration.
  fileprivate mutating func ignorePooler(_ prefix: String) {
    ignore(prefix + "pooler.dense.weight")
    ignore(prefix + "pooler.dense.bias")
    ignore(prefix + "embeddings.position_ids")
    ignore(prefix + "embeddings.token_type_ids")
  }

  /// Leaves out the tensors whose names begin with `prefix`.
  fileprivate mutating func ignoreAll(prefix: String) {
    for tensor in all where tensor.name.hasPrefix(prefix) { ignore(tensor.name) }
  }
}

/// The names of modules in checkpoints of BERT and RoBERTa.
private struct BertModuleNames: BertNames {
  let prefix: String

  var words: String { prefix + "embeddings.word_embeddings" }
  var positions: String { prefix + "embeddings.position_embeddings" }
  var types: String? { prefix + "embeddings.token_type_embeddings" }
  var norm: String { prefix + "embeddings.LayerNorm" }

  func block(_ layer: Int, _ part: BertPart) -> String {
    let name =
      switch part {
      case .query: "attention.self.query"
      case .key: "attention.self.key"
      case .value: "attention.self.value"
      case .attention: "attention.self"
      case .attentionOutput: "attention.output.dense"
      case .attentionNorm: "attention.output.LayerNorm"
      case .intermediate: "intermediate.dense"
      case .output: "output.dense"
      case .outputNorm: "output.LayerNorm"
      }
    return "\(prefix)encoder.layer.\(layer).\(name)"
  }
}

/// The names of modules in checkpoints of DistilBERT.
private struct DistilBertModuleNames: BertNames {
  let prefix: String

  var words: String { prefix + "embeddings.word_embeddings" }
  var positions: String { prefix + "embeddings.position_embeddings" }
  var types: String? { nil }
  var norm: String { prefix + "embeddings.LayerNorm" }

  func block(_ layer: Int, _ part: BertPart) -> String {
    let name =
      switch part {
      case .query: "attention.q_lin"
      case .key: "attention.k_lin"
      case .value: "attention.v_lin"
      case .attention: "attention"
      case .attentionOutput: "attention.out_lin"
      case .attentionNorm: "sa_layer_norm"
      case .intermediate: "ffn.lin1"
      case .output: "ffn.lin2"
      case .outputNorm: "output_layer_norm"
      }
    return "\(prefix)transformer.layer.\(layer).\(name)"
  }
}
