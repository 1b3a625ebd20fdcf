import Base
import IR
import Tensors

extension SampleWalk {
  /// The numbers of a live value on all samples, cut into rows.
  func rows(of value: ValueID, columns: Int) throws -> [SampleRows] {
    try (0..<count).map { sample in
      let tensor = try tensor(value, of: sample).floats()
      guard let numbers = tensor.view.elements(as: Float.self).baseAddress else {
        throw CompileError(.internal, "a value without numbers")
      }
      return SampleRows(numbers, rows: tensor.view.count / max(1, columns), owner: tensor)
    }
  }
}

extension Tensor {
  /// The numbers in f32, those that codes stand for where they are quantized.
  func floats() throws -> Tensor {
    if type.element == .f32, type.isDense { return self }
    let result = Tensor(TensorType(.f32, type.shape))
    let op: any Operator = type.isDense ? Cast(.f32) : Dequantize(.f32)
    try op.evaluate([view], into: [result.mutableView])
    return result
  }

  /// The same as an array.
  func numbers() throws -> [Float] {
    let tensor = try floats()
    return withExtendedLifetime(tensor) { Array(tensor.view.elements(as: Float.self)) }
  }
}
