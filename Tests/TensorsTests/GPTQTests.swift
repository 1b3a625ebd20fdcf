import Base
import Glibc
import TestSupport
import Tensors
import Testing

/// Codes chosen for what they do to the results of a layer.
@Suite struct GPTQTests {
  /// The codes of rows, their numbers, and the report.
  private struct Outcome {
    var bytes: [UInt8]
    var numbers: [Float]
    var report: GPTQ.Report
  }

  private static func run(
    _ method: GPTQ, _ weights: [Float], _ gram: [Double], columns: Int, _ format: BlockFormat,
    correction: GPTQ.Correction? = nil
  ) throws -> Outcome {
    let rows = weights.count / columns
    var bytes = [UInt8](repeating: 0, count: rows * format.rowBytes(columns: columns))
    let metric = try method.metric(gram, columns: columns, format)
    let report = try bytes.withUnsafeMutableBytes { buffer in
      try method.quantize(
        weights, rows: rows, metric, format, correction: correction, into: try #require(buffer.baseAddress))
    }
    var numbers = [Float](repeating: 0, count: weights.count)
    bytes.withUnsafeBytes { source in
      numbers.withUnsafeMutableBufferPointer { format.dequantize(source, columns: columns, into: $0) }
    }
    return Outcome(bytes: bytes, numbers: numbers, report: report)
  }

  private static func nearest(_ weights: [Float], columns: Int, _ format: BlockFormat) -> [Float] {
    var bytes = [UInt8](repeating: 0, count: weights.count / columns * format.rowBytes(columns: columns))
    var numbers = [Float](repeating: 0, count: weights.count)
    weights.withUnsafeBufferPointer { source in
      bytes.withUnsafeMutableBytes { format.quantize(source, columns: columns, into: $0) }
    }
    bytes.withUnsafeBytes { source in
      numbers.withUnsafeMutableBufferPointer { format.dequantize(source, columns: columns, into: $0) }
    }
    return numbers
  }

  private static func gram(_ x: [Float], columns: Int) -> [Double] {
    x.withUnsafeBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return [] }
      return ProductSums.gram([SampleRows(base, rows: x.count / columns)], columns: columns)
    }
  }

  /// The error of each row, `e^T H e`, in f64.
  private static func errors(_ weights: [Float], _ found: [Float], _ gram: [Double], columns: Int) -> [Double] {
    (0..<weights.count / columns).map { row in
      let e = (0..<columns).map { Double(weights[row * columns + $0]) - Double(found[row * columns + $0]) }
      var sum = 0.0
      for i in 0..<columns { for j in 0..<columns { sum += e[i] * gram[i * columns + j] * e[j] } }
      return sum
    }
  }

  /// Inputs near a subspace of a quarter of the dimensions, with a tenth of noise.
  private static func inputs(_ rows: Int, _ columns: Int, _ random: inout SplitMix64) -> [Float] {
    let inner = max(1, columns / 4)
    let axes = random.floats(inner * columns), shares = random.floats(rows * inner)
    var x = random.floats(rows * columns, in: -0.1...0.1)
    for row in 0..<rows {
      for axis in 0..<inner {
        for column in 0..<columns {
          x[row * columns + column] += shares[row * inner + axis] * axes[axis * columns + column]
        }
      }
    }
    return x
  }

  /// Formats whose codes are not evenly spaced.
  private static let tableFormats: [BlockFormat] = [
    .levels(.nf4, 32), .levels(.twinLog3, 64), .mxfp4, .nvfp4(divisor: 500), .float8(),
  ]

  private static let formats: [BlockFormat] = [
    .w4(32), .w8(32), .w8c, BlockFormat(bits: 4, group: 32, scale: .f16, codes: .zeroPoint),
    BlockFormat(bits: 3, group: 32, scale: .f16), BlockFormat(bits: 2, group: 64, scale: .f16, codes: .zeroPoint),
    BlockFormat(bits: 2, group: 32, scale: .f16, codes: .ternary), BlockFormat(bits: 6, group: 128, scale: .f16),
  ]

  /// Without search and refinement: the codes that a NumPy program of the paper's algorithm gives
  /// (`U = cholesky(inv(H + 0.01 mean(diag(H)) I)).T`, in f64).
  @Test(arguments: [
    (
      4,
      [
        [15, 15, 13, 8, 3, 0, 2, 6, 11, 15, 15, 12], [2, 0, 2, 7, 12, 15, 15, 11, 5, 2, 0, 3],
        [3, 0, 1, 6, 11, 15, 15, 12, 6, 2, 0, 2], [4, 0, 1, 5, 10, 15, 15, 13, 7, 3, 0, 2],
      ], 0.21881703270585265, 1.7222261579338323
    ),
    (
      3,
      [
        [7, 7, 6, 4, 1, 0, 1, 3, 6, 7, 7, 7], [1, 0, 1, 3, 6, 7, 7, 5, 3, 0, 1, 1],
        [1, 0, 1, 3, 6, 7, 7, 5, 3, 0, 1, 1], [2, 0, 0, 2, 5, 7, 7, 7, 4, 1, 1, 1],
      ], 2.4819095867871033, 7.3463764895795665
    ),
  ])
  func equalsThePaper(bits: Int, codes: [[Int]], error: Double, nearest: Double) throws {
    let (rows, columns, tokens) = (4, 12, 20)
    var w: [Float] = [], x: [Float] = []
    for i in 0..<rows { for j in 0..<columns { w.append(Float(sin(Double(1 + 3 * i + 7 * j)))) } }
    for t in 0..<tokens {
      for j in 0..<columns {
        x.append(Float(cos(Double(2 * t + 5 * j)) + 0.25 * cos(0.3 * Double(t) * Double(j + 1))))
      }
    }
    var method = GPTQ()
    (method.order, method.searchesScales, method.refinements) = (.none, false, 0)
    let format = BlockFormat(bits: bits, group: 32, scale: .f16)
    let found = try Self.run(method, w, Self.gram(x, columns: columns), columns: columns, format)
    let rowBytes = format.rowBytes(columns: columns)
    for row in 0..<rows {
      var unpacked = [UInt8](repeating: 0, count: 32)
      found.bytes.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress else { return }
        format.unpackPlanes(base + row * rowBytes + format.headerBytes, 32, into: &unpacked)
      }
      #expect(unpacked.prefix(columns).map { Int($0) } == codes[row], "row \(row)")
      #expect(unpacked.dropFirst(columns).allSatisfy { Int($0) == 1 << (bits - 1) }, "the tail is not of value 0")
    }
    // Sums of products of f32 numbers; the reference is in f64, and its rounding to nearest knows the stored scale.
    #expect(abs(found.report.error / error - 1) < 1e-3)
    #expect(abs(found.report.nearestError / nearest - 1) < 0.1)
  }

  /// Inputs that do not depend on one another leave nothing to make up for: every weight gets the nearest code of its
  /// scale.
  @Test(arguments: formats) func roundsToNearestForIndependentInputs(format: BlockFormat) throws {
    let (rows, columns) = (5, 70)
    var random = SplitMix64(seed: 3)
    let w = random.floats(rows * columns)
    var gram = [Double](repeating: 0, count: columns * columns)
    for column in 0..<columns { gram[column * columns + column] = 0.1 + random.uniform() }
    for order in GPTQ.Order.allCases {
      var method = GPTQ()
      (method.order, method.refinements) = (order, 0)
      let found = try Self.run(method, w, gram, columns: columns, format)
      // What the chosen scale gives for one weight must not be beaten by the neighbouring codes.
      let bytes = format.blockBytes(columns: columns), length = format.groupLength(columns: columns)
      for row in 0..<rows {
        for column in 0..<columns {
          let block = row * format.rowBytes(columns: columns) + column / length * bytes
          let scale =
            format.scale == .f16
            ? F16.value(UInt16(found.bytes[block]) | UInt16(found.bytes[block + 1]) << 8).magnitude
            : found.bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: block, as: Float.self) }
          let (wanted, value) = (w[row * columns + column], found.numbers[row * columns + column])
          let numbers = Self.range(found.bytes, block, format, scale)
          let bounded = min(max(wanted, numbers.lowerBound), numbers.upperBound)
          #expect(abs(bounded - value) <= 0.5001 * scale + 1e-6, "\(format.name), \(order): \(wanted) -> \(value)")
        }
      }
    }
  }

  /// The least and greatest number of a block.
  private static func range(
    _ bytes: [UInt8], _ block: Int, _ format: BlockFormat, _ scale: Float
  ) -> ClosedRange<Float> {
    if format.bits == 8 { return -127 * scale...127 * scale }
    if format.codes == .ternary { return -scale...scale }
    let zero = bytes.withUnsafeBytes { $0.baseAddress.map { format.zeroPoint(at: $0 + block) } ?? 0 }
    let stored = F16.value(UInt16(bytes[block]) | UInt16(bytes[block + 1]) << 8)
    let (a, b) = (Float(0 - zero) * stored, Float(format.largestCode - zero) * stored)
    return min(a, b)...max(a, b)
  }

  /// On inputs near a subspace the error falls to less than a third of that of rounding to nearest, and no row gets
  /// worse; odd widths leave a short group at the end.
  @Test(arguments: formats + tableFormats, [(7, 70), (1, 33), (130, 64)])
  func beatsRoundingOnPlantedStructure(format: BlockFormat, size: (rows: Int, columns: Int)) throws {
    var random = SplitMix64(seed: 5)
    let w = random.floats(size.rows * size.columns)
    let gram = Self.gram(Self.inputs(200, size.columns, &random), columns: size.columns)
    let nearest = Self.errors(
      w, Self.nearest(w, columns: size.columns, format), gram, columns: size.columns)
    for order in GPTQ.Order.allCases {
      var method = GPTQ()
      method.order = order
      let found = try Self.run(method, w, gram, columns: size.columns, format)
      let errors = Self.errors(w, found.numbers, gram, columns: size.columns)
      let isFinite = found.numbers.allSatisfy { $0.isFinite }
      #expect(isFinite)
      let share = errors.reduce(0, +) / nearest.reduce(0, +)
      // One row may be lucky either way.
      #expect(share < (size.rows == 1 ? 0.6 : 0.34), "\(format.name), \(order): \(share)")
      // Up to damping and f32 sums.
      for (a, b) in zip(errors, nearest) { #expect(a <= b * 1.01) }
      // The report says what was found: sums in f32 of numbers that cancel.
      #expect(abs(found.report.error / errors.reduce(0, +) - 1) < 0.02)
      #expect(abs(found.report.nearestError / nearest.reduce(0, +) - 1) < 0.02)
    }
  }

  /// Each step helps: searching scales, and improving scales and codes afterwards.
  @Test func searchAndRefinementLowerTheError() throws {
    var random = SplitMix64(seed: 11)
    let columns = 96
    let w = random.floats(64 * columns)
    let gram = Self.gram(Self.inputs(300, columns, &random), columns: columns)
    var errors: [Double] = []
    for (search, refinements) in [(false, 0), (true, 0), (true, 1), (true, 4)] {
      var method = GPTQ()
      (method.searchesScales, method.refinements) = (search, refinements)
      errors.append(
        try Self.run(method, w, gram, columns: columns, BlockFormat(bits: 3, group: 32, scale: .f16)).report.error)
    }
    #expect(errors[1] < 0.95 * errors[0] && errors[2] < 0.98 * errors[1] && errors[3] <= errors[2], "\(errors)")
  }

  /// Adaptive rounding on planted structure: no row is worse than rounded to nearest, the error falls to less than
  /// half, and no single code could be moved to one of its neighbours for less.
  @Test(arguments: formats + tableFormats) func adaptiveRounding(format: BlockFormat) throws {
    let (rows, columns) = (21, 70)
    var random = SplitMix64(seed: 31)
    let w = random.floats(rows * columns)
    let gram = Self.gram(Self.inputs(200, columns, &random), columns: columns)
    var method = GPTQ()
    method.rounding = .adaptive
    let found = try Self.run(method, w, gram, columns: columns, format)
    let errors = Self.errors(w, found.numbers, gram, columns: columns)
    let nearest = Self.errors(w, Self.nearest(w, columns: columns, format), gram, columns: columns)
    // Up to damping and f32 sums.
    for (a, b) in zip(errors, nearest) { #expect(a <= b * 1.01) }
    let share = errors.reduce(0, +) / nearest.reduce(0, +)
    #expect(share < 0.5, "\(format.name): \(share)")
    #expect(abs(found.report.error / errors.reduce(0, +) - 1) < 0.02)
    #expect(abs(found.report.nearestError / nearest.reduce(0, +) - 1) < 0.02)
    // The damped metric is what is lowered.
    let mean = (0..<columns).reduce(0.0) { $0 + gram[$1 * columns + $1] } / Double(columns)
    let length = format.groupLength(columns: columns)
    for row in 0..<rows {
      let values = Set(found.numbers[row * columns..<row * columns + min(length, columns)]).sorted()
      for column in 0..<min(length, columns) {
        let place = row * columns + column
        guard let index = values.firstIndex(of: found.numbers[place]) else { continue }
        let e = (0..<columns).map { Double(w[row * columns + $0]) - Double(found.numbers[row * columns + $0]) }
        let own = gram[column * columns + column] + 0.01 * mean
        var slope = 0.01 * mean * e[column]
        for k in 0..<columns { slope += gram[column * columns + k] * e[k] }
        for other in [index - 1, index + 1] where values.indices.contains(other) {
          let move = Double(values[other]) - Double(values[index])
          let change = move * move * own - 2 * move * slope
          // A move is only made if it is by more than half a step, and sums are in f32.
          #expect(change > -0.02 * move * move * own, "\(format.name), \(row), \(column)")
        }
      }
    }
  }

  /// Of all codes of two rows of three weights with the chosen scales the best are found, or nearly so.
  @Test func comesCloseToTheBestOfAllCodes() throws {
    let format = BlockFormat(bits: 2, group: 32, scale: .f16)
    var best = 0
    for seed in 0..<20 {
      var random = SplitMix64(seed: UInt64(seed))
      let w = random.floats(6), gram = Self.gram(Self.inputs(12, 3, &random), columns: 3)
      var method = GPTQ()
      method.damping = 1e-4
      let found = try Self.run(method, w, gram, columns: 3, format)
      let errors = Self.errors(w, found.numbers, gram, columns: 3)
      for row in 0..<2 {
        let place = row * format.rowBytes(columns: 3)
        let scale = F16.value(UInt16(found.bytes[place]) | UInt16(found.bytes[place + 1]) << 8)
        var least = Double.infinity
        for codes in 0..<64 {
          let numbers = (0..<3).map { Float((codes >> (2 * $0)) & 3 - 2) * scale }
          least = min(least, Self.errors(Array(w[3 * row..<3 * row + 3]), numbers, gram, columns: 3)[0])
        }
        // The damped error is what is lowered.
        #expect(errors[row] >= least * 0.999)
        if errors[row] <= least * 1.001 + 1e-9 { best += 1 }
      }
    }
    #expect(best >= 28, "\(best) of 40 rows have the best codes")
  }

  /// Inputs that are always 0, fewer samples than columns, no sample at all, rows of zeros: still nearest or better.
  @Test func takesDegenerateInputs() throws {
    let columns = 40
    var random = SplitMix64(seed: 9)
    var x = Self.inputs(300, columns, &random)
    for row in 0..<300 { x[row * columns + 7] = 0 }
    let w = random.floats(4 * columns) + [Float](repeating: 0, count: columns)
    let format = BlockFormat.w4(32)
    let grams = [
      Self.gram(x, columns: columns), Self.gram(Array(x.prefix(5 * columns)), columns: columns),
      [Double](repeating: 0, count: columns * columns),
    ]
    for gram in grams {
      let found = try Self.run(GPTQ(), w, gram, columns: columns, format)
      let isFinite = found.numbers.allSatisfy { $0.isFinite }
      #expect(isFinite && found.report.error <= found.report.nearestError * 1.01 + 1e-6)
      #expect(found.numbers.suffix(columns).allSatisfy { $0 == 0 })
    }
    let dead = try Self.run(GPTQ(), w, grams[0], columns: columns, format)
    // A dead input's weights still stand for themselves.
    for row in 0..<4 { #expect(abs(dead.numbers[row * columns + 7] - w[row * columns + 7]) < 0.2) }
  }

  /// Without damping the statistics of few samples cannot be inverted: it is raised, and said.
  @Test func raisesDamping() throws {
    var random = SplitMix64(seed: 2)
    let gram = Self.gram(random.floats(3 * 20), columns: 20)
    var method = GPTQ()
    method.damping = 0
    let metric = try method.metric(gram, columns: 20, .w4(32))
    #expect(metric.damping > 0)
    method.damping = 0.01
    #expect(try method.metric(gram, columns: 20, .w4(32)).damping == 0.01)
  }

  @Test func refusesNumbersThatAreNotFinite() throws {
    var gram = [Double](repeating: 0, count: 16)
    gram[5] = .nan
    #expect(throws: CompileError.self) { _ = try GPTQ().metric(gram, columns: 4, .w4(32)) }
    gram[5] = 1
    #expect(throws: CompileError.self) {
      _ = try Self.run(GPTQ(), [1, .infinity, 0, 0], gram, columns: 4, .w4(32))
    }
  }

  /// Inputs that earlier layers have changed: aiming at the original results on the changed inputs comes closer to them
  /// than aiming at the weights.
  @Test func aimsAtOriginalResults() throws {
    let (rows, columns, tokens) = (16, 32, 400)
    var random = SplitMix64(seed: 21)
    let w = random.floats(rows * columns), x = Self.inputs(tokens, columns, &random)
    let noise = random.floats(tokens * columns, in: -0.3...0.3)
    let changed = zip(x, noise).map { $0 * 0.9 + $1 }
    let gram = Self.gram(changed, columns: columns)
    let shift = x.withUnsafeBufferPointer { a in
      changed.withUnsafeBufferPointer { b -> [Float] in
        guard let a = a.baseAddress, let b = b.baseAddress else { return [] }
        let cross = ProductSums.cross(
          [SampleRows(a, rows: tokens)], columns: columns, [SampleRows(b, rows: tokens)], columns: columns)
        return zip(cross, gram).map { Float($0 - $1) }
      }
    }
    func distance(_ q: [Float]) -> Double {
      var sum = 0.0
      for t in 0..<tokens {
        for row in 0..<rows {
          var difference = 0.0
          for k in 0..<columns {
            difference += Double(
              x[t * columns + k] * w[row * columns + k] - changed[t * columns + k] * q[row * columns + k])
          }
          sum += difference * difference
        }
      }
      return sum
    }
    let plain = try Self.run(GPTQ(), w, gram, columns: columns, .w4(32))
    let aimed = try Self.run(
      GPTQ(), w, gram, columns: columns, .w4(32), correction: GPTQ.Correction(shift: shift))
    #expect(distance(aimed.numbers) < 0.9 * distance(plain.numbers))
  }

  /// Sums over samples in panels are those of their definition, whatever the cut.
  @Test(arguments: [1, 31, 150]) func sumsOfProducts(columns: Int) throws {
    var random = SplitMix64(seed: UInt64(columns))
    let samples = [3, 1, 17].map { random.floats($0 * columns) }, others = [3, 1, 17].map { random.floats($0 * 5) }
    func rows(_ numbers: [Float], _ width: Int) throws -> SampleRows {
      let tensor = Tensor(.f32, [numbers.count / width, width], numbers)
      let address = try #require(tensor.view.elements(as: Float.self).baseAddress)
      return SampleRows(address, rows: numbers.count / width, owner: tensor)
    }
    let left = try samples.map { try rows($0, columns) }, right = try others.map { try rows($0, 5) }
    func sum(_ b: [[Float]], _ width: Int) -> [Double] {
      var result = [Double](repeating: 0, count: columns * width)
      for (a, b) in zip(samples, b) {
        for t in 0..<a.count / columns {
          for i in 0..<columns {
            for j in 0..<width { result[i * width + j] += Double(a[t * columns + i]) * Double(b[t * width + j]) }
          }
        }
      }
      return result
    }
    // At most 17 products of numbers up to 1 are added in f32.
    #expect(maxRelativeError(ProductSums.gram(left, columns: columns), sum(samples, columns)) < 2e-6)
    #expect(
      maxRelativeError(ProductSums.cross(left, columns: columns, right, columns: 5), sum(others, 5)) < 2e-6)
  }
}
