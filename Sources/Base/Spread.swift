extension RandomAccessCollection {
  /// At most `most` elements, evenly over the collection from the first on: element `i` is that at `i * count / n` of
  /// `n = min(most, count)`.
  package func spread(_ most: Int) -> [Element] {
    let (all, taken) = (count, Swift.min(most, count))
    return (0..<taken).map { self[index(startIndex, offsetBy: $0 * all / taken)] }
  }
}
