import Base
import IR
import Tensors

/// A tensor of a TensorFlow Lite graph as its file describes it.
struct TFLiteTensor {
  /// How the numbers of a quantized tensor follow from its codes: `(code - zero point) * scale`, with one scale and zero
  /// point, or one for each place along an axis.
  struct Quantization {
    /// Where the f32 scales lie in the file.
    var scales: Range<Int>
    var zeroPoints: [Int]
    var axis: Int
    var count: Int { scales.count / 4 }
  }

  let index: Int
  let name: String
  let sizes: [Int]
  /// The axes whose sizes stand for any others, as the signature of the shape says.
  let openAxes: [Int]
  let element: DType
  /// Where the bytes of a constant lie in the file.
  let data: Range<Int>?
  let quantization: Quantization?

  var type: TensorType { TensorType(element, sizes) }

  /// The largest number of channels with a scale each.
  private static let scaleLimit = 1 << 20

  /// Reads a `Tensor` of the schema.
  init(_ table: FlatTable, index: Int, buffers: FlatTables, limits: LoadLimits) throws {
    typealias Field = TFLiteSchema.Tensor
    self.index = index
    let name = try table.string(Field.name)
    self.name = name
    func failure(_ kind: CompileError.Kind, _ message: String) -> CompileError {
      CompileError(kind, "tensor \(index) ('\(name)') \(message)", subject: .init(file: table.buffer.file))
    }
    let code = try table.integer(Field.type, Int8.self, default: 0)
    guard let element = TFLiteSchema.element(code) else {
      let names = TFLiteSchema.typeNames
      throw failure(
        .unsupported, "has the element type \(names.indices.contains(Int(code)) ? names[Int(code)] : "number \(code)")")
    }
    self.element = element
    let sizes = try table.integers(Field.shape, Int32.self, limit: limits.rank)
    guard sizes.allSatisfy({ $0 >= 0 }) else { throw failure(.input, "has the shape \(sizes)") }
    let need = try TensorType.checkedByteCount(sizes: sizes, element: element, of: "tensor '\(name)'")
    guard try table.table(Field.sparsity) == nil else { throw failure(.unsupported, "is stored sparsely") }
    let number = Int(try table.integer(Field.buffer, UInt32.self, default: 0))
    let data = try Self.data(buffers.table(number, "tensor \(index)"))
    if let data, data.count != need {
      throw failure(.input, "has \(data.count) bytes of data, its shape \(sizes) of \(element.rawValue) needs \(need)")
    }
    self.data = data
    self.sizes = sizes
    let signature = try table.integers(Field.shapeSignature, Int32.self, limit: limits.rank)
    openAxes = signature.count == sizes.count ? sizes.indices.filter { signature[$0] < 0 } : []
    guard !(try table.flag(Field.isVariable)) else { throw failure(.unsupported, "is a variable") }
    quantization = try table.table(Field.quantization).flatMap { quantization -> Quantization? in
      typealias Field = TFLiteSchema.Quantization
      let scales = try quantization.vector(Field.scale, width: 4)
      guard scales.count > 0 else { return nil }
      guard try quantization.integer(Field.detailsType, UInt8.self, default: 0) == 0 else {
        throw failure(.unsupported, "is quantized by a custom scheme")
      }
      var zeros = try quantization.integers(Field.zeroPoint, Int64.self, limit: Self.scaleLimit)
      if zeros.isEmpty { zeros = Array(repeating: 0, count: min(scales.count, Self.scaleLimit)) }
      let axis = Int(try quantization.integer(Field.quantizedDimension, Int32.self, default: 0))
      guard zeros.count == scales.count else {
        throw failure(.input, "has \(scales.count) scales and \(zeros.count) zero points")
      }
      if scales.count > 1 {
        guard sizes.indices.contains(axis), sizes[axis] == scales.count else {
          throw failure(.input, "of shape \(sizes) has \(scales.count) scales along axis \(axis)")
        }
      }
      return Quantization(scales: scales.range, zeroPoints: zeros, axis: axis)
    }
  }

  /// Where the bytes of a `Buffer` lie; nil for one without data.
  private static func data(_ buffer: FlatTable) throws -> Range<Int>? {
    typealias Field = TFLiteSchema.Buffer
    let data = try buffer.vector(Field.data, width: 1)
    if data.count > 0 { return data.range }
    // 0 and 1 stand for no data behind the file's tables.
    let offset = try buffer.integer(Field.offset, UInt64.self, default: 0)
    let size = try buffer.integer(Field.size, UInt64.self, default: 0)
    guard offset > 1 else { return nil }
    let total = UInt64(buffer.buffer.bytes.count)
    guard offset <= total, size <= total - offset else {
      throw buffer.buffer.failure(
        "a buffer of \(size) bytes at byte \(offset) lies outside of the file", at: buffer.position)
    }
    return Int(offset)..<Int(offset + size)
  }
}
