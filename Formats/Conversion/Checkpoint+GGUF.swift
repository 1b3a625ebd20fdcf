import Base
import IR
import Tensors

extension Checkpoint {
  /// The tensors and hyper-parameters of a GGUF file, whole or split, in the naming and form of Hugging Face.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the key or tensor that has no place there.
  package init(gguf path: String, limits: LoadLimits = LoadLimits()) throws {
    var file = try GGUFFile.open(MappedFile(path: path), limits: limits)
    let schema = try GGUFSchema(of: &file)
    let config = try schema.config(&file.metadata, file.tensors, limits: limits, fitsScaling: true)
    self.init(name: try Candidate(path: path).modelName, config: config)
    for tensor in try schema.restored(file.tensors, config, keepsPairs: false) { try add(tensor, as: tensor.name) }
    sentences = try SentenceTransformer(gguf: &file.metadata, of: schema)
    if !["no_vocab", "none"].contains(try file.metadata.optionalString("tokenizer.ggml.model") ?? "none") {
      let metadata = file.metadata
      text = { vocabulary in
        var keys = metadata
        guard let tokenizer = try Tokenizer(gguf: &keys, vocabulary: vocabulary, limits: limits) else { return nil }
        return CheckpointText(
          tokenizer: tokenizer, chatTemplate: try keys.optionalString("tokenizer.chat_template"))
      }
    }
    if file.tensors.contains(where: { !$0.type.isDense || $0.blocks != nil }) {
      notes.append("quantized weights are written as f32")
    }
  }

  /// Writes a GGUF file. Of the matrices that are to be quantized, those whose rows are not whole blocks stay as they are.
  ///
  /// - Returns: sentences about what could not be represented.
  package func write(gguf path: String) throws -> [String] {
    var (checkpoint, writer, notes) = try GGUFSchema.prepared(self)
    let left = try checkpoint.quantize(quantization) { _, type in
      type.shape.last.fixedValue.map { $0 % GGUFExactBlocks.length == 0 } ?? false
    }
    let vocabulary = checkpoint.type(of: "token_embd.weight")?.shape.dims.first?.fixedValue ?? 0
    notes += try writeText(to: &writer, vocabulary: vocabulary)
    if let first = left.first {
      notes.append(
        "\(left.count) matrices are not quantized, since their rows are not whole blocks of \(GGUFExactBlocks.length)"
          + " numbers, such as '\(first)'")
    }
    try writer.write(checkpoint, to: path)
    return notes
  }

  /// Reads the checkpoint at `path` in any format that has named weights and hyper-parameters.
  package static func read(_ path: String, limits: LoadLimits = LoadLimits()) throws -> Checkpoint {
    let candidate = try Candidate(path: path)
    let format = try FormatRegistry.format(of: candidate)
    var options = LoadOptions()
    options.limits = limits
    switch format {
    case is HuggingFaceFormat.Type: return try Checkpoint(folder: candidate.path, limits: limits)
    case is GGUFFormat.Type: return try Checkpoint(gguf: candidate.path, limits: limits)
    case is Llama2CFormat.Type: return try Checkpoint(llama2C: candidate, limits: limits)
    default:
      if format == SafetensorsFormat.self || format == PyTorchFormat.self,
        let folder = try CheckpointFolder.of(candidate, options)
      {
        return try Checkpoint(folder: folder.path, weights: folder.weights, limits: limits)
      }
      throw CompileError(
        .unsupported, "'\(path)' is in the format \(format.name), from which only .onnx and .mir are written")
    }
  }
}
