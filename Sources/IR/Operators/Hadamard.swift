import Base
import Tensors

/// Rotates blocks of numbers along an axis by Hadamard matrices: `H D x / sqrt(n)` for each block of `n` numbers, or
/// `inverse`, `D H^T x / sqrt(n)`, which undoes it. `H` is ``HadamardMatrix`` of order `n`, `D` the identity, or with a `seed`
/// a diagonal of signs (``HadamardTransform``), the same for all blocks of one order.
///
/// `blocks` has the orders of the matrices from the start of the axis on; the last one stands for all that follow. The result
/// has the type of the input. (Ashkboos and others, "QuaRot", 2024.)
package struct Hadamard: RowMapped {
  package static let name = "hadamard"

  package var axis: Int = -1
  package var blocks: [Int] = [1]
  package var seed: Int?
  package var inverse: Bool = false

  package init() {}

  package init(axis: Int = -1, blocks: [Int], seed: Int? = nil, inverse: Bool = false) {
    self.axis = axis
    self.blocks = blocks
    self.seed = seed
    self.inverse = inverse
  }

  /// The largest order of a Paley matrix in a rotation that a kernel computes.
  package static let largestKernelFactor = 64

  /// The most different blocks.
  package static let blockLimit = 64

  /// What undoes it.
  package var inverted: Hadamard { Hadamard(axis: axis, blocks: blocks, seed: seed, inverse: !inverse) }

  /// The same along another axis.
  package func along(_ axis: Int) -> Hadamard { Hadamard(axis: axis, blocks: blocks, seed: seed, inverse: inverse) }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectFloat(inputs[0], "input")
    let axis = try axisIndex(axis, of: inputs[0].shape)
    let width = try expectFixed(inputs[0].shape[axis], "columns")
    guard (1...Self.blockLimit).contains(blocks.count), let last = blocks.last else {
      throw failure("found \(blocks.count) blocks, expected 1 to \(Self.blockLimit)")
    }
    for order in Set(blocks).sorted() where HadamardMatrix(order: order) == nil {
      throw failure("there is no Hadamard matrix of order \(order) among products of Paley's and Sylvester's")
    }
    let rest = width - blocks.dropLast().reduce(0, +)
    guard rest >= 0, rest % last == 0 else {
      throw failure("blocks of \(blocks) do not divide \(width) numbers")
    }
    return inputs
  }

  /// Neighbouring blocks of one order: where they begin, and how many there are.
  package struct Run: Hashable, Sendable {
    package var start: Int
    package var order: Int
    package var count: Int
  }

  /// The blocks of an axis of that size.
  package func runs(width: Int) -> [Run] {
    var runs: [Run] = []
    var start = 0
    for (index, order) in blocks.enumerated() {
      let count = index == blocks.count - 1 ? (width - start) / order : 1
      if count > 0 { runs.append(Run(start: start, order: order, count: count)) }
      start += order * count
    }
    return runs
  }

  /// Along the rows themselves whole blocks of rows are needed.
  package func rowGranularity(_ inputs: [TensorType]) -> Int {
    inputs[0].shape.normalizedAxis(axis) == 0 && blocks.count == 1 ? blocks[0] : 1
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard inputs[0].shape.normalizedAxis(axis) == 0 else { return [rows] }
    guard blocks.count == 1, rows.lowerBound % blocks[0] == 0, rows.upperBound % blocks[0] == 0 else { return nil }
    return [rows]
  }
}

extension Hadamard: NumericOperator {
  /// Numbers that are transformed at a time, so that they stay in a cache.
  private static let tile = 1 << 15

  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, sizes) = (inputs[0], inputs[0].sizes)
    let axis = try axisIndex(axis, of: x.view.type.shape)
    let width = sizes[axis], inner = sizes[(axis + 1)...].reduce(1, *)
    guard x.count > 0 else { return }
    let runs = runs(width: width)
    var transforms: [Int: HadamardTransform] = [:]
    for run in runs where transforms[run.order] == nil {
      transforms[run.order] = HadamardMatrix(order: run.order).map {
        HadamardTransform($0, seed: seed, isInverse: inverse)
      }
    }
    let scratchCount = transforms.values.map(\.scratchCount).max() ?? 0
    // Columns side by side, as many as fit; rows by themselves.
    let columns = min(inner, max(16, Self.tile / width))
    let tiles = (inner + columns - 1) / columns
    nonisolated(unsafe) let (source, target) = (x.data, results[0].data)
    parallelFor(x.count / width / inner * tiles, grain: max(1, Self.tile / (width * columns))) { range in
      let numbers = Scratch<R>(width * columns), scratch = Scratch<R>(scratchCount * columns)
      for unit in range {
        let first = unit / tiles * width * inner + unit % tiles * columns
        let count = min(columns, inner - unit % tiles * columns)
        for i in 0..<width { (numbers.data + i * count).update(from: source + first + i * inner, count: count) }
        for run in runs {
          guard let transform = transforms[run.order] else { continue }
          for block in 0..<run.count {
            transform.apply(
              numbers.data + (run.start + block * run.order) * count, count: count, scratch: scratch.data)
          }
        }
        for i in 0..<width { (target + first + i * inner).update(from: numbers.data + i * count, count: count) }
      }
      withExtendedLifetime((numbers, scratch)) {}
    }
  }
}
