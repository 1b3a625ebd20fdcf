import Tensors

extension Dim {
  /// The largest magnitude of a size in a text.
  package static let textLimit = 1 << 40

  /// The bounds of a size that comes from a text; nil if the size or a part of it leaves the range in which sizes can be
  /// computed with.
  var checkedBounds: ClosedRange<Int>? {
    var low = offset
    var high = offset
    for term in terms {
      guard let range = term.atom.checkedBounds else { return nil }
      let first = range.lowerBound.multipliedReportingOverflow(by: term.coefficient)
      let last = range.upperBound.multipliedReportingOverflow(by: term.coefficient)
      guard !first.overflow, !last.overflow else { return nil }
      let (newLow, lowOverflow) = low.addingReportingOverflow(min(first.partialValue, last.partialValue))
      let (newHigh, highOverflow) = high.addingReportingOverflow(max(first.partialValue, last.partialValue))
      guard !lowOverflow, !highOverflow else { return nil }
      (low, high) = (newLow, newHigh)
    }
    return low >= -Self.textLimit && high <= Self.textLimit ? low...high : nil
  }
}

extension Dim.Atom {
  fileprivate var checkedBounds: ClosedRange<Int>? {
    switch self {
    case .symbol(let symbol): return symbol.range
    case .quotient(let inner, let divisor):
      guard let bounds = inner.checkedBounds else { return nil }
      return (Dim.fixed(bounds.lowerBound) / divisor).offset...(Dim.fixed(bounds.upperBound) / divisor).offset
    case .product(let factors):
      var result = 1...1
      for factor in factors {
        guard let next = factor.checkedBounds else { return nil }
        var ends: [Int] = []
        for a in [result.lowerBound, result.upperBound] {
          for b in [next.lowerBound, next.upperBound] {
            let (product, overflow) = a.multipliedReportingOverflow(by: b)
            guard !overflow else { return nil }
            ends.append(product)
          }
        }
        result = (ends.min() ?? 0)...(ends.max() ?? 0)
      }
      return result
    }
  }
}
