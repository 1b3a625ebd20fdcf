import Base
import Glibc
import IR
import Tensors

extension Checkpoint {
  /// Files of a Hugging Face folder that say how text becomes tokens and how it is sampled.
  private static let companionNames = [
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "vocab.json", "vocab.txt",
    "merges.txt", "added_tokens.json", "chat_template.jinja", "config_sentence_transformers.json",
  ]

  /// Reads the checkpoint of a Hugging Face folder; `weights` is its file of weights where that has no usual name.
  package init(folder path: String, weights: MappedFile? = nil, limits: LoadLimits = LoadLimits()) throws {
    let folder = CheckpointFolder(path: path, limits: limits, weights: weights)
    let root = try folder.json("config.json", limit: limits.configBytes)
    guard let config = root.value?.object else { throw root.failure("the configuration is no object") }
    self.init(name: try Candidate(path: path).modelName, config: config)
    for tensor in try folder.tensors().all { try add(tensor, as: tensor.name) }
    generation = try folder.optionalJSON("generation_config.json", limit: limits.configBytes)?.value?.object
    for name in Self.companionNames where folder.contains(name) {
      companions.append((name, try MappedFile(path: "\(path)/\(name)")))
    }
    sentences = try SentenceTransformer(folder)
    if folder.contains("tokenizer.json") || folder.contains("tokenizer.model") {
      text = { try folder.text(config: root, vocabulary: $0) }
    }
  }

  /// Writes a Hugging Face folder: `config.json`, `model.safetensors`, and the files of the tokenizer. Quantized weights
  /// have the form of compressed-tensors.
  ///
  /// - Returns: sentences about what could not be represented.
  /// - Throws: ``CompileError`` of kind `.create` if the folder cannot be made.
  package func write(folder path: String) throws -> [String] {
    guard mkdir(path, 0o755) == 0 || errno == EEXIST else {
      throw CompileError(.create, "cannot create the folder '\(path)': \(describeErrno(errno))")
    }
    var checkpoint = quantization.isEmpty ? self : try compressed()
    try SafetensorsWriter.write(checkpoint, to: "\(path)/model.safetensors")
    if companions.isEmpty, let tokenizer = try? readText()?.tokenizer {
      checkpoint.config["bos_token_id"] = tokenizer.beginID.map { .int($0) }
      checkpoint.config["eos_token_id"] = tokenizer.endIDs.first.map { .int($0) }
    }
    // Readers take a token of their own that may lie outside of the vocabulary where the key is missing.
    if checkpoint.config["pad_token_id"] == nil { checkpoint.config["pad_token_id"] = .null }
    try AtomicFile.write(JSON.object(checkpoint.config).bytes(pretty: true), to: "\(path)/config.json")
    if let generation {
      try AtomicFile.write(JSON.object(generation).bytes(pretty: true), to: "\(path)/generation_config.json")
    }
    try sentences?.write(folder: path, width: config["hidden_size"]?.int ?? config["dim"]?.int ?? 0)
    for (name, file) in companions {
      let copy = try AtomicFile(path: "\(path)/\(name)")
      try withExtendedLifetime(file) { try copy.append(file.bytes) }
      try copy.commit()
    }
    return companions.isEmpty ? try writeText(folder: path) : []
  }
}
