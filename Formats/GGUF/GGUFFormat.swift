import Base
import IR

/// A GGUF file, versions 2 and 3.
package enum GGUFFormat: Format {
  package static let name = "gguf"
  package static let summary = "GGUF file (versions 2 and 3)"

  package static func sniff(_ candidate: Candidate) -> Bool { candidate.bytes.starts(with: "GGUF".utf8) }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    throw CompileError(.unsupported, "gguf")
  }
}
