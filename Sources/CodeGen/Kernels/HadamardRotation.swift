import IR
import Tensors

/// A rotation of rows by Hadamard matrices, as part of a kernel.
///
/// The power of two of a matrix is done by sums and differences: within a vector by exchanging lanes, between vectors eight at a
/// time. The sums of a Paley matrix are all of a column of vectors, or what is left of all without twice the smaller part of
/// them.
package struct RotationInput: Hashable, Codable, Sendable {
  package var op: Hadamard
  package var columns: Int

  /// Nil for matrices that are too large to write every sum down.
  package init?(_ op: Hadamard, columns: Int) {
    for order in Set(op.blocks) {
      guard let matrix = HadamardMatrix(order: order),
        matrix.factors.first ?? 1 <= Hadamard.largestKernelFactor
      else { return nil }
    }
    self.op = op
    self.columns = columns
  }

  /// The part of kernel names: `h768`, `h112_60_signs3`, `h64_inverse`.
  package var name: String {
    var parts = ["h" + op.blocks.map(String.init).joined(separator: "_")]
    if let seed = op.seed {
      parts.append("signs\(seed)".map { $0.isLetter || $0.isNumber ? String($0) : "_" }.joined())
    }
    if op.inverse { parts.append("inverse") }
    return parts.joined(separator: "_")
  }

  /// The blocks.
  var runs: [Hadamard.Run] { op.runs(width: columns) }

  /// Rotates one row: `values` gives the numbers from a column on, zeros behind the tail; the result goes to `row`.
  func rotate(
    _ k: KernelBuilder, _ values: (Expression, Expression?) -> Expression, into row: Pointer
  ) {
    for run in runs { rotate(k, run.count, order: run.order, at: .integer(run.start), values, into: row) }
  }

  /// Rotates so many neighbouring blocks of one order that begin at a column.
  func rotate(
    _ k: KernelBuilder, _ count: Int, order: Int, at start: Expression,
    _ values: (Expression, Expression?) -> Expression, into row: Pointer
  ) {
    guard let matrix = HadamardMatrix(order: order) else {
      preconditionFailure("a rotation has matrices of its orders")
    }
    guard op.seed == nil || count == 1 else {
      // The signs begin anew with every block.
      k.loop("block", to: .integer(count)) { block in
        let first = k.define("block_start", start + block * .integer(order))
        rotate(k, 1, order: order, at: first, values, into: row)
      }
      return
    }
    let total = order * count
    exchange(k, matrix, total, at: start, values, into: row)
    var stride = 1
    while stride < k.lanes, stride < 1 << matrix.doublings { stride *= 2 }
    while stride < 1 << matrix.doublings {
      let ways = min(8, (1 << matrix.doublings) / stride)
      addAndSubtract(k, row, ways: ways, stride: stride, total: total, at: start)
      stride *= ways
    }
    for paley in matrix.matrices.reversed() {
      multiply(k, row, by: paley, stride: stride, total: total, at: start)
      stride *= paley.order
    }
    if let seed = op.seed, op.inverse {
      k.vectorLoop("i", count: .integer(total)) { i, tail in
        let value = row.load(start + i, count: tail)
        k.store(row, start + i, flipped(k, value, at: i, seed: seed), count: tail)
      }
    }
  }

  /// The first pass: what comes in, with its signs and scaled, added to and subtracted from its neighbours within vectors.
  private func exchange(
    _ k: KernelBuilder, _ matrix: HadamardMatrix, _ total: Int, at start: Expression,
    _ values: (Expression, Expression?) -> Expression, into row: Pointer
  ) {
    let distances = (0..<matrix.doublings).map { 1 << $0 }.filter { $0 < k.lanes }
    let signs = distances.map { distance in
      let isFirst = (.laneNumbers & .broadcast(.integer(distance))).isEqual(to: .broadcast(.integer(0)))
      return k.define("sign", .choose(isFirst, .broadcast(.real(1)), .broadcast(.real(-1))))
    }
    let scale = Float(1 / Double(matrix.order).squareRoot())
    k.vectorLoop("i", count: .integer(total)) { i, tail in
      var value = k.define("v", values(start + i, tail) * .real(scale))
      if let seed = op.seed, !op.inverse { value = k.define("v", flipped(k, value, at: i, seed: seed)) }
      for (sign, distance) in zip(signs, distances) {
        value = k.define("v", .multiplyAdd(value, sign, .exchanged(value, distance: distance)))
      }
      k.store(row, start + i, value, count: tail)
    }
  }

  /// A vector of numbers from a place of a block on, with their signs (``HadamardTransform/sign(seed:place:)``).
  private func flipped(_ k: KernelBuilder, _ value: Expression, at place: Expression, seed: Int) -> Expression {
    func literal(_ number: UInt32) -> Expression { .broadcast(.integer(Int(Int32(bitPattern: number)))) }
    let places = Expression.laneNumbers + Expression.broadcast(place + 1)
    var hash = k.define("hash", places * literal(HadamardTransform.multiplier(seed: seed)))
    hash = k.define("hash", (hash ^ (hash >> 15)) * literal(0x85EB_CA77))
    hash = k.define("hash", (hash ^ (hash >> 13)) * literal(0xC2B2_AE3D))
    return .reinterpret(.reinterpret(value, .i32) ^ ((hash >> 31) << 31), .f32)
  }

  /// Sums and differences of vectors that are `stride` numbers apart, of `ways` of them at a time.
  private func addAndSubtract(
    _ k: KernelBuilder, _ row: Pointer, ways: Int, stride: Int, total: Int, at start: Expression
  ) {
    k.loop("base", to: .integer(total), step: ways * stride) { base in
      k.loop("i", to: .integer(stride), step: k.lanes) { i in
        let first = k.define("first", start + base + i)
        var vectors = (0..<ways).map { k.define("v", row.load(first + .integer($0 * stride))) }
        var distance = 1
        while distance < ways {
          for low in 0..<ways where low & distance == 0 {
            let (a, b) = (vectors[low], vectors[low + distance])
            vectors[low] = k.define("v", a + b)
            vectors[low + distance] = k.define("v", a - b)
          }
          distance *= 2
        }
        for (index, vector) in vectors.enumerated() { k.store(row, first + .integer(index * stride), vector) }
      }
    }
  }

  /// Products with a Paley matrix, or its transpose, of numbers that are `stride` apart.
  private func multiply(
    _ k: KernelBuilder, _ row: Pointer, by matrix: PaleyMatrix, stride: Int, total: Int, at start: Expression
  ) {
    let size = matrix.order
    k.loop("base", to: .integer(total), step: size * stride) { base in
      k.vectorLoop("i", count: .integer(stride)) { i, tail in
        let first = k.define("first", start + base + i)
        let vectors = (0..<size).map { k.define("v", row.load(first + .integer($0 * stride), count: tail)) }
        let all = k.define("all", Self.sum(vectors[...]))
        for line in 0..<size {
          let isPositive = (0..<size).map {
            matrix.signs[op.inverse ? $0 * size + line : line * size + $0] > 0
          }
          let some = vectors.indices.filter { isPositive[$0] }.map { vectors[$0] }
          let others = vectors.indices.filter { !isPositive[$0] }.map { vectors[$0] }
          let result: Expression
          if others.isEmpty {
            result = all
          } else if some.isEmpty {
            result = -all
          } else if others.count <= some.count {
            result = all - 2.0 * k.define("less", Self.sum(others[...]))
          } else {
            result = 2.0 * k.define("more", Self.sum(some[...])) - all
          }
          k.store(row, first + .integer(line * stride), result, count: tail)
        }
      }
    }
  }

  /// A sum by halves.
  private static func sum(_ terms: ArraySlice<Expression>) -> Expression {
    if terms.count == 1, let term = terms.first { return term }
    let middle = terms.startIndex + terms.count / 2
    return sum(terms[..<middle]) + sum(terms[middle...])
  }
}

