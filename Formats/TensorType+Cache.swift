import Base
import Tensors

extension TensorType {
  /// The type of a cache of keys or values in a spelling of ``LoadOptions/cacheType``: f32, f16, or i8, which stands for
  /// codes with a scale per token and head.
  init(_ cache: DType, rows: Int, heads: Int, headDim: Int) throws {
    let shape = Shape([.fixed(rows), .fixed(heads * headDim)])
    switch cache {
    case .f32, .f16: self.init(cache, shape)
    case .i8:
      guard headDim % 4 == 0 else {
        throw CompileError(.unsupported, "an 8-bit KV cache needs heads of a multiple of 4 numbers, found \(headDim)")
      }
      self.init(.f32, shape, encoding: .block(.cache8(headDim)))
    default:
      throw CompileError(.usage, "a KV cache of type \(cache.rawValue), expected f32, f16 or i8")
    }
  }
}
