import Base
import IR

/// A folder as `transformers` saves it: `config.json`, safetensors weights, and usually `tokenizer.json`.
package enum HuggingFaceFormat: Format {
  package static let name = "huggingface"
  package static let summary = "Hugging Face folder (config.json; safetensors or PyTorch weights)"

  package static func sniff(_ candidate: Candidate) -> Bool { candidate.contains("config.json") }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    try load(
      CheckpointFolder(path: candidate.path, limits: options.limits), name: candidate.modelName, options)
  }

  /// Reads a folder whose weights may be another file than those of the usual names.
  static func load(_ folder: CheckpointFolder, name modelName: String, _ options: LoadOptions) throws -> Model {
    let root = try folder.json("config.json", limit: options.limits.configBytes)
    let sentences = try SentenceTransformer(folder)
    var tensors = try folder.tensors()
    try tensors.attachAdapter(options)
    var (model, architecture) = try network(root, &tensors, name: modelName, options, sentences: sentences)
    try tensors.finishAdapter(&model)

    let generation = try GenerationSettings(
      generation: try folder.optionalJSON("generation_config.json", limit: options.limits.configBytes), config: root,
      vocabulary: architecture.vocabulary)
    if let tokenizer = try tokenizer(of: folder, generation, vocabulary: architecture.vocabulary) {
      model.assets.append(NamedAsset(name: "tokenizer", asset: .tokenizer(tokenizer)))
    }
    model.assets.append(NamedAsset(name: "generation", asset: .generation(generation)))
    return model
  }

  /// The tokenizer of a folder, from `tokenizer.json`, else from `tokenizer.model`; nil if there is neither.
  static func tokenizer(
    of folder: CheckpointFolder, _ generation: GenerationSettings, vocabulary: Int
  ) throws -> Tokenizer? {
    let limits = folder.limits
    func settings() throws -> JSONField? {
      try folder.optionalJSON("tokenizer_config.json", limit: limits.tokenizerBytes)
    }
    let document = try folder.optionalDocument(
      "tokenizer.json", limit: limits.tokenizerBytes, leaving: Tokenizer.largeMembers)
    if let document {
      return try Tokenizer(
        document, config: settings(), generation: generation, vocabulary: vocabulary, limits: limits)
    }
    guard folder.contains("tokenizer.model") else { return nil }
    let file = try folder.mapped("tokenizer.model", limit: limits.tokenizerBytes)
    return try Tokenizer(sentencePiece: file, config: settings(), vocabulary: vocabulary, limits: limits)
  }

  /// The network that a configuration describes, with all of its weights.
  ///
  /// `sentences` says how the hidden states of an encoder become one vector; the mean where nothing is said. With `turnsNeighbours`, rotary embedding turns pairs
  /// of neighbours, since the rows of queries and keys lie so.
  static func network(
    _ root: JSONField, _ tensors: inout CheckpointTensors, name modelName: String, _ options: LoadOptions,
    sentences: SentenceTransformer? = nil, turnsNeighbours: Bool = false
  ) throws -> (model: Model, architecture: any Architecture) {
    let type = try ArchitectureRegistry.architecture(of: root)
    var config = CheckpointConfig(root)
    let notes = try QuantizationRegistry.apply(
      config.field("quantization_config", "compression_config"), to: &tensors)
    var architecture: any Architecture = try type.init(&config, limits: options.limits)
    try config.requireAllRead(architecture: type.modelType)
    if turnsNeighbours {
      guard var turning = architecture as? any DecoderArchitecture else {
        throw CompileError(.internal, "the architecture '\(type.modelType)' cannot turn neighbours")
      }
      for index in turning.decoder.rotaries.indices { turning.decoder.rotaries[index].isInterleaved = true }
      architecture = turning
    }

    var model = Model(name: modelName)
    model[metadata: "format"] = name
    model[metadata: "architecture"] = type.modelType
    model.add(notes: notes)
    var options = options
    if options.context == nil, let said = sentences?.longest, let limit = architecture.longestText {
      options.context = min(said, limit)
    }
    try architecture.build(&tensors, into: &model, options: options)
    try tensors.requireAllTaken()
    if let sentences {
      try sentences.addEmbedding(to: &model)
    } else if architecture.longestText != nil {
      try SentenceTransformer().addEmbedding(to: &model)
    }
    return (model, architecture)
  }
}
