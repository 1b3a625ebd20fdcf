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
      let range: ClosedRange<Int>
      switch term.atom {
      case .symbol(let symbol): range = symbol.range
      case .quotient(let inner, let divisor):
        guard let bounds = inner.checkedBounds else { return nil }
        range = (Dim.fixed(bounds.lowerBound) / divisor).offset...(Dim.fixed(bounds.upperBound) / divisor).offset
      }
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
