import Base

/// Bytes of a tensor with its type; all sizes are numbers. The view of a ``Tensor`` keeps it alive; other bytes are kept
/// by whoever made the view.
package struct TensorView: @unchecked Sendable {
  package let type: TensorType
  package let sizes: [Int]
  package let bytes: UnsafeRawBufferPointer
  private let owner: Tensor?

  /// A view of `bytes`, which must hold at least the bytes of the type, and which `owner` keeps if there is one.
  package init(_ type: TensorType, _ bytes: UnsafeRawBufferPointer, owner: Tensor? = nil) {
    guard let sizes = type.shape.fixedSizes else { preconditionFailure("a view has known sizes: \(type)") }
    let need = TensorType.byteCount(sizes: sizes, element: type.element, encoding: type.encoding)
    precondition(bytes.count >= need, "\(bytes.count) bytes for \(type), which needs \(need)")
    self.type = type
    self.sizes = sizes
    self.bytes = UnsafeRawBufferPointer(rebasing: bytes[..<need])
    self.owner = owner
  }

  /// The number of elements.
  package var count: Int { sizes.reduce(1, *) }

  /// The elements as a typed buffer; the caller names the type that matches the element type.
  ///
  /// The buffer does not keep the tensor: bind the tensor to a name of its own while the buffer is read, or take
  /// ``Tensor/array(of:)``.
  package func elements<T>(as type: T.Type) -> UnsafeBufferPointer<T> {
    precondition(self.type.isDense && MemoryLayout<T>.stride == self.type.element.byteCount)
    return bytes.bindMemory(to: T.self)
  }

  /// The same bytes seen with another dense shape of equal size.
  package func reshaped(_ sizes: [Int]) -> TensorView {
    TensorView(type.with(shape: Shape(sizes)), bytes, owner: owner)
  }
}

/// Writable bytes of a tensor with its type; all sizes are numbers. The view of a ``Tensor`` keeps it alive.
package struct MutableTensorView: @unchecked Sendable {
  package let type: TensorType
  package let sizes: [Int]
  package let bytes: UnsafeMutableRawBufferPointer
  private let owner: Tensor?

  /// A view of `bytes`, which must hold at least the bytes of the type, and which `owner` keeps if there is one.
  package init(_ type: TensorType, _ bytes: UnsafeMutableRawBufferPointer, owner: Tensor? = nil) {
    guard let sizes = type.shape.fixedSizes else { preconditionFailure("a view has known sizes: \(type)") }
    let need = TensorType.byteCount(sizes: sizes, element: type.element, encoding: type.encoding)
    precondition(bytes.count >= need, "\(bytes.count) bytes for \(type), which needs \(need)")
    self.type = type
    self.sizes = sizes
    self.bytes = UnsafeMutableRawBufferPointer(rebasing: bytes[..<need])
    self.owner = owner
  }

  /// The number of elements.
  package var count: Int { sizes.reduce(1, *) }

  /// The elements as a typed buffer; the caller names the type that matches the element type.
  package func elements<T>(as type: T.Type) -> UnsafeMutableBufferPointer<T> {
    precondition(self.type.isDense && MemoryLayout<T>.stride == self.type.element.byteCount)
    return bytes.bindMemory(to: T.self)
  }

  /// The same bytes, read-only.
  package var readOnly: TensorView { TensorView(type, UnsafeRawBufferPointer(bytes), owner: owner) }
}

/// A tensor that owns its bytes: 64-byte aligned, zero at first, freed with the last reference.
package final class Tensor: @unchecked Sendable {
  package let type: TensorType
  private let storage: UnsafeMutableRawBufferPointer

  /// A tensor of zeros; all sizes of `type` are numbers.
  package init(_ type: TensorType) {
    let count = type.byteCount ?? 0
    precondition(type.shape.isFixed, "a tensor has known sizes: \(type)")
    self.type = type
    storage = .allocate(byteCount: max(count, 64), alignment: 64)
    storage.initializeMemory(as: UInt8.self, repeating: 0)
  }

  /// A tensor with a copy of `values`, dense; `Value` must be the Swift type of the element type.
  package convenience init<Value>(_ element: DType, _ sizes: [Int], _ values: [Value]) {
    self.init(TensorType(element, sizes))
    precondition(values.count == sizes.reduce(1, *) && MemoryLayout<Value>.stride == element.byteCount)
    values.withUnsafeBytes { mutableView.bytes.copyMemory(from: $0) }
  }

  deinit { storage.deallocate() }

  /// The bytes, to read.
  package var view: TensorView { TensorView(type, UnsafeRawBufferPointer(storage), owner: self) }

  /// The bytes, to write; the caller sees to it that nobody reads meanwhile.
  package var mutableView: MutableTensorView { MutableTensorView(type, storage, owner: self) }

  /// A copy of the elements as an array.
  package func array<Value>(of type: Value.Type) -> [Value] {
    withExtendedLifetime(self) { Array(view.elements(as: type)) }
  }
}
