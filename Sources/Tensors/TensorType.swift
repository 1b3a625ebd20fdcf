import Base

/// What a value is: sizes, the type of its numbers, and how they are stored.
package struct TensorType: Hashable, Sendable {
  package var shape: Shape
  package var element: DType
  package var encoding: Encoding

  package init(_ element: DType, _ shape: Shape, encoding: Encoding = .dense) {
    self.shape = shape
    self.element = element
    self.encoding = encoding
  }

  package init(_ element: DType, _ sizes: [Int], encoding: Encoding = .dense) {
    self.init(element, Shape(sizes), encoding: encoding)
  }

  /// The number of axes.
  package var rank: Int { shape.rank }

  /// Whether numbers lie one after the other in the element type.
  package var isDense: Bool { encoding == .dense }

  /// The number of elements, with symbols at their largest.
  package var maximumCount: Int { shape.maximumSizes.reduce(1, *) }

  /// Bytes needed, with symbols at their largest.
  package var maximumByteCount: Int { Self.byteCount(sizes: shape.maximumSizes, element: element, encoding: encoding) }

  /// Bytes of the tensor, if all sizes are known.
  package var byteCount: Int? {
    shape.fixedSizes.map { Self.byteCount(sizes: $0, element: element, encoding: encoding) }
  }

  /// Bytes of one row: everything but the first axis for dense tensors, the last axis for block formats.
  package static func byteCount(sizes: [Int], element: DType, encoding: Encoding) -> Int {
    let count = sizes.reduce(1, *)
    switch encoding {
    case .dense: return count * element.byteCount
    case .block(let format):
      let columns = sizes.last ?? 1
      return columns == 0 ? 0 : count / columns * format.rowBytes(columns: columns)
    case .packed(let layout): return layout.byteCount(rows: sizes.first ?? 1)
    }
  }

  /// Bytes of a tensor whose sizes come from a file, or an error if they are out of range.
  package static func checkedByteCount(
    sizes: [Int], element: DType, encoding: Encoding = .dense, of what: @autoclosure () -> String
  ) throws -> Int {
    let count = try Shape.checkedCount(sizes, of: what())
    // No encoding spends more than 12 bytes on a number: a bound that keeps the arithmetic below in range.
    guard count <= 1 << 58 else { throw CompileError(.input, "the shape \(sizes) of \(what()) is out of range") }
    return byteCount(sizes: sizes, element: element, encoding: encoding)
  }

  /// The type with symbols replaced.
  package func substituting(_ replacement: (Symbol) -> Dim?) -> TensorType {
    TensorType(element, shape.substituting(replacement), encoding: encoding)
  }

  /// The same shape and encoding with another element type.
  package func with(element: DType) -> TensorType { TensorType(element, shape, encoding: encoding) }

  /// The same element type and encoding with another shape.
  package func with(shape: Shape) -> TensorType { TensorType(element, shape, encoding: encoding) }
}

extension TensorType: CustomStringConvertible {
  /// `f32[1, 64]`, `f32[64, 64] block<q4f16g32>`, `f32[64, 64] packed<name, rows, bytes, ...>`.
  package var description: String {
    let dense = "\(element.rawValue)\(shape)"
    switch encoding {
    case .dense: return dense
    case .block(let format): return dense + " block<\(format.name)>"
    case .packed(let layout):
      let numbers = [layout.rows, layout.panelBytes] + layout.parameters
      return dense + " packed<\(layout.name), \(numbers.map(String.init).joined(separator: ", "))>"
    }
  }
}
