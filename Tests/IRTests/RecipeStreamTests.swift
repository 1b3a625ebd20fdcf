import IR
import Synchronization
import TestSupport
import Tensors
import Testing

/// Recipes that reorder rows are computed in blocks, which give what the whole gives.
@Suite struct RecipeStreamTests {
  /// Rows of heads from halves to pairs, widened behind that: blocks begin with heads, though the last operator would begin
  /// anywhere.
  @Test(arguments: [1, 40, 400]) func rowsOfHeads(blockBytes: Int) throws {
    let (heads, half, columns) = (3, 2, 5)
    let rows = heads * 2 * half
    var builder = GraphBuilder(name: "f")
    let numbers = (0..<rows * columns).map { Float($0) }
    let source = builder.constant(.inline("w", .f32, [rows, columns], numbers))
    var value = try builder.emit(
      Reshape([.fixed(heads), 2, .fixed(half), .fixed(columns)]), builder.emit(Cast(.f16), source))
    value = try builder.emit(Transpose([0, 2, 1, 3]), value)
    value = try builder.emit(Cast(.f32), builder.emit(Reshape([.fixed(rows), .fixed(columns)]), value))
    var model = Model(name: "m")
    model.constants = builder.constants
    let result = Tensor(.f32, [rows, columns], [Float](repeating: -1, count: rows * columns))
    try ConstantEvaluator(model, builder.graph).stream(value, blockBytes: blockBytes) { range, offset, bytes in
      #expect(range.lowerBound % (2 * half) == 0)
      UnsafeMutableRawBufferPointer(rebasing: result.mutableView.bytes[offset..<offset + bytes.count])
        .copyMemory(from: bytes)
    }
    let expected = (0..<rows).flatMap { row -> [Float] in
      let (head, place) = (row / (2 * half), row % (2 * half))
      let origin = head * 2 * half + place % 2 * half + place / 2
      return (0..<columns).map { numbers[origin * columns + $0] }
    }
    #expect(result.array(of: Float.self) == expected)
  }

  /// A matrix too large to be transposed whole, behind and before other operators: passes over some columns each, of which
  /// the last has fewer.
  @Test(arguments: [1, 40, 200, 1 << 20]) func columnsInPasses(wholeLimit: Int) throws {
    let (rows, columns) = (37, 11)
    var builder = GraphBuilder(name: "f")
    let numbers = (0..<rows * columns).map { Float($0) }
    let source = builder.constant(.inline("w", .f32, [rows, columns], numbers))
    var value = try builder.emit(Transpose([1, 0]), builder.emit(Cast(.f16), source))
    value = try builder.emit(Cast(.f32), builder.emit(Concat(axis: 0), value, value))
    var model = Model(name: "m")
    model.constants = builder.constants
    let blocks = Mutex(0)
    let result = Tensor(.f32, [2 * columns, rows], [Float](repeating: -1, count: 2 * rows * columns))
    try ConstantEvaluator(model, builder.graph, wholeLimit: wholeLimit).stream(value) { _, offset, bytes in
      blocks.withLock { $0 += 1 }
      UnsafeMutableRawBufferPointer(rebasing: result.mutableView.bytes[offset..<offset + bytes.count])
        .copyMemory(from: bytes)
    }
    let expected = (0..<2 * columns).flatMap { column in
      (0..<rows).map { numbers[$0 * columns + column % columns] }
    }
    #expect(result.array(of: Float.self) == expected)
    // A row of the result has 148 bytes.
    let count = blocks.withLock { $0 }
    #expect(count == (wholeLimit == 200 ? 11 : wholeLimit < 200 ? 22 : 1))
  }
}
