import Base
import IR
import Tensors

extension ONNXOperators {
  /// Constants, and constants stored in quantized form.
  static let constants: [ONNXOperator] = [
    ONNXOperator("Constant") { node, importer in
      let name = node.proto.output.first ?? "constant"
      if let tensor = try node.tensor("value") { return [try importer.value(of: tensor, name: name)] }
      if node.has("value_float") {
        let number = try node.number("value_float", default: 0)
        return [importer.builder.constant(.inline(name, .f32, [], [number]))]
      }
      if node.has("value_int") {
        let number = try node.integer("value_int", default: 0)
        return [importer.builder.constant(.inline(name, .i64, [], [Int64(number)]))]
      }
      if let numbers = try node.integers("value_ints"), numbers.count <= Constant.inlineLimit {
        return [importer.constant(name, integers: numbers)]
      }
      throw CompileError(
        .unsupported, "unsupported 'Constant' without a tensor, a number or a short list of whole numbers")
    },
    // (x - zero_point) * scale, per tensor or along one axis.
    ONNXOperator("DequantizeLinear") { node, importer in
      let x = try node.input(0, &importer)
      let scale = try node.input(1, &importer)
      let zero = try node.optionalInput(2, &importer)
      let type = importer.builder.type(of: x)
      let axis = try node.integer("axis", default: 1)
      guard try node.integer("block_size", default: 0) == 0 else {
        throw CompileError(.unsupported, "unsupported 'DequantizeLinear' in blocks")
      }
      node.ignore("output_dtype")
      let element = importer.builder.type(of: scale).element
      func aligned(_ value: ValueID) throws -> ValueID {
        let shape = importer.builder.type(of: value).shape
        if shape.rank == 0 || shape == [1] {
          return shape.rank == 0 ? value : try importer.builder.emit(Reshape([]), value)
        }
        guard shape.rank == 1, let place = type.shape.normalizedAxis(axis), type.shape[place] == shape[0] else {
          throw CompileError(.input, "'DequantizeLinear' of shape \(type.shape) with a scale of shape \(shape)")
        }
        var dims = [Dim](repeating: 1, count: type.rank)
        dims[place] = shape[0]
        return try importer.builder.emit(Reshape(dims), value)
      }
      var y = try importer.builder.emit(Cast(element), x)
      if let zero {
        y = try importer.builder.emit(Subtract(), y, importer.builder.emit(Cast(element), aligned(zero)))
      }
      return [try importer.builder.emit(Multiply(), y, aligned(scale))]
    },
    // round(x / scale) + zero_point within the range of the result's type, per tensor or along one axis.
    ONNXOperator("QuantizeLinear") { node, importer in
      node.ignore("saturate", "precision")
      let x = try node.input(0, &importer)
      let zero = try node.optionalInput(2, &importer)
      let given = try node.integer("output_dtype", default: 0)
      guard try node.integer("block_size", default: 0) == 0 else {
        throw CompileError(.unsupported, "unsupported 'QuantizeLinear' in blocks")
      }
      let element =
        try zero.map { importer.builder.type(of: $0).element }
        ?? (given == 0 ? .u8 : DType.onnx(Int32(clamping: given), of: "'QuantizeLinear'"))
      guard importer.builder.type(of: x).element == .f32 else {
        throw CompileError(.unsupported, "unsupported 'QuantizeLinear' of \(importer.builder.type(of: x))")
      }
      let axis = try node.integer("axis", default: 1)
      let scale = try importer.aligned(node.input(1, &importer), with: x, axis: axis, node.type)
      let offset = try zero.map { zero in
        try importer.builder.emit(Cast(.f32), importer.aligned(zero, with: x, axis: axis, node.type))
      }
      return [try importer.quantized(x, scale: scale, zero: offset, element)]
    },
    // 255 steps between the least and the greatest number, zero included.
    ONNXOperator("DynamicQuantizeLinear") { node, importer in
      let x = try node.input(0, &importer)
      let low = try importer.builder.emit(
        Minimum(), importer.builder.emit(Reduce(.min, axes: []), x), importer.zero(.f32))
      let high = try importer.builder.emit(
        Maximum(), importer.builder.emit(Reduce(.max, axes: []), x), importer.zero(.f32))
      // Of zeros alone any scale will do.
      let step = ScalarExpression.select(
        .binary(.equal, .input(0), .input(1)), .number(1),
        .binary(.divide, .binary(.subtract, .input(1), .input(0)), .number(255)))
      let scale = try importer.builder.emit(FusedElementwise(step), low, high)
      let code = ScalarExpression.clamp(
        .unary(.round, .binary(.divide, .unary(.negate, .input(0)), .input(1))), 0, 255)
      let zero = try importer.builder.emit(FusedElementwise(code), low, scale)
      return [
        try importer.quantized(x, scale: scale, zero: zero, .u8), scale, try importer.builder.emit(Cast(.u8), zero),
      ]
    },
  ]
}

extension ONNXImporter {
  /// A scale or zero point brought to the axis of `x` that it belongs to.
  mutating func aligned(
    _ value: ValueID, with x: ValueID, axis: Int, _ type: String
  ) throws -> ValueID {
    let shape = builder.type(of: value).shape, target = builder.type(of: x).shape
    if shape.rank == 0 { return value }
    if shape == [1] { return try builder.emit(Reshape([]), value) }
    guard shape.rank == 1, let place = target.normalizedAxis(axis), target[place] == shape[0] else {
      throw CompileError(.input, "'\(type)' of shape \(target) with a scale of shape \(shape)")
    }
    var dims = [Dim](repeating: 1, count: target.rank)
    dims[place] = shape[0]
    return try builder.emit(Reshape(dims), value)
  }

  /// `x / scale` in whole steps, moved by the zero point and held to the range of an element type.
  fileprivate mutating func quantized(
    _ x: ValueID, scale: ValueID, zero: ValueID?, _ element: DType
  ) throws -> ValueID {
    let range: (Float, Float)
    switch element {
    case .u8: range = (0, 255)
    case .i8: range = (-128, 127)
    case .i16: range = (-32768, 32767)
    default: throw CompileError(.unsupported, "unsupported quantization to \(element.rawValue)")
    }
    let steps = ScalarExpression.unary(.round, .binary(.divide, .input(0), .input(1)))
    let moved = zero == nil ? steps : .binary(.add, steps, .input(2))
    let op = FusedElementwise(.clamp(moved, range.0, range.1))
    return try builder.emit(Cast(element), builder.emit(op, [x, scale] + (zero.map { [$0] } ?? [])))
  }
}
