import Base
import Tensors

/// A dense tensor in memory, as a .npy file holds one: row-major, little-endian.
package struct NumPyArray: Sendable, Equatable {
  package var type: DType
  package var shape: [Int]
  package var bytes: [UInt8]

  /// An array of `bytes`, which must fit the shape.
  package init(_ type: DType, _ shape: [Int], bytes: [UInt8]) {
    precondition(bytes.count == shape.reduce(1, *) * type.byteCount, "\(bytes.count) bytes for \(type) \(shape)")
    self.type = type
    self.shape = shape
    self.bytes = bytes
  }

  /// An f32 array.
  package init(_ values: [Float], _ shape: [Int]) {
    self.init(.f32, shape, bytes: values.withUnsafeBytes { Array($0) })
  }

  /// An i64 array.
  package init(_ values: [Int64], _ shape: [Int]) {
    self.init(.i64, shape, bytes: values.withUnsafeBytes { Array($0) })
  }

  /// A copy of a dense tensor.
  package init(_ view: TensorView) {
    precondition(view.type.isDense, "only dense tensors are arrays")
    self.init(view.type.element, view.sizes, bytes: Array(view.bytes))
  }

  /// The number of elements.
  package var count: Int { shape.reduce(1, *) }

  /// The elements as f32, rounded if need be.
  package var floats: [Float] { bytes.withUnsafeBytes { Tensors.floats($0, type) } }

  /// The elements as f64.
  package var doubles: [Double] { converted(to: .f64, as: Double.self) }

  /// The elements as i64; floating-point numbers are truncated.
  package var integers: [Int64] { converted(to: .i64, as: Int64.self) }

  /// A copy in another element type.
  package func converted(to type: DType) -> NumPyArray {
    var output = [UInt8](repeating: 0, count: count * type.byteCount)
    bytes.withUnsafeBytes { source in output.withUnsafeMutableBytes { convertRow(source, self.type, into: $0, type) } }
    return NumPyArray(type, shape, bytes: output)
  }

  /// A copy as a tensor.
  package var tensor: Tensor {
    let tensor = Tensor(TensorType(type, shape))
    bytes.withUnsafeBytes { tensor.mutableView.bytes.copyMemory(from: $0) }
    return tensor
  }

  private func converted<Value>(to type: DType, as: Value.Type) -> [Value] {
    [Value](unsafeUninitializedCapacity: count) { buffer, initialized in
      bytes.withUnsafeBytes { convertRow($0, self.type, into: UnsafeMutableRawBufferPointer(buffer), type) }
      initialized = count
    }
  }
}
