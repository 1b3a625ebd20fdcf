import Base
import IR

/// The formats mcc reads.
package enum FormatRegistry {
  /// All formats, in the order in which a file is offered to them.
  package static let formats: [any Format.Type] = [
    HuggingFaceFormat.self, GGUFFormat.self, SafetensorsFormat.self, PyTorchFormat.self, TFLiteFormat.self,
    Llama2CFormat.self, ONNXFormat.self,
  ]

  /// The format of a file or folder, found by its content.
  package static func format(of candidate: Candidate) throws -> any Format.Type {
    if let format = formats.first(where: { $0.sniff(candidate) }) { return format }
    let isEmpty = candidate.isEmpty
    let what = (isEmpty ? "the empty " : "the ") + (candidate.isFolder ? "folder" : "file")
    throw CompileError(
      isEmpty ? .input : .unsupported, "\(what) '\(candidate.path)' is in no format mcc reads",
      notes: ["formats: \(formats.map { $0.summary }.joined(separator: "; "))"])
  }

  /// Reads the checkpoint at `path`, a folder or a file.
  package static func load(_ path: String, _ options: LoadOptions = LoadOptions()) throws -> Model {
    let candidate = try Candidate(path: path)
    let format = try format(of: candidate)
    if format != ONNXFormat.self, format != TFLiteFormat.self, let name = options.dimensions.keys.min() {
      throw CompileError(.usage, "'\(path)' has no open size '\(name)'; --dim is for ONNX and TensorFlow Lite")
    }
    return try format.load(candidate, options)
  }
}
