import Base
import Tensors

/// Rows of 8-bit codes with a scale each, put together to blocks: `y[o, k]` stands for `codes[o, k] * scales[o]`.
///
/// Inputs `codes: i8[O, K]` and `scales: f32[O]`, result `f32[O, K] block<q8f32row>`: weights that a file holds in quantized form
/// keep their very codes.
package struct QuantizedRows: RowMapped {
  package static let name = "quantized_rows"

  package init() {}

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    let (codes, scales) = (inputs[0], inputs[1])
    try expectDense(codes, "codes")
    try expectRank(codes, 2...2, "codes")
    guard codes.element == .i8 else { throw failure("found codes of type \(codes), expected i8 elements") }
    _ = try expectFixed(codes.shape[0], "rows")
    _ = try expectFixed(codes.shape[1], "columns")
    guard scales == TensorType(.f32, Shape([codes.shape[0]])) else {
      throw failure("found scales of type \(scales) for codes of type \(codes)")
    }
    return [TensorType(.f32, codes.shape, encoding: .block(.w8c))]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? { [rows, rows] }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let columns = inputs[0].sizes[1]
    let rowBytes = BlockFormat.w8c.rowBytes(columns: columns)
    guard rowBytes > 0 else { return }
    for row in 0..<inputs[0].sizes[0] {
      let block = UnsafeMutableRawBufferPointer(rebasing: outputs[0].bytes[row * rowBytes..<(row + 1) * rowBytes])
      block.copyMemory(from: UnsafeRawBufferPointer(rebasing: inputs[1].bytes[4 * row..<4 * (row + 1)]))
      UnsafeMutableRawBufferPointer(rebasing: block[4...])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: inputs[0].bytes[row * columns..<(row + 1) * columns]))
    }
  }
}
