import Base
import IR
import Tensors

extension TensorType {
  /// The type of a cache of keys or values with `heads` heads of `headDim` numbers in a row.
  ///
  /// - Throws: `CompileError` of kind `.unsupported` for heads that do not fit the codes.
  init(_ cache: CacheType, rows: Int, heads: Int, headDim: Int) throws {
    let shape = Shape([.fixed(rows), .fixed(heads * headDim)])
    if let element = cache.element {
      self.init(element, shape)
    } else if let format = cache.format(headDim: headDim) {
      self.init(.f32, shape, encoding: .block(format))
    } else {
      throw CompileError(
        .unsupported,
        cache == .i8
          ? "an 8-bit KV cache needs heads of a multiple of 4 numbers, found \(headDim)"
          : "a 4-bit KV cache needs heads of an even number of numbers, found \(headDim)")
    }
  }
}
