import Base
import IR

/// TensorFlow Lite models, float and fully quantized.
package enum TFLiteFormat: Format {
  package static let name = "tflite"
  package static let summary = "TensorFlow Lite model (.tflite), float or quantized to 8 bits"

  package static func sniff(_ candidate: Candidate) -> Bool {
    let bytes = candidate.bytes
    return bytes.count >= 8 && bytes[4..<8].elementsEqual(TFLiteSchema.identifier.utf8)
  }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    guard let file = candidate.file else {
      throw CompileError(.input, "'\(candidate.path)' is a folder, expected a TensorFlow Lite file")
    }
    return try TFLiteImporter.load(
      file, name: candidate.modelName, dims: options.dimensions, limits: options.limits)
  }
}
