import Base
import CodeGen
import IR
import Tensors
import TestSupport
import Testing

/// Recurrent layers on every target, against the operator's `evaluate`.
@Suite struct RecurrenceTests {
  private static let sigmoid = ScalarExpression.unary(.sigmoid, .input(0))
  private static let tanh = ScalarExpression.unary(.tanh, .input(0))

  /// Sums of up to 96 products in another order, and functions with errors of a few ulp, over five steps: 1e-5.
  func cases() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    func random(_ sizes: [Int], _ seed: UInt64, most: Float = 1) -> Tensor {
      Tensor.random(sizes, seed: seed, in: -most...most)
    }
    for (hidden, variants) in [(1, 0..<2), (5, 1..<2), (16, 2..<3), (19, 2..<4), (40, 0..<4), (96, 2..<3)] {
      for cell in Recurrence.Cell.allCases {
        for variant in variants {
          var op = Recurrence(
            cell, backward: variant % 2 == 1,
            activations: Array(
              [cell == .rnn ? Self.tanh : Self.sigmoid, Self.tanh, Self.tanh].prefix(cell.activations)))
          op.resetsLater = cell == .gru && variant >= 2
          op.peepholes = cell == .lstm && variant >= 2
          op.couplesGates = cell == .lstm && variant == 3
          op.lengths = variant >= 1
          let batch = variant == 0 ? 1 : 3, seed = UInt64(hidden * 100 + variant)
          let width = cell.gates * hidden
          var inputs = [
            random([5, batch, width], seed),
            // Weights of layers are of this size, which keeps the steps from making differences larger.
            random([hidden, width], seed + 1, most: 1 / Float(hidden).squareRoot()),
            random([batch, hidden], seed + 2),
          ]
          if cell == .lstm { inputs.append(random([batch, hidden], seed + 3)) }
          if op.resetsLater { inputs.append(random([hidden], seed + 4)) }
          if op.peepholes { inputs.append(random([3 * hidden], seed + 5)) }
          if op.lengths { inputs.append(Tensor(.i32, [batch], Array([3, 5, 0].prefix(batch)) as [Int32])) }
          let label = "\(cell) \(hidden) variant \(variant)"
          // Weights that are not known to the compiler are read as they are.
          cases.append(KernelCase(label, op, inputs, constants: variant == 3 ? [] : [1], tolerance: 1e-5))
          guard variant == 2 else { continue }
          let symbol = Symbol("T", in: 1...9)
          var types = inputs.map(\.type)
          types[0].shape[0] = .symbol(symbol)
          cases.append(
            KernelCase("\(label), T", op, inputs, types: types, constants: [1], symbols: ["T": 5], tolerance: 1e-5))
        }
      }
    }
    return cases
  }

  /// Whole numbers and places are exact; sums of at most 33 numbers in f32 come in the same order.
  private func lines() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    var generator = SplitMix64(seed: 3)
    for (sizes, axis) in [([1, 1, 1], 1), ([2, 5, 3], 0), ([2, 5, 3], 1), ([3, 33], 1), ([7], 0)] {
      let count = sizes.reduce(1, *)
      let x = Tensor(.f32, sizes, generator.floats(count, in: -9...9).map { $0.rounded() })
      for (exclusive, backward) in [(false, false), (true, false), (false, true), (true, true)] {
        let op = CumulativeSum(axis: axis, exclusive: exclusive, backward: backward)
        cases.append(KernelCase("sums \(sizes) \(axis)", op, [x], tolerance: 0))
      }
      for largest in [true, false] {
        let op = TopPlaces(axis: axis, count: (sizes[axis] + 1) / 2, largest: largest)
        cases.append(KernelCase("places \(sizes) \(axis)", op, [x], tolerance: 0))
      }
    }
    let special = Tensor(.f32, [1, 6], [.nan, 1, .infinity, .nan, -.infinity, 1] as [Float])
    for largest in [true, false] {
      cases.append(
        KernelCase("places of nan", TopPlaces(axis: 1, count: 6, largest: largest), [special], tolerance: 0))
    }
    let whole = Tensor(.i64, [2, 3], [1, -5, 1 << 40, 7, 8, 9] as [Int64])
    cases.append(KernelCase("sums of whole numbers", CumulativeSum(axis: 0), [whole], tolerance: 0))
    let indices = Tensor(.i64, [3], [2, 0, 2] as [Int64])
    for reduction in ScatterRows.Reduction.allCases {
      for columns in [1, 5, 17] {
        let data = Tensor(.f32, [4, columns], generator.floats(4 * columns, in: -9...9))
        let updates = Tensor(.f32, [3, columns], generator.floats(3 * columns, in: -9...9))
        cases.append(
          KernelCase("scatter \(reduction) \(columns)", ScatterRows(reduction), [data, indices, updates], tolerance: 0))
      }
    }
    return cases
  }

  @Test(arguments: KernelTests.targets) func linesAndRows(_ name: String) throws {
    try KernelHarness.check(try lines(), on: name)
  }

  @Test(arguments: KernelTests.targets) func recurrentLayers(_ name: String) throws {
    try KernelHarness.check(try cases(), on: name)
  }
}
