/// Spearman's rank correlation of two series: the correlation of the places that their numbers have in order, 1 for
/// equal order and -1 for the opposite; equal numbers share the mean of their places. 0 for fewer than two numbers or a
/// series of equal ones.
package func rankCorrelation(_ a: [Double], _ b: [Double]) -> Double {
  precondition(a.count == b.count, "series of equal length")
  func ranks(_ numbers: [Double]) -> [Double] {
    let order = numbers.indices.sorted { numbers[$0] < numbers[$1] }
    var ranks = [Double](repeating: 0, count: numbers.count)
    var first = 0
    while first < order.count {
      var end = first + 1
      while end < order.count, numbers[order[end]] == numbers[order[first]] { end += 1 }
      for place in first..<end { ranks[order[place]] = Double(first + end - 1) / 2 }
      first = end
    }
    return ranks
  }
  let (x, y) = (ranks(a), ranks(b))
  let mean = Double(a.count - 1) / 2
  var product = 0.0, left = 0.0, right = 0.0
  for (x, y) in zip(x, y) {
    product += (x - mean) * (y - mean)
    left += (x - mean) * (x - mean)
    right += (y - mean) * (y - mean)
  }
  return left > 0 && right > 0 ? product / (left * right).squareRoot() : 0
}