/// Rows of f32 rotated by Hadamard matrices.
package struct HadamardConfig: Hashable, Codable, Sendable {
  package var rotation: RotationInput
  package var tokens: Extent
  /// Elements between rows of the input.
  package var inputStride: Int

  package init(_ rotation: RotationInput, tokens: Extent, inputStride: Int? = nil) {
    self.rotation = rotation
    self.tokens = tokens
    self.inputStride = inputStride ?? rotation.columns
  }

  package func name(target: Target) -> String {
    var parts = ["mcc_hadamard", "\(rotation.columns)", rotation.name]
    if inputStride != rotation.columns { parts.append("stride\(inputStride)") }
    if let fixed = tokens.fixedValue { parts.append("tokens\(fixed)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: x, y (which may be x), then the number of tokens if it is a run-time one. Threads share the tokens, or their
  /// blocks where all are equal and whole vectors.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "Rotates x[\(tokens.text), \(rotation.columns)] by Hadamard matrices of the orders "
        + "\(rotation.op.blocks.map(String.init).joined(separator: ", "))."
    ]
    let x = k.input("x", .f32)
    let y = k.output("y", .f32)
    let runs = rotation.runs
    let parts = runs.count == 1 && runs[0].order % k.lanes == 0 ? runs[0].count : 1
    let part = k.partition(k.extent(tokens) * .integer(parts))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let token = k.define("token", unit / .integer(parts))
      let base = k.define("base", token * .integer(inputStride))
      let row = k.pointer("row", y, offset: token * .integer(rotation.columns))
      let values = { (i: Expression, tail: Expression?) in x.load(base + i, count: tail) }
      guard parts > 1, let run = runs.first else { return rotation.rotate(k, values, into: row) }
      let start = k.define("start", unit % .integer(parts) * .integer(run.order))
      rotation.rotate(k, 1, order: run.order, at: start, values, into: row)
    }
    return k.finish()
  }
}

/// Rotations by Hadamard matrices.
package enum HadamardKernel: Kernel {
  package static let name = "hadamard"
  package static let summary = "rows rotated by Hadamard matrices of any width made of Paley's and Sylvester's"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Hadamard, query.isPlain(except: [0]), let x = query.operands.first,
      x.type.element == .f32, x.type.shape.normalizedAxis(op.axis) == x.type.rank - 1,
      let columns = x.type.shape.last.fixedValue, columns > 0, x.rowStride == nil || x.type.rank == 2,
      let tokens = x.type.shape.product(0..<(x.type.rank - 1)), let rotation = RotationInput(op, columns: columns)
    else { return [] }
    var extents = ExtentTable()
    let config = HadamardConfig(rotation, tokens: extents.extent(tokens, "T"), inputStride: x.rowStride)
    let size = Double(x.type.maximumCount)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 40 * size, bytes: 8 * size), target: target,
        pointers: [.input(0), .result(0)], extents: extents, layouts: query.unpacked,
        inPlace: x.rowStride == nil ? [0] : [])
    ]
  }
}
