import Base
import IR
import Tensors

/// A constant in the panel layout of a kernel.
///
/// The result has the shape and element type of the input and the encoding `packed`.
package struct Pack: RowMapped {
  package static let name = "pack"
  package static let level = OperatorLevel.target

  package var layout = PackedLayout(name: "", rows: 1, panelBytes: 0)

  package init() {}

  package init(_ layout: PackedLayout) { self.layout = layout }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    guard inputs[0].shape.isFixed, inputs[0].rank >= 1 else {
      throw failure("found input of type \(inputs[0]), expected known sizes and rank 1 or more")
    }
    if case .packed = inputs[0].encoding { throw failure("found input of type \(inputs[0]), which is packed already") }
    return [TensorType(inputs[0].element, inputs[0].shape, encoding: .packed(layout))]
  }

  package func rowGranularity(_ inputs: [TensorType]) -> Int { layout.rows }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? { [rows] }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    try KernelRegistry.pack(inputs[0], as: layout, into: outputs[0].bytes)
  }
}
