import Base
import Tensors

/// A table with some rows replaced, or changed by rows of updates: `y = data`, then for each i in order
/// `y[indices[i]] = updates[i]`, or the sum, product, smaller or larger of what is there and the update.
///
/// Inputs: `data: [R, K]`, `indices: i64[M]` in 0 ..< R, `updates: [M, K]` of the element type of the data. Result like the data.
package struct ScatterRows: Operator {
  package static let name = "scatter_rows"

  package enum Reduction: String, Hashable, Codable, Sendable, CaseIterable {
    case replace, add, multiply, minimum, maximum
  }

  package var reduction: Reduction = .replace

  package init() {}

  package init(_ reduction: Reduction) { self.reduction = reduction }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 3...3)
    let (data, indices, updates) = (inputs[0], inputs[1], inputs[2])
    try expectDense(data, "data")
    try expectRank(data, 2...2, "data")
    guard indices.isDense, indices.element == .i64, indices.rank == 1 else {
      throw failure("found indices of type \(indices), expected a list of i64")
    }
    guard updates == data.with(shape: Shape([indices.shape[0], data.shape[1]])) else {
      throw failure("found updates of type \(updates) for data of type \(data) and indices of type \(indices)")
    }
    guard reduction == .replace || data.element != .bool else { throw failure("does not compute with bool elements") }
    return [data]
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    if reduction == .replace { return try replace(inputs, into: outputs[0]) }
    switch inputs[0].type.element {
    case .f64: try change(in: Double.self, inputs, outputs[0])
    case let element where element.isFloat: try change(in: Float.self, inputs, outputs[0])
    default: try change(in: Int64.self, inputs, outputs[0])
    }
  }

  private func row(_ index: Int64, of count: Int) throws -> Int {
    guard index >= 0, index < count else { throw failure("found the index \(index) of \(count) rows") }
    return Int(index)
  }

  private func replace(_ inputs: [TensorView], into y: MutableTensorView) throws {
    y.bytes.copyMemory(from: inputs[0].bytes)
    let size = inputs[0].sizes[1] * inputs[0].type.element.byteCount
    for (i, index) in inputs[1].elements(as: Int64.self).enumerated() {
      let row = try row(index, of: inputs[0].sizes[0])
      UnsafeMutableRawBufferPointer(rebasing: y.bytes[row * size..<(row + 1) * size])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: inputs[2].bytes[i * size..<(i + 1) * size]))
    }
  }

  private func change<S: Computable>(in type: S.Type, _ inputs: [TensorView], _ output: MutableTensorView) throws {
    let data = Numbers<S>(inputs[0]), updates = Numbers<S>(inputs[2]), result = Results<S>(output)
    let columns = inputs[0].sizes[1]
    let function: BinaryFunction =
      switch reduction {
      case .add, .replace: .add
      case .multiply: .multiply
      case .minimum: .minimum
      case .maximum: .maximum
      }
    defer { withExtendedLifetime((data, updates, result)) {} }
    let (source, target) = (updates.data, result.data)
    target.update(from: data.data, count: data.count)
    for (i, index) in inputs[1].elements(as: Int64.self).enumerated() {
      let row = try row(index, of: inputs[0].sizes[0])
      _ = S.apply(function, to: target + row * columns, source + i * columns, count: columns)
    }
    result.store()
  }
}
