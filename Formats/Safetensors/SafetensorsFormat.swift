import Base
import IR

/// A single safetensors file: weights without a network.
package enum SafetensorsFormat: Format {
  package static let name = "safetensors"
  package static let summary = "safetensors weights (.safetensors) beside their config.json"

  package static func sniff(_ candidate: Candidate) -> Bool { SafetensorsFile.sniff(candidate.bytes) }

  /// Reads the folder of the file as a Hugging Face checkpoint with these weights; without its `config.json` nothing says
  /// what network they belong to.
  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    if let folder = try CheckpointFolder.of(candidate, options) {
      return try HuggingFaceFormat.load(folder, name: candidate.modelName, options)
    }
    if let file = candidate.file { _ = try SafetensorsFile(file, limits: options.limits) }
    throw CompileError(
      .unsupported, "the safetensors file '\(candidate.path)' holds weights alone",
      notes: ["put its config.json beside it"])
  }
}
