import Base

/// The sizes of a tensor, outermost first; rank 0 is a single number.
package struct Shape: Hashable, Sendable, ExpressibleByArrayLiteral {
  package var dims: [Dim]

  package init(_ dims: [Dim]) { self.dims = dims }
  package init(_ sizes: [Int]) { self.dims = sizes.map { .fixed($0) } }
  package init(arrayLiteral elements: Dim...) { self.dims = elements }

  /// The number of axes.
  package var rank: Int { dims.count }

  package subscript(axis: Int) -> Dim {
    get { dims[axis] }
    set { dims[axis] = newValue }
  }

  /// The innermost size; 1 for rank 0.
  package var last: Dim { dims.last ?? 1 }

  /// All sizes as numbers, if all are known.
  package var fixedSizes: [Int]? {
    var sizes: [Int] = []
    sizes.reserveCapacity(dims.count)
    for dim in dims {
      guard let value = dim.fixedValue else { return nil }
      sizes.append(value)
    }
    return sizes
  }

  /// Whether all sizes are known.
  package var isFixed: Bool { dims.allSatisfy(\.isFixed) }

  /// The largest sizes over the ranges of the symbols.
  package var maximumSizes: [Int] { dims.map(\.maximum) }

  /// The axis counted from the front, for an axis in `-rank ..< rank`; nil outside.
  package func normalizedAxis(_ axis: Int) -> Int? {
    let index = axis < 0 ? axis + rank : axis
    return index >= 0 && index < rank ? index : nil
  }

  /// The shape with symbols replaced.
  package func substituting(_ replacement: (Symbol) -> Dim?) -> Shape {
    Shape(dims.map { $0.substituting(replacement) })
  }

  /// The shape two operands broadcast to (the rules of NumPy); nil if they do not fit.
  package static func broadcast(_ left: Shape, _ right: Shape) -> Shape? {
    let rank = max(left.rank, right.rank)
    var dims: [Dim] = []
    for axis in 0..<rank {
      let leftAxis = axis - (rank - left.rank)
      let rightAxis = axis - (rank - right.rank)
      let a: Dim = leftAxis < 0 ? 1 : left[leftAxis]
      let b: Dim = rightAxis < 0 ? 1 : right[rightAxis]
      if a == b || b == 1 {
        dims.append(a)
      } else if a == 1 {
        dims.append(b)
      } else {
        return nil
      }
    }
    return Shape(dims)
  }

  /// The product of sizes read from a file, or an error if one is negative or the product leaves 62 bits.
  package static func checkedCount(_ sizes: [Int], of what: @autoclosure () -> String) throws -> Int {
    var count = 1
    for size in sizes {
      let (product, overflow) = count.multipliedReportingOverflow(by: size)
      guard size >= 0, !overflow, product <= 1 << 62 else {
        throw CompileError(.input, "the shape \(sizes) of \(what()) is out of range")
      }
      count = product
    }
    return count
  }
}

extension Shape: CustomStringConvertible {
  package var description: String { "[" + dims.map(\.description).joined(separator: ", ") + "]" }
}
