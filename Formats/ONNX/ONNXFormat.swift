import Base
import IR

/// ONNX graphs, weights inside the file or in files beside it.
package enum ONNXFormat: Format {
  package static let name = "onnx"
  package static let summary = "ONNX graph (.onnx), with inline or external weights"

  /// Whether the bytes begin like a `ModelProto`: the version of the format, then only fields that the message has.
  package static func sniff(_ candidate: Candidate) -> Bool {
    let bytes = candidate.bytes
    guard bytes.count >= 4, bytes[0] == 0x08, (1...64).contains(bytes[1]) else { return false }
    let fields: Set<UInt8> = [2, 3, 4, 5, 6, 7, 8, 14]
    return fields.contains(bytes[2] >> 3) && (bytes[2] & 7 == 2 || bytes[2] & 7 == 0)
  }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    guard let file = candidate.file else {
      throw CompileError(.input, "'\(candidate.path)' is a folder, expected an ONNX file")
    }
    let (loaded, notes) = try ONNXImporter.load(file, name: candidate.modelName, dims: options.dimensions)
    var model = loaded
    model.add(notes: notes)
    return model
  }
}
