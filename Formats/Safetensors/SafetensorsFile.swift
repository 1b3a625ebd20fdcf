import Base
import IR
import Tensors

/// A safetensors file: eight bytes with the length of a JSON header, the header, and the bytes of the tensors.
///
/// The checks are those of the reference implementation (huggingface/safetensors): the header is a JSON object within
/// the limits, without duplicate keys; the tensors fill the data section in order of their offsets without holes and
/// overlaps up to the end of the file; shape times element size equals the span. In addition tensors must be aligned to
/// their elements. Element types that mcc has none for are read as bytes (``CheckpointTensor/foreignType``).
package struct SafetensorsFile: Sendable {
  package let file: MappedFile
  /// In the order of the header.
  package private(set) var tensors: [CheckpointTensor] = []
  /// The free-form text of `__metadata__`, in order.
  package private(set) var metadata: [(key: String, value: String)] = []

  /// The element types of the format and their bits; nil for those mcc has no type for.
  private static let elements: [String: (bits: Int, type: DType?)] = [
    "F64": (64, .f64), "F32": (32, .f32), "F16": (16, .f16), "BF16": (16, .bf16),
    "F8_E4M3": (8, .f8e4m3), "F8_E5M2": (8, .f8e5m2), "F8_E8M0": (8, nil), "F6_E2M3": (6, nil), "F6_E3M2": (6, nil),
    "F4": (4, nil), "I64": (64, .i64), "I32": (32, .i32), "I16": (16, .i16), "I8": (8, .i8),
    "U64": (64, nil), "U32": (32, nil), "U16": (16, nil), "U8": (8, .u8), "BOOL": (8, .bool), "C64": (64, nil),
  ]

  /// Whether bytes begin like a safetensors file: a plausible length, then an opening brace.
  package static func sniff(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard bytes.count >= 10 else { return false }
    let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
    return length >= 2 && length <= UInt64(bytes.count) && bytes[8] == UInt8(ascii: "{")
  }

  /// Reads and checks the header of `file`.
  package init(_ file: MappedFile, limits: LoadLimits = LoadLimits()) throws {
    self.file = file
    var reader = ByteReader(file)
    guard file.size >= 8 else { throw reader.failure("the file has \(file.size) bytes, too few for a header length") }
    let declared = try reader.u64()
    guard declared > 0 else { throw reader.failure("header length 0", at: 0) }
    guard declared <= UInt64(limits.headerBytes) else {
      throw reader.failure("header length \(declared), at most \(limits.headerBytes) is allowed", at: 0)
    }
    guard declared <= UInt64(reader.remaining) else {
      throw reader.failure("header length \(declared), but \(reader.remaining) bytes follow", at: 0)
    }
    let header = try reader.bytes(Int(declared), "the header")
    guard header.first == UInt8(ascii: "{") else { throw reader.failure("the header does not begin with '{'", at: 8) }
    let json: JSON
    do {
      json = try JSON.parse(header, file: file.path, fileBytes: file.size)
    } catch var error as CompileError {
      if let offset = error.subject?.offset { error.subject?.offset = offset + 8 }
      throw error
    }
    guard let members = json.object else { throw reader.failure("the header is no JSON object", at: 8) }
    guard members.count <= limits.tensors else {
      throw reader.failure("\(members.count) tensors, at most \(limits.tensors) are allowed", at: 8)
    }
    let dataStart = reader.offset
    tensors.reserveCapacity(members.count)
    for (name, value) in members {
      if name == "__metadata__" {
        try readMetadata(value)
      } else {
        tensors.append(try tensor(name, value, dataStart, limits))
      }
    }
    try checkCoverage(from: dataStart)
  }

  private func failure(_ message: String, _ name: String, kind: CompileError.Kind = .input) -> CompileError {
    CompileError(kind, message, subject: .init(file: file.path, object: "tensor '\(name)'"))
  }

  private mutating func readMetadata(_ value: JSON) throws {
    guard let members = value.object else {
      throw CompileError(.input, "'__metadata__' is no object", subject: .init(file: file.path))
    }
    for (key, value) in members {
      guard let text = value.string else {
        throw CompileError(
          .input, "'__metadata__.\(key)' is \(value.kindDescription), expected a string",
          subject: .init(file: file.path))
      }
      metadata.append((key, text))
    }
  }

  private func integers(_ value: JSON?, _ key: String, _ name: String) throws -> [Int] {
    guard let elements = value?.array else { throw failure("'\(key)' is missing or no array", name) }
    return try elements.map { element in
      guard case .integer(let number) = element, number >= 0 else {
        throw failure("'\(key)' contains something that is no size", name)
      }
      return Int(number)
    }
  }

  private func tensor(_ name: String, _ value: JSON, _ dataStart: Int, _ limits: LoadLimits) throws -> CheckpointTensor
  {
    guard value.object != nil else { throw failure("the entry is \(value.kindDescription), expected an object", name) }
    guard let typeName = value["dtype"]?.string else { throw failure("'dtype' is missing or no string", name) }
    guard let (bits, element) = Self.elements[typeName] else {
      throw failure(
        "unknown dtype '\(typeName)', expected one of \(listed(Self.elements.keys.sorted(), "or"))", name)
    }
    let sizes = try integers(value["shape"], "shape", name)
    guard sizes.count <= limits.rank else {
      throw failure("\(sizes.count) axes, at most \(limits.rank) are allowed", name)
    }
    let offsets = try integers(value["data_offsets"], "data_offsets", name)
    guard offsets.count == 2, offsets[0] <= offsets[1] else {
      throw failure("'data_offsets' are \(offsets), expected a begin and an end", name)
    }
    let available = file.size - dataStart
    guard offsets[1] <= available else {
      throw failure("bytes \(offsets[0]) to \(offsets[1]) lie outside the \(available) bytes of data", name)
    }
    let need: Int
    do {
      let count = try Shape.checkedCount(sizes, of: "the tensor")
      // No type takes more than eight bytes.
      guard count <= 1 << 58 else { throw failure("the shape \(sizes) of the tensor is out of range", name) }
      guard count * bits % 8 == 0 else {
        throw failure("\(count) numbers of \(bits) bits do not fill whole bytes", name)
      }
      need = count * bits / 8
    } catch let error as CompileError {
      throw failure(error.message, name)
    }
    guard need == offsets[1] - offsets[0] else {
      throw failure(
        "\(typeName) of shape \(Shape(sizes)) needs \(need) bytes, but 'data_offsets' span \(offsets[1] - offsets[0])",
        name)
    }
    let begin = dataStart + offsets[0]
    let width = max(bits / 8, 1)
    guard begin % width == 0 || need == 0 else {
      throw failure("the data begins at byte \(begin) of the file, which is no multiple of \(width)", name)
    }
    let range = begin..<dataStart + offsets[1]
    guard let element else {
      return CheckpointTensor(
        name: name, type: TensorType(.u8, [need]), file: file, range: range, foreignType: typeName)
    }
    return CheckpointTensor(name: name, type: TensorType(element, sizes), file: file, range: range)
  }

  private func checkCoverage(from dataStart: Int) throws {
    let order = tensors.sorted {
      ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
    }
    var position = dataStart
    for tensor in order {
      guard tensor.range.lowerBound == position else {
        let overlap = tensor.range.lowerBound < position
        throw failure(
          overlap
            ? "the data at byte \(tensor.range.lowerBound) of the file overlaps the tensor before it"
            : "\(tensor.range.lowerBound - position) bytes before the data at byte \(tensor.range.lowerBound) of the file "
              + "belong to no tensor", tensor.name)
      }
      position = tensor.range.upperBound
    }
    guard position == file.size else {
      throw CompileError(
        .input, "the tensors end at byte \(position), but the file has \(file.size) bytes",
        subject: .init(file: file.path))
    }
  }
}
