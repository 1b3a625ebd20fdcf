import Base
import IR

/// A PyTorch checkpoint: a dictionary of tensors beside the `config.json` that says what network they belong to.
package enum PyTorchFormat: Format {
  package static let name = "pytorch"
  package static let summary = "PyTorch state dictionary (.pt, .pth, .bin) beside its config.json"

  package static func sniff(_ candidate: Candidate) -> Bool { candidate.file.map { TorchFile.sniff($0) } ?? false }

  /// Reads the folder of the file as a Hugging Face checkpoint with these weights.
  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    guard let folder = try CheckpointFolder.of(candidate, options) else {
      if let file = candidate.file { _ = try TorchFile(file, limits: options.limits) }
      throw CompileError(
        .unsupported, "the PyTorch file '\(candidate.path)' holds weights alone",
        notes: ["put its config.json beside it"])
    }
    return try HuggingFaceFormat.load(folder, name: candidate.modelName, options)
  }
}
