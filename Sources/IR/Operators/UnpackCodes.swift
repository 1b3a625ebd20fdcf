import Base
import Tensors

/// Weights that a checkpoint keeps as codes, scales and perhaps zero points in tensors of their own:
/// `result[n, k] = (value(code[n, k]) - zero[n, g]) * scale[n, g]` with `g = k / group`.
///
/// Inputs: the codes, the scales, then as far as the attributes say so zero points, the group of each column, and the
/// number that each code stands for. With a `format` the codes become blocks of it, scale by scale, and nothing is rounded
/// that the scale type of the format holds; without, the result are numbers of type f32. Scales of type u8 are exponents of
/// two plus 127 (E8M0). See ``CodeLayout`` and ``ZeroPointLayout`` for how codes lie.
package struct UnpackCodes: RowMapped {
  package static let name = "unpack_codes"

  /// Where the code of row `n` and column `k` is.
  package enum CodeLayout: String, Hashable, Codable, Sendable, CaseIterable {
    /// `[N, bytes]`: the codes of a row in turn, low bits first (compressed-tensors).
    case rows
    /// The same with the high bits of a byte first (bitsandbytes).
    case highFirst = "high_first"
    /// `i8[N, K]`: codes are the bytes plus 128.
    case signedBytes = "signed_bytes"
    /// `i32[K * bits / 32, N]`: the codes of a column of the matrix in turn, low bits first (GPTQ).
    case columns
    /// `i32[K, N / 8]`: the four-bit codes of eight rows in the order 0, 2, 4, 6, 1, 3, 5, 7 (AWQ).
    case awq
    /// `u8[N / 4, K]`: bits 2 i and 2 i + 1 of a byte belong to row `n + i * N / 4`; the code 3 is taken for 2 (BitNet).
    case planes
  }

  /// Where the zero point of row `n` and group `g` is.
  package enum ZeroPointLayout: String, Hashable, Codable, Sendable, CaseIterable {
    case none
    /// `i8[N, G]`, or a vector for one group.
    case numbers
    /// `i32[G, N * bits / 32]`: low bits first (GPTQ).
    case groups
    /// `i32[G, N / 8]` in the order of AWQ.
    case awq
    /// `i32[N * bits / 32, G]`: low bits first, down the rows (compressed-tensors).
    case rows
  }

  /// What codes stand for.
  package enum CodeValues: String, Hashable, Codable, Sendable, CaseIterable {
    /// The numbers 0, 1, 2, ...
    case integers
    /// The four-bit float E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6, then their negatives. Blocks hold them doubled, with half the
    /// scale, or as they are.
    case e2m1
    /// Floats of eight bits, E4M3.
    case e4m3
    /// What the last input says.
    case table
  }

  package var layout = CodeLayout.rows
  package var bits = 4
  /// Rows and columns of the result.
  package var rows = 1
  package var columns = 1
  /// Columns with one scale.
  package var group = 32
  package var values = CodeValues.integers
  package var zeroPoints = ZeroPointLayout.none
  /// The zero point; what is added to those that are stored.
  package var zero = 0
  /// Whether an input gives the group of each column.
  package var hasGroups = false
  package var format: BlockFormat?

  package init() {}

  /// Groups of a row.
  package var groupCount: Int { group > 0 ? (columns + group - 1) / group : 0 }

  private var inputCount: Int {
    2 + (zeroPoints == .none ? 0 : 1) + (hasGroups ? 1 : 0) + (values == .table ? 1 : 0)
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: inputCount...inputCount)
    guard rows > 0, columns > 0, group > 0, rows <= 1 << 40, columns <= 1 << 31, group <= 1 << 31 else {
      throw failure("found \(rows) rows, \(columns) columns and groups of \(group)")
    }
    guard (1...8).contains(bits), abs(zero) <= 256 else {
      throw failure("found \(bits) bits and a zero point of \(zero)")
    }
    guard values != .e2m1 || bits == 4 else { throw failure("found \(bits) bits, expected 4 for E2M1") }
    guard values != .e4m3 || bits == 8 && layout == .rows else {
      throw failure("found \(bits) bits in the layout \(layout.rawValue), expected 8 in rows for E4M3")
    }
    for (index, input) in inputs.enumerated() { try expectDense(input, "input \(index)") }
    try checkCodes(inputs[0])
    _ = try scaleStrides(inputs[1])
    guard inputs[1].element.isFloat || inputs[1].element == .u8 else {
      throw failure("found scales of type \(inputs[1])")
    }
    var next = 2
    if zeroPoints != .none {
      try checkZeroPoints(inputs[next])
      next += 1
    }
    if hasGroups {
      guard inputs[next].element == .i32, inputs[next].shape == [.fixed(columns)] else {
        throw failure("found groups of type \(inputs[next]), expected i32[\(columns)]")
      }
      next += 1
    }
    if values == .table {
      guard inputs[next].element == .f32, inputs[next].shape == [.fixed(1 << bits)] else {
        throw failure("found a table of type \(inputs[next]), expected f32[\(1 << bits)]")
      }
    }
    if let format { try check(format) }
    return [TensorType(.f32, [rows, columns], encoding: format.map { .block($0) } ?? .dense)]
  }

  private func check(_ format: BlockFormat) throws {
    let length = format.group ?? columns
    guard !hasGroups, values != .table, group % length == 0 || group >= columns && format.group == nil else {
      throw failure("these codes do not become blocks of \(format.name)")
    }
    let fits: Bool
    switch (format.codes, values) {
    case (.zeroPoint, .integers): fits = format.bits == bits
    case (.float8, .e4m3): fits = zeroPoints == .none && zero == 0
    case (.zeroPoint, _), (.float8, _), (_, .e4m3): fits = false
    case (.levels(let levels), .e2m1): fits = levels == .e2m1 && zeroPoints == .none && zero == 0
    case (.levels, _): fits = false
    // Codes count from the middle: the distance must be that of the format.
    case (_, .integers):
      let largest = layout == .planes ? 2 : 1 << bits - 1
      fits =
        format.bits >= bits && zeroPoints == .none && zero <= format.middleCode && largest - zero < format.middleCode
    default: fits = format.bits >= 5 && zeroPoints == .none && zero == 0
    }
    guard fits else { throw failure("these codes do not become blocks of \(format.name)") }
  }

  private func checkCodes(_ codes: TensorType) throws {
    let bytes = codes.shape.fixedSizes.map { TensorType.byteCount(sizes: $0, element: codes.element, encoding: .dense) }
    let rowBytes = (columns * bits + 7) / 8
    let (element, sizes): (DType, [Int])
    switch layout {
    case .rows, .highFirst:
      // Rows may be padded to whole words.
      let sizes = codes.shape.fixedSizes ?? []
      let isFloat8 = codes.element == .f8e4m3 && values == .e4m3
      guard codes.element == .u8 || codes.element == .i32 || isFloat8, sizes.count == 2, sizes[0] == rows,
        layout == .rows || 8 % bits == 0, let bytes, bytes / rows >= rowBytes
      else { throw failure("found codes of type \(codes) for \(rows) x \(columns) codes of \(bits) bits") }
      return
    case .signedBytes: (element, sizes) = (.i8, [rows, columns])
    case .columns: (element, sizes) = (.i32, [columns * bits / 32, rows])
    case .awq: (element, sizes) = (.i32, [columns, rows / 8])
    case .planes: (element, sizes) = (.u8, [rows / 4, columns])
    }
    let divides =
      switch layout {
      case .signedBytes: bits == 8
      case .columns: columns * bits % 32 == 0
      case .awq: rows % 8 == 0 && bits == 4
      default: rows % 4 == 0 && bits == 2
      }
    guard divides, codes == TensorType(element, sizes) else {
      throw failure("found codes of type \(codes) for \(rows) x \(columns) codes of \(bits) bits")
    }
  }

  private func checkZeroPoints(_ zeros: TensorType) throws {
    let groups = groupCount
    let expected: [TensorType]
    switch zeroPoints {
    case .none: return
    case .numbers: expected = [TensorType(.i8, [rows, groups])] + (groups == 1 ? [TensorType(.i8, [rows])] : [])
    case .groups: expected = rows * bits % 32 == 0 ? [TensorType(.i32, [groups, rows * bits / 32])] : []
    case .awq: expected = rows % 8 == 0 ? [TensorType(.i32, [groups, rows / 8])] : []
    case .rows: expected = [TensorType(.i32, [(rows * bits + 31) / 32, groups])]
    }
    guard expected.contains(zeros) else {
      throw failure("found zero points of type \(zeros) for \(rows) rows of \(groups) groups of \(bits) bits")
    }
  }

  /// Whether scales are written group by group.
  private var hasScalesByGroup: Bool { layout == .columns || layout == .awq }

  /// How far apart the scales of neighbouring rows and groups lie.
  private func scaleStrides(_ scales: TensorType) throws -> (row: Int, group: Int) {
    let groups = groupCount
    switch scales.shape.fixedSizes ?? [-1] {
    case [groups, rows] where hasScalesByGroup: return (1, rows)
    case [rows, groups] where !hasScalesByGroup: return (groups, 1)
    case [rows] where groups == 1, [rows, 1] where groups == 1: return (1, 0)
    case [], [1], [1, 1]: return (0, 0)
    default: throw failure("found scales of type \(scales) for \(rows) rows of \(groups) groups")
    }
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    let hasOwnRows: Bool
    switch layout {
    case .rows, .highFirst, .signedBytes: hasOwnRows = true
    default: hasOwnRows = false
    }
    guard hasOwnRows, zeroPoints == .none || zeroPoints == .numbers, self.rows > 1,
      let strides = try? scaleStrides(inputs[1])
    else { return nil }
    var result: [Range<Int>?] = [rows, strides.row == 0 ? nil : rows]
    if zeroPoints == .numbers { result.append(rows) }
    while result.count < inputs.count { result.append(nil) }
    return result
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let unpacking = Unpacking(self, inputs, try scaleStrides(inputs[1].type, rows: outputs[0].sizes[0]))
    if hasGroups {
      for group in inputs[2 + (zeroPoints == .none ? 0 : 1)].elements(as: Int32.self)
      where group < 0 || Int(group) >= groupCount {
        throw failure("found group \(group), expected 0 to \(groupCount - 1)")
      }
    }
    let output = outputs[0]
    nonisolated(unsafe) let target = output.bytes
    let tile = 16
    let count = output.sizes[0]
    parallelFor((count + tile - 1) / tile, grain: max(1, 65536 / (columns * tile))) { tiles in
      for index in tiles {
        let first = index * tile
        unpacking.write(first..<min(first + tile, count), into: target)
      }
    }
  }

  /// The strides where the scales of some rows are at hand.
  private func scaleStrides(_ scales: TensorType, rows: Int) throws -> (row: Int, group: Int) {
    var part = self
    part.rows = rows
    return try part.scaleStrides(scales)
  }
}
