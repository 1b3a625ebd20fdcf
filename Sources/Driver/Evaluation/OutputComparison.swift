/// How far rows of outputs are from those of a reference.
struct OutputComparison {
  private var rows = 0
  private var cosines = 0.0
  private var smallest = 1.0
  private var distance = 0.0
  private var magnitude = 0.0

  /// Adds the outputs of a sample and the reference's, of equal length.
  mutating func add(_ found: [Double], reference: [Double]) {
    precondition(found.count == reference.count, "outputs of different sizes")
    var product = 0.0, foundSquares = 0.0, squares = 0.0
    for (x, y) in zip(found, reference) {
      product += x * y
      foundSquares += x * x
      squares += y * y
      distance += (x - y) * (x - y)
    }
    magnitude += squares
    let length = (foundSquares * squares).squareRoot()
    let cosine = length > 0 ? product / length : foundSquares == squares ? 1 : 0
    rows += 1
    cosines += cosine
    smallest = cosine < smallest || cosine.isNaN ? cosine : smallest
  }

  var measures: [ModelEvaluation.Measure] {
    guard rows > 0 else { return [] }
    return [
      .init(kind: .cosine, value: cosines / Double(rows)), .init(kind: .smallestCosine, value: smallest),
      .init(kind: .error, value: distance == 0 ? 0 : (distance / magnitude).squareRoot()),
    ]
  }
}
