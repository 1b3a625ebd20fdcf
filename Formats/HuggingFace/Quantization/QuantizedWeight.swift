import Base
import IR
import Tensors

/// A weight that is made of codes, scales and what else belongs to them, each stored as a tensor of its own.
struct QuantizedWeight {
  /// A stored tensor seen with other sizes.
  struct Part: Sendable {
    var tensor: CheckpointTensor
    var sizes: [Int]?

    init(_ tensor: CheckpointTensor, _ sizes: [Int]? = nil) {
      self.tensor = tensor
      self.sizes = sizes
    }
  }

  /// The weight as one tensor.
  let tensor: CheckpointTensor
  /// Whether a kernel may read the codes.
  let isKept: Bool

  /// A weight of `op` over its inputs in order, with the given sizes.
  ///
  /// `makeScales` makes the scales where they are not stored as they are used.
  init(
    _ name: String, _ sizes: [Int], _ op: UnpackCodes, _ codes: Part, _ scales: Part, _ others: [Part] = [],
    makeScales: (@Sendable (inout Model, inout GraphBuilder) throws -> ValueID)? = nil
  ) {
    var tensor = CheckpointTensor(
      name: name, type: TensorType(.f32, sizes), file: codes.tensor.file, range: codes.tensor.range)
    tensor.recipe = { model, builder in
      var inputs = [try codes.tensor.constant(codes.sizes, into: &model, &builder)]
      if let makeScales {
        inputs.append(try makeScales(&model, &builder))
      } else {
        inputs.append(try scales.tensor.constant(scales.sizes, into: &model, &builder))
      }
      for part in others { inputs.append(try part.tensor.constant(part.sizes, into: &model, &builder)) }
      let isWhole = op.format == nil && sizes == [op.rows, op.columns]
      var value = try builder.emit(op, inputs, name: isWhole ? name : nil)
      if op.format != nil { value = try builder.emit(Dequantize(.f32), value, name: name) }
      guard sizes != [op.rows, op.columns] else { return value }
      return try builder.emit(Reshape(sizes.map { .fixed($0) }), value, name: name)
    }
    self.tensor = tensor
    isKept = op.format.map(Self.hasKernel) ?? false
  }

  /// Whether products read blocks of a format as they are.
  private static func hasKernel(_ format: BlockFormat) -> Bool {
    switch (format.bits, format.group, format.scale) {
    case (8, let group, .f32) where format.codes == .float8: group.map { $0 % 8 == 0 } ?? true
    case (8, nil, .f32), (4, 32, .u8), (4, 16, .f8e4m3): true
    case (2...8, let group?, .f16): [32, 64, 128].contains(group)
    default: false
    }
  }

  /// The blocks that codes of `bits` with a scale per `group` of `columns` become, so that kernels read them if they can;
  /// nil if there are none.
  ///
  /// Longer groups are cut into groups of 128, 64 or 32 with the same scale.
  static func format(
    bits: Int, group: Int, columns: Int, hasZeroPoints: Bool = false, scalesFitHalf: Bool
  ) -> BlockFormat? {
    if bits == 8, group >= columns, !hasZeroPoints { return .w8c }
    let length = [128, 64, 32].first { group >= columns ? columns % $0 == 0 : group % $0 == 0 } ?? min(group, columns)
    let codes: BlockFormat.Codes = hasZeroPoints ? .zeroPoint : .signed
    let scale: DType = scalesFitHalf ? .f16 : .f32
    guard BlockFormat.isValid(bits: bits, group: length, scale: scale, codes: codes) else { return nil }
    return BlockFormat(bits: bits, group: length, scale: scale, codes: codes)
  }
}

extension CheckpointTensor {
  /// An error about the tensor.
  func failure(_ message: String, kind: CompileError.Kind = .input) -> CompileError {
    CompileError(kind, message, subject: .init(file: file.path, object: "tensor '\(name)'"))
  }

  /// The sizes, which must be as many as `rank`.
  func sizes(_ rank: Int, _ elements: DType...) throws -> [Int] {
    guard let sizes = type.shape.fixedSizes, sizes.count == rank, strides == nil, foreignType == nil, recipe == nil,
      elements.isEmpty || elements.contains(type.element)
    else {
      throw failure("found \(type), expected \(listed(elements.map(\.rawValue), "or")) with \(rank) axes")
    }
    return sizes
  }

  /// Whether every number, times a power of two, is an f16 number, subnormal ones included.
  func fitsHalf(times factor: Float = 1) throws -> Bool {
    if type.element == .f16, factor == 1 { return true }
    guard type.element.isFloat, strides == nil else { return false }
    let bytes = try file.slice(range)
    let width = type.element.byteCount, step = 1 << 16
    for start in stride(from: 0, to: bytes.count, by: step * width) {
      let part = UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + step * width, bytes.count)])
      for number in floats(part, type.element) where F16.value(F16.bits(number * factor)) != number * factor {
        return false
      }
    }
    return true
  }

  /// The numbers of a floating-point tensor.
  func numbers() throws -> [Float] {
    guard type.element.isFloat, strides == nil else { throw failure("found \(type), expected floating-point numbers") }
    return floats(try file.slice(range), type.element)
  }

  /// The i32 numbers.
  func integers() throws -> [Int32] {
    var reader = ByteReader(try file.slice(range), file: file.path, base: range.lowerBound)
    guard type.element == .i32 else { throw failure("found \(type), expected i32") }
    return try (0..<range.count / 4).map { _ in try reader.i32() }
  }
}
