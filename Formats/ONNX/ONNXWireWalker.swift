import Base

/// Finds the weights of an ONNX file and hides them from the protobuf decoder, which would copy them.
///
/// The walker goes over the wire format (protobuf encoding specification, "Message Structure") of `ModelProto` down to
/// each `TensorProto`, records where contiguous numbers lie, and writes the rest of the message again with a marker of
/// nine bytes in their place.
struct ONNXWireWalker {
  /// Where the numbers of a tensor lie in the file.
  struct Payload {
    /// The field they came from.
    enum Field: UInt8 {
      case rawData = 9
      /// Packed 32-bit floats.
      case floatData = 4
      /// Packed 64-bit floats.
      case doubleData = 10
    }

    var field: Field
    var range: Range<Int>
  }

  /// Payloads in the order of their markers.
  private(set) var payloads: [Payload] = []
  private let bytes: UnsafeRawBufferPointer
  private let file: String
  /// About how many bytes the decoded message takes.
  private var cost = 0

  /// The message kinds on the way to a tensor, by the fields that lead on.
  private enum Message {
    case model, graph, function, node, attribute, sparseTensor, tensor, training

    func child(_ field: UInt64) -> Message? {
      switch (self, field) {
      case (.model, 7): .graph
      case (.model, 20): .training
      case (.model, 25): .function
      case (.training, 1), (.training, 2): .graph
      case (.graph, 1), (.function, 7): .node
      case (.graph, 5): .tensor
      case (.graph, 15): .sparseTensor
      case (.function, 11): .attribute
      case (.node, 5): .attribute
      case (.attribute, 5), (.attribute, 10): .tensor
      case (.attribute, 6), (.attribute, 11): .graph
      case (.attribute, 22), (.attribute, 23): .sparseTensor
      case (.sparseTensor, 1), (.sparseTensor, 2): .tensor
      default: nil
      }
    }
  }

  /// The largest nesting of messages that is followed: a graph inside an attribute takes three levels.
  private static let depthLimit = 64

  /// A walker over the bytes of a `ModelProto`.
  init(_ bytes: UnsafeRawBufferPointer, file: String) {
    self.bytes = bytes
    self.file = file
  }

  /// The message without its weights.
  mutating func redacted() throws -> [UInt8] { try rewrite(.model, 0..<bytes.count, depth: 0) }

  /// The payload a marker stands for; nil if `data` is no marker.
  func payload(marker data: [UInt8]) throws -> Payload {
    guard data.count == Self.markerLength, data[8] == Self.markerTag else {
      throw CompileError(.internal, "a tensor of '\(file)' lost its marker")
    }
    var index = 0
    for byte in 0..<8 { index |= Int(data[byte]) << (8 * byte) }
    guard payloads.indices.contains(index) else {
      throw CompileError(.internal, "a tensor of '\(file)' has a marker without bytes")
    }
    return payloads[index]
  }

  private static let markerLength = 9
  private static let markerTag: UInt8 = 0xA5

  private func failure(_ message: String, at offset: Int) -> CompileError {
    CompileError(.input, message, subject: .init(file: file, offset: offset))
  }

  private func varint(_ offset: inout Int, _ end: Int) throws -> UInt64 {
    try ProtobufReader.varint(bytes, at: &offset, end: end, of: "file", file: file)
  }

  private static func append(_ value: UInt64, to output: inout [UInt8]) {
    var rest = value
    while rest >= 0x80 {
      output.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    output.append(UInt8(rest))
  }

  /// Adds what a field takes when it is decoded: a message of two bytes takes hundreds, a number of one takes eight.
  private mutating func add(_ message: Message, _ field: UInt64, _ length: Int, at offset: Int) throws {
    switch (message, field) {
    case (.tensor, 1), (.tensor, 5), (.tensor, 7), (.tensor, 11), (.attribute, 8): cost += 8 * length
    case (.graph, 11), (.graph, 12), (.graph, 13), (.graph, 14): cost += 320
    default: cost += message.child(field) == nil ? 48 : 320
    }
    guard cost <= 4 * bytes.count + 64 << 20 else {
      throw failure("more fields than a file of \(bytes.count) bytes may have", at: offset)
    }
  }

  private mutating func rewrite(_ message: Message, _ range: Range<Int>, depth: Int) throws -> [UInt8] {
    guard depth < Self.depthLimit else {
      throw failure("messages are nested more than \(Self.depthLimit) deep", at: range.lowerBound)
    }
    var output: [UInt8] = []
    var offset = range.lowerBound
    var numbers = 0
    while offset < range.upperBound {
      let start = offset
      let key = try varint(&offset, range.upperBound)
      let field = key >> 3
      switch key & 7 {
      case 0: _ = try varint(&offset, range.upperBound)
      case 1: offset += 8
      case 5: offset += 4
      case 2:
        let length = try varint(&offset, range.upperBound)
        guard length <= UInt64(range.upperBound - offset) else {
          throw failure(
            "a field of \(length) bytes does not fit into the \(range.upperBound - offset) bytes left", at: start)
        }
        let body = offset..<offset + Int(length)
        offset = body.upperBound
        try add(message, field, body.count, at: start)
        if let child = message.child(field) {
          let inner = try rewrite(child, body, depth: depth + 1)
          Self.append(key, to: &output)
          Self.append(UInt64(inner.count), to: &output)
          output.append(contentsOf: inner)
          continue
        }
        if message == .tensor, field <= 255, let kind = Payload.Field(rawValue: UInt8(field)) {
          if kind != .rawData && body.isEmpty { continue }
          numbers += 1
          guard numbers == 1 else { throw failure("a tensor has its numbers in two fields", at: start) }
          Self.append(9 << 3 | 2, to: &output)
          Self.append(UInt64(Self.markerLength), to: &output)
          for byte in 0..<8 { output.append(UInt8(truncatingIfNeeded: payloads.count >> (8 * byte))) }
          output.append(Self.markerTag)
          payloads.append(Payload(field: kind, range: body))
          continue
        }
      default: throw failure("a field has the unknown wire type \(key & 7)", at: start)
      }
      guard offset <= range.upperBound else { throw failure("the file ends inside a field", at: start) }
      output.append(contentsOf: bytes[start..<offset])
    }
    return output
  }
}
