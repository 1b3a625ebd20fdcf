import Base
import IR
import SwiftProtobuf
import Tensors

/// Turns `TensorProto` into constants: addresses in the model's file or in an external one.
struct ONNXTensors {
  let file: MappedFile
  let walker: ONNXWireWalker
  /// The folder that external data must lie in.
  let folder: String
  private var externals: [String: MappedFile] = [:]

  /// A reader of the tensors of `file`, whose weights `walker` has found.
  init(file: MappedFile, walker: ONNXWireWalker) {
    self.file = file
    self.walker = walker
    folder = ArchivePath.folder(of: file.path)
  }

  /// The element type with that number in `TensorProto.DataType`.
  static func elementType(_ number: Int32, of what: @autoclosure () -> String) throws -> DType {
    switch number {
    case 1: return .f32
    case 2: return .u8
    case 3: return .i8
    case 5: return .i16
    case 6: return .i32
    case 7: return .i64
    case 9: return .bool
    case 10: return .f16
    case 11: return .f64
    case 16: return .bf16
    case 17: return .f8e4m3
    case 19: return .f8e5m2
    default:
      let name = Onnx_TensorProto.DataType(rawValue: Int(number)).map { "\($0)" } ?? "number \(number)"
      throw CompileError(.unsupported, "\(what()) has the element type \(name)")
    }
  }

  /// The constant of a tensor; the archives it needs are added to `model`.
  mutating func constant(_ tensor: Onnx_TensorProto, name: String, in model: inout Model) throws -> Constant {
    let place = CompileError.Subject(file: file.path, object: "tensor '\(name)'")
    func failure(_ message: String) -> CompileError { CompileError(.input, message, subject: place) }
    let element = try Self.elementType(tensor.dataType, of: "tensor '\(name)'")
    let sizes = try tensor.dims.map { dim -> Int in
      guard let size = Int(exactly: dim), size >= 0 else {
        throw failure("the shape \(tensor.dims) has a negative size")
      }
      return size
    }
    guard sizes.count <= 16 else { throw failure("a shape of \(sizes.count) axes is not accepted, at most 16 are") }
    let need = try TensorType.checkedByteCount(sizes: sizes, element: element, of: "tensor '\(name)'")
    let type = TensorType(element, sizes)
    if tensor.dataLocation == .external {
      let (index, range) = try external(tensor, need, failure, in: &model)
      return Constant(name: name, type: type, source: .archive(index, range))
    }
    if tensor.hasRawData {
      let payload = try walker.payload(marker: [UInt8](tensor.rawData))
      switch (payload.field, element) {
      case (.rawData, _), (.floatData, .f32), (.doubleData, .f64): break
      default: throw failure("numbers of type \(element.rawValue) do not belong into this field")
      }
      guard payload.range.count == need else {
        throw failure("\(payload.range.count) bytes of data, the shape \(sizes) of \(element.rawValue) needs \(need)")
      }
      return try small(Constant(name: name, type: type, source: .archive(model.addArchive(file), payload.range)))
    }
    let bytes = try typedData(tensor, element, count: need / element.byteCount, failure)
    return Constant(name: name, type: type, source: .inline(bytes))
  }

  /// Constants of few elements are kept inline, so that shapes and axes can be read off the IR.
  private func small(_ constant: Constant) throws -> Constant {
    guard case .archive(_, let range) = constant.source, constant.type.maximumCount <= Constant.inlineLimit else {
      return constant
    }
    var copy = constant
    copy.source = .inline([UInt8](try file.slice(range)))
    return copy
  }

  /// The most numbers that are read one by one: their bytes are kept in the model, not in the file.
  private static let typedLimit = 1 << 18

  private func typedData(
    _ tensor: Onnx_TensorProto, _ element: DType, count: Int, _ failure: (String) -> CompileError
  ) throws -> [UInt8] {
    func check(_ found: Int) throws {
      guard found == count else { throw failure("\(found) numbers, the shape \(tensor.dims) needs \(count)") }
      guard count <= Self.typedLimit else {
        throw CompileError(
          .unsupported,
          "tensor '\(tensor.name)' stores \(count) numbers one by one; more than "
            + "\(Self.typedLimit) are read from raw_data, float_data and double_data alone",
          subject: .init(file: file.path))
      }
    }
    func pack<Number: FixedWidthInteger>(_ values: [some BinaryInteger], _ type: Number.Type) throws -> [UInt8] {
      try check(values.count)
      var bytes: [UInt8] = []
      bytes.reserveCapacity(values.count * MemoryLayout<Number>.size)
      for value in values {
        guard let number = Number(exactly: value) else { throw failure("the number \(value) is out of range") }
        withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
      }
      return bytes
    }
    switch element {
    case .f32:
      try check(tensor.floatData.count)
      return tensor.floatData.flatMap { value in withUnsafeBytes(of: value.bitPattern) { [UInt8]($0) } }
    case .f64:
      try check(tensor.doubleData.count)
      return tensor.doubleData.flatMap { value in withUnsafeBytes(of: value.bitPattern) { [UInt8]($0) } }
    case .i64: return try pack(tensor.int64Data, Int64.self)
    case .i32: return try pack(tensor.int32Data, Int32.self)
    case .i16: return try pack(tensor.int32Data, Int16.self)
    case .i8: return try pack(tensor.int32Data, Int8.self)
    case .u8, .f8e4m3, .f8e5m2: return try pack(tensor.int32Data, UInt8.self)
    case .f16, .bf16: return try pack(tensor.int32Data, UInt16.self)
    case .bool:
      let bytes = try pack(tensor.int32Data, UInt8.self)
      guard bytes.allSatisfy({ $0 <= 1 }) else { throw failure("a bool is neither 0 nor 1") }
      return bytes
    }
  }

  /// The archive and range of a tensor whose bytes lie in another file beside the model.
  private mutating func external(
    _ tensor: Onnx_TensorProto, _ need: Int, _ failure: (String) -> CompileError, in model: inout Model
  ) throws -> (Int, Range<Int>) {
    var location: String?
    var offset = 0
    var length: Int?
    for entry in tensor.externalData {
      func number() throws -> Int {
        guard let value = Int(entry.value), value >= 0 else {
          throw failure("external data has the \(entry.key) '\(entry.value)', expected a number")
        }
        return value
      }
      switch entry.key {
      case "location": location = entry.value
      case "offset": offset = try number()
      case "length": length = try number()
      default: break
      }
    }
    guard let location, !location.isEmpty else { throw failure("external data without a location") }
    if let length, length != need { throw failure("external data of \(length) bytes, the shape needs \(need)") }
    let data: MappedFile
    if let open = externals[location] {
      data = open
    } else {
      data = try ContainedFile.open(location, in: folder, named: "external data of tensor '\(tensor.name)'")
      externals[location] = data
    }
    guard offset <= data.size, need <= data.size - offset else {
      throw failure("external data at byte \(offset) of '\(location)' needs \(need) bytes, the file has \(data.size)")
    }
    return (model.addArchive(data), offset..<offset + need)
  }
}
