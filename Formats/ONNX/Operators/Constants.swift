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
  ]
}
