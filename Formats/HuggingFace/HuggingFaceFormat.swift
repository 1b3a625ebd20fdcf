import Base
import IR

/// A folder as `transformers` saves it: `config.json`, safetensors weights, and usually `tokenizer.json`.
package enum HuggingFaceFormat: Format {
  package static let name = "huggingface"
  package static let summary = "Hugging Face folder (config.json, safetensors)"

  package static func sniff(_ candidate: Candidate) -> Bool { candidate.contains("config.json") }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    let folder = CheckpointFolder(path: candidate.path, limits: options.limits)
    let root = try folder.json("config.json", limit: options.limits.configBytes)
    let type = try ArchitectureRegistry.architecture(of: root)
    var config = CheckpointConfig(root)
    let architecture = try type.init(&config, limits: options.limits)
    try config.requireAllRead(architecture: type.modelType)

    var model = Model(name: candidate.modelName)
    model[metadata: "format"] = name
    model[metadata: "architecture"] = type.modelType
    let sentences = try SentenceTransformer(folder)
    var options = options
    if options.context == nil, let said = sentences?.longest, let longest = architecture.longestText {
      options.context = min(said, longest)
    }
    var tensors = try folder.tensors()
    try architecture.build(&tensors, into: &model, options: options)
    try tensors.requireAllTaken()
    if let sentences {
      try sentences.addEmbedding(to: &model)
    } else if architecture.longestText != nil {
      try SentenceTransformer().addEmbedding(to: &model)
    }

    let generation = try GenerationSettings(
      generation: try folder.optionalJSON("generation_config.json", limit: options.limits.configBytes), config: root,
      vocabulary: architecture.vocabulary)
    if let document = try folder.optionalJSON("tokenizer.json", limit: options.limits.tokenizerBytes) {
      let settings = try folder.optionalJSON("tokenizer_config.json", limit: options.limits.tokenizerBytes)
      let tokenizer = try Tokenizer(
        json: document, config: settings, generation: generation, vocabulary: architecture.vocabulary,
        limits: options.limits)
      model.assets.append(NamedAsset(name: "tokenizer", asset: .tokenizer(tokenizer)))
    } else if folder.contains("tokenizer.model") {
      let file = try folder.mapped("tokenizer.model", limit: options.limits.tokenizerBytes)
      let settings = try folder.optionalJSON("tokenizer_config.json", limit: options.limits.tokenizerBytes)
      let tokenizer = try Tokenizer(
        sentencePiece: file, config: settings, vocabulary: architecture.vocabulary, limits: options.limits)
      model.assets.append(NamedAsset(name: "tokenizer", asset: .tokenizer(tokenizer)))
    }
    model.assets.append(NamedAsset(name: "generation", asset: .generation(generation)))
    return model
  }
}
