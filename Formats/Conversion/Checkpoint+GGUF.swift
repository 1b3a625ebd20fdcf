import Base
import IR
import Tensors

extension Checkpoint {
  /// Reads a GGUF file into the naming of Hugging Face.
  package init(gguf path: String, limits: LoadLimits = LoadLimits()) throws {
    var file = try GGUFFile(MappedFile(path: path), limits: limits)
    try self.init(&file, name: try Candidate(path: path).modelName, limits: limits)
  }

  /// Writes a GGUF file.
  package func write(gguf path: String) throws {
    let (renamed, writer) = try GGUFSchema.prepared(self)
    var checkpoint = renamed
    try checkpoint.quantize(quantization)
    var complete = writer
    if complete["tokenizer.ggml.model"] == nil { complete["tokenizer.ggml.model"] = .string("no_vocab") }
    try complete.write(checkpoint, to: path)
  }
}

extension Checkpoint {
  /// Reads the checkpoint at `path` in any format that has named weights and hyper-parameters.
  package static func read(_ path: String, limits: LoadLimits = LoadLimits()) throws -> Checkpoint {
    let candidate = try Candidate(path: path)
    let format = try FormatRegistry.format(of: candidate)
    switch format {
    case is HuggingFaceFormat.Type: return try Checkpoint(folder: candidate.path, limits: limits)
    case is GGUFFormat.Type: return try Checkpoint(gguf: candidate.path, limits: limits)
    default:
      throw CompileError(
        .unsupported, "'\(path)' is in the format \(format.name), from which only .onnx and .mir are written")
    }
  }
}
