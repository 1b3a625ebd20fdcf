import Base
import Tensors
import TestSupport
import Testing

/// Formulas of merges on tensors of more than one block, and regression against its own minimum.
@Suite struct TensorMergeTests {
  private func random(_ seed: UInt64, _ count: Int) -> Tensor {
    Tensor.random([count], seed: seed)
  }

  private func result(_ count: Int, _ body: (MutableTensorView) -> Void) -> [Float] {
    let output = Tensor(TensorType(.f32, [count]))
    body(output.mutableView)
    return output.array(of: Float.self)
  }

  /// The threshold is the number of that rank, whatever the size; the median here, found by sorting.
  @Test(arguments: [1, 2, 4095, 4097, 70_001]) func trimming(count: Int) {
    let (base, x) = (random(1, count), random(2, count))
    let found = result(count) {
      TensorMerge.electedTaskVectors(base: base.view, [x.view], [1], density: 0.5, scale: 1, into: $0)
    }
    let (b, v) = (base.array(of: Float.self), x.array(of: Float.self))
    let differences = zip(v, b).map { abs(Double($0) - Double($1)) }
    let threshold = differences.sorted(by: >)[(count + 1) / 2 - 1]
    let expected = (0..<count).map { differences[$0] >= threshold ? v[$0] : b[$0] }
    #expect(found == expected)
  }

  /// About the wanted share is kept, what is dropped is the base, and another seed drops others.
  @Test func dropping() {
    let count = 100_000
    let (base, x) = (random(1, count), random(2, count))
    func dare(_ seed: UInt64) -> [Float] {
      result(count) {
        TensorMerge.taskVectors(base: base.view, [x.view], [1], density: 0.25, seed: seed, into: $0)
      }
    }
    let (first, again, other) = (dare(5), dare(5), dare(6))
    #expect(first == again && first != other)
    let b = base.array(of: Float.self), v = x.array(of: Float.self)
    let kept = (0..<count).filter { first[$0] != b[$0] }
    // Four standard deviations.
    #expect(abs(Double(kept.count) / Double(count) - 0.25) < 0.006)
    #expect(kept.allSatisfy { first[$0] == Float(Double(b[$0]) + 4 * (Double(v[$0]) - Double(b[$0]))) })
  }

  /// What is no number shows.
  @Test func notANumber() {
    let base = Tensor(.f32, [3], [0, 0, 0] as [Float]), x = Tensor(.f32, [3], [.nan, 1, .infinity] as [Float])
    let found = result(3) {
      TensorMerge.electedTaskVectors(base: base.view, [x.view], [1], density: 1, scale: 1, into: $0)
    }
    #expect(found[0].isNaN && found[1] == 1 && found[2] == .infinity)
  }

  /// No small change of the merged weights lowers the sum of squares that they minimize.
  @Test func regressionIsAMinimum() throws {
    let (order, outputs, rows) = (5, 3, 40)
    var generator = SplitMix64(seed: 8)
    let x = (0..<2).map { _ in generator.floats(rows * order) }
    let w = (0..<2).map { _ in generator.floats(outputs * order).map { Double($0) } }
    var statistics = RegressionMean(order: order, count: 2)
    for layer in 0..<2 { statistics.add(Tensor(.f32, [rows, order], x[layer]).view, of: layer) }
    try statistics.factor(scale: 1)
    #expect(statistics.damping == 0 && statistics.rows == [rows, rows])
    let merged = statistics.merged(w, count: outputs)
    func loss(_ weights: [Double]) -> Double {
      var sum = 0.0
      for layer in 0..<2 {
        for row in 0..<rows {
          for output in 0..<outputs {
            let difference = (0..<order).reduce(0.0) { total, k in
              total + Double(x[layer][row * order + k]) * (weights[output * order + k] - w[layer][output * order + k])
            }
            sum += difference * difference
          }
        }
      }
      return sum
    }
    let best = loss(merged)
    for index in merged.indices {
      for step in [-1e-3, 1e-3] {
        var other = merged
        other[index] += step
        #expect(loss(other) > best)
      }
    }
  }

  /// Columns are the rows of the transposed matrix, there and back.
  @Test func columnsAsRows() {
    let (height, width) = (3, 5)
    let numbers = (0..<height * width).map { Float($0) }
    let matrix = Tensor(.f32, [height, width], numbers), copy = Tensor(TensorType(.bf16, [height, width]))
    #expect(MatrixRows.load(matrix.view, 1..<3, areColumns: true) == [1, 6, 11, 2, 7, 12])
    #expect(MatrixRows.load(matrix.view, 1..<2, areColumns: false) == [5, 6, 7, 8, 9])
    for columns in [0..<2, 2..<5] {
      let part = MatrixRows.load(matrix.view, columns, areColumns: true)
      MatrixRows.store(part, columns, of: copy.mutableView, areColumns: true)
    }
    #expect(floats(copy.view.bytes, .bf16) == numbers)
  }

  /// Inputs that are always 0, and fewer rows than columns: there the mean stands.
  @Test func regressionWithoutInputs() throws {
    let weights: [[Double]] = [[1, 2, 3, 4], [3, 6, 9, 12]]
    var nothing = RegressionMean(order: 4, count: 2)
    nothing.add(Tensor(TensorType(.f32, [3, 4])).view, of: 0)
    try nothing.factor(scale: 1)
    #expect(nothing.merged(weights, count: 1) == [2, 4, 6, 8])

    var partial = RegressionMean(order: 4, count: 2)
    partial.add(Tensor(.f32, [2, 4], [1, 0, 0, 0, 2, 0, 0, 0] as [Float]).view, of: 0)
    partial.add(Tensor(.f32, [1, 4], [0, 3, 0, 0] as [Float]).view, of: 1)
    try partial.factor(scale: 1)
    #expect(partial.damping > 0)
    let found = partial.merged(weights, count: 1)
    // The damping moves what has inputs by about its own size.
    #expect(zip(found, [1, 6, 6, 8]).allSatisfy { abs($0 - $1) < 1e-6 }, "\(found)")

    var broken = RegressionMean(order: 4, count: 1)
    broken.add(Tensor(.f32, [1, 4], [1, .nan, 0, 0] as [Float]).view, of: 0)
    #expect(throws: CompileError.self) { try broken.factor(scale: 1) }
  }
}
