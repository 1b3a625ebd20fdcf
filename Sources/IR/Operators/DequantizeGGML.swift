import Base
import Tensors

/// The numbers that rows of ggml blocks stand for (``GGMLBlock``): `u8[..., B * bytes] -> f32[..., B * length]`.
///
/// For the block types of GGUF files that have no kernels; those that have are block encodings (``Dequantize``).
package struct DequantizeGGML: RowMapped {
  package static let name = "dequantize_ggml"

  package var block: GGMLBlock = .q4_k

  package init() {}

  package init(_ block: GGMLBlock) { self.block = block }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    guard x.element == .u8, x.isDense, x.rank >= 1 else {
      throw failure("found input of type \(x), expected rows of u8")
    }
    let bytes = try expectFixed(x.shape.last, "bytes of a row")
    guard bytes % block.byteCount == 0 else {
      throw failure("found rows of \(bytes) bytes, expected a multiple of \(block.byteCount), the bytes of a block")
    }
    var shape = x.shape
    shape[x.rank - 1] = .fixed(bytes / block.byteCount * block.length)
    return [TensorType(.f32, shape)]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    inputs[0].rank >= 2 ? [rows] : nil
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    guard let source = inputs[0].bytes.baseAddress, let target = outputs[0].bytes.baseAddress else { return }
    nonisolated(unsafe) let (input, output) = (source, target.assumingMemoryBound(to: Float.self))
    let blocks = inputs[0].bytes.count / block.byteCount
    parallelFor(blocks, grain: max(1, 65536 / block.length)) { range in
      block.dequantize(
        input + range.lowerBound * block.byteCount, blocks: range.count, into: output + range.lowerBound * block.length)
    }
  }
}
