import Base
import IR
import Tensors

extension ONNXOperators {
  /// Products of matrices.
  static let matrixProducts: [ONNXOperator] = [
    ONNXOperator("MatMul") { node, importer in
      // A list of numbers is one row on the left and one column on the right; its axis is not in the result.
      var a = try node.input(0, &importer), b = try node.input(1, &importer)
      let (left, right) = (importer.builder.type(of: a).shape, importer.builder.type(of: b).shape)
      if left.rank == 1 { a = try importer.builder.emit(Reshape([1, left[0]]), a) }
      if right.rank == 1 { b = try importer.builder.emit(Reshape([right[0], 1]), b) }
      let y = try importer.builder.emit(MatMul(), a, b)
      guard left.rank == 1 || right.rank == 1 else { return [y] }
      var dims = importer.builder.type(of: y).shape.dims
      if left.rank == 1 { dims.remove(at: dims.count - 2) }
      if right.rank == 1 { dims.removeLast() }
      return [try importer.builder.emit(Reshape(dims), y)]
    },
    ONNXOperator("Gemm") { node, importer in
      var a = try node.input(0, &importer)
      let b = try node.input(1, &importer)
      let alpha = try node.number("alpha", default: 1)
      let beta = try node.number("beta", default: 1)
      if try node.integer("transA", default: 0) != 0 {
        a = try importer.builder.emit(Transpose([1, 0]), a)
      }
      let product = MatMul(transposeB: try node.integer("transB", default: 0) != 0)
      var y = try importer.builder.emit(product, a, b)
      let element = importer.builder.type(of: y).element
      y = try importer.scaled(y, by: alpha, element)
      if let c = try node.optionalInput(2, &importer), beta != 0 {
        y = try importer.builder.emit(Add(), y, try importer.scaled(c, by: beta, element))
      }
      return [y]
    },
  ]
}

extension ONNXImporter {
  /// `value * factor`; the value itself where the factor is 1.
  fileprivate mutating func scaled(_ value: ValueID, by factor: Float, _ element: DType) throws -> ValueID {
    if factor == 1 { return value }
    guard element == .f32 else {
      throw CompileError(.unsupported, "unsupported 'Gemm' of \(element.rawValue) with a factor")
    }
    let constant = builder.constant(.inline("factor", .f32, [], [factor]))
    return try builder.emit(Multiply(), value, constant)
  }
}
