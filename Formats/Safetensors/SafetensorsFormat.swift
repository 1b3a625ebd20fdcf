import Base
import IR

/// A single safetensors file: weights without a network.
package enum SafetensorsFormat: Format {
  package static let name = "safetensors"
  package static let summary = "safetensors weights (in a Hugging Face folder)"

  package static func sniff(_ candidate: Candidate) -> Bool { SafetensorsFile.sniff(candidate.bytes) }

  /// Always throws: the file is checked, but only its folder says what network the weights belong to.
  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    if let file = candidate.file { _ = try SafetensorsFile(file, limits: options.limits) }
    throw CompileError(
      .unsupported, "the safetensors file '\(candidate.path)' holds weights alone",
      notes: ["name the folder with its config.json instead"])
  }
}
