import Base
import IR

/// How text becomes tokens, and conversations text.
package struct CheckpointText: Sendable {
  package var tokenizer: Tokenizer
  /// A template in Jinja that makes the text of a conversation.
  package var chatTemplate: String?
}

extension CheckpointFolder {
  /// What the folder says about text, for a network that knows `vocabulary` tokens; nil if it has no tokenizer.
  func text(config: JSONField, vocabulary: Int) throws -> CheckpointText? {
    let generation = try GenerationSettings(
      generation: try optionalJSON("generation_config.json", limit: limits.configBytes), config: config,
      vocabulary: vocabulary)
    guard let tokenizer = try HuggingFaceFormat.tokenizer(of: self, generation, vocabulary: vocabulary) else {
      return nil
    }
    var text = CheckpointText(tokenizer: tokenizer)
    if contains("chat_template.jinja") {
      let file = try mapped("chat_template.jinja", limit: limits.configBytes)
      text.chatTemplate = withExtendedLifetime(file) { String(validating: file.bytes, as: UTF8.self) }
    } else {
      let settings = try optionalJSON("tokenizer_config.json", limit: limits.tokenizerBytes)
      text.chatTemplate = settings?["chat_template"].value?.string
    }
    return text
  }
}

extension Checkpoint {
  /// What the checkpoint says about text; nil if it says nothing.
  func readText() throws -> CheckpointText? {
    guard let text else { return nil }
    return try text(config["vocab_size"]?.int ?? 0)
  }

  /// Calls `body` with what the checkpoint says about text; where a tokenizer is of a kind that mcc does not know, or that
  /// `body` refuses, the reason is a note instead.
  ///
  /// - Returns: what `body` returned, or the reason.
  private func withText(_ body: (CheckpointText) throws -> [String]) throws -> [String] {
    do {
      return try readText().map(body) ?? []
    } catch let error as CompileError where error.kind == .unsupported {
      return ["no tokenizer is written: \(error.message)"]
    }
  }

  /// Puts the tokenizer into the metadata of a GGUF file.
  func writeText(to writer: inout GGUFWriter, vocabulary: Int) throws -> [String] {
    let before = writer
    let notes = try withText { text in
      var complete = before
      let notes = try text.tokenizer.write(to: &complete, vocabulary: vocabulary)
      if let template = text.chatTemplate { complete["tokenizer.chat_template"] = .string(template) }
      writer = complete
      return notes
    }
    if writer["tokenizer.ggml.model"] == nil { writer["tokenizer.ggml.model"] = .string("no_vocab") }
    return notes
  }

  /// Writes the tokenizer into a Hugging Face folder.
  func writeText(folder path: String) throws -> [String] {
    try withText { text in
      try AtomicFile.write(text.tokenizer.json().bytes(), to: "\(path)/tokenizer.json")
      var settings = text.tokenizer.settings
      settings["model_max_length"] = config["max_position_embeddings"] ?? config["n_positions"]
      settings["chat_template"] = text.chatTemplate.map { .string($0) }
      try AtomicFile.write(JSON.object(settings).bytes(pretty: true), to: "\(path)/tokenizer_config.json")
      return []
    }
  }

  /// Writes the tokenizer of a llama2.c file beside it, under the name that its readers look for.
  func writeText(besideLlama2C path: String) throws -> [String] {
    try withText { text in
      let (bytes, notes) = try text.tokenizer.llama2C()
      let name = "tok\(text.tokenizer.tokens.count).bin"
      try AtomicFile.write(bytes, to: "\(ArchivePath.folder(of: path))/\(name)")
      return notes
    }
  }
}
