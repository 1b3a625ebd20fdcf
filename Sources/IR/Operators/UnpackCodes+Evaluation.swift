import Tensors

/// The inputs of an ``UnpackCodes`` laid open, and the loops over them.
struct Unpacking: @unchecked Sendable {
  private let op: UnpackCodes
  private let codes: UnsafeRawPointer?
  private let codeBytes: Int
  /// Rows of the codes at hand.
  private let rows: Int
  private let scales: [Float]
  private let strides: (row: Int, group: Int)
  private let zeros: TensorView?
  private let groups: UnsafeBufferPointer<Int32>?
  /// The number that a code stands for.
  private let table: [Float]

  init(_ op: UnpackCodes, _ inputs: [TensorView], _ strides: (row: Int, group: Int)) {
    self.op = op
    self.strides = strides
    codes = inputs[0].bytes.baseAddress
    codeBytes = inputs[0].bytes.count
    rows = inputs[0].sizes.first ?? 1
    // Twice the numbers of E2M1 are whole.
    let factor: Float = op.values == .e2m1 ? 0.5 : 1
    if inputs[1].type.element == .u8 {
      scales = inputs[1].bytes.map { exponent in
        exponent == 255 ? .nan : Float(sign: .plus, exponent: Int(exponent) - 127, significand: 1) * factor
      }
    } else {
      let numbers = floats(inputs[1].bytes, inputs[1].type.element)
      scales = factor == 1 ? numbers : numbers.map { $0 * factor }
    }
    var rest = inputs.dropFirst(2)
    zeros = op.zeroPoints == .none ? nil : rest.popFirst()
    groups = op.hasGroups ? rest.popFirst()?.elements(as: Int32.self) : nil
    switch op.values {
    case .integers: table = (0..<1 << op.bits).map { Float(op.layout == .planes ? min($0, 2) : $0) }
    case .e2m1: table = [0, 1, 2, 3, 4, 6, 8, 12, -0.0, -1, -2, -3, -4, -6, -8, -12]
    case .e4m3: table = (0...255).map { F8.e4m3Value($0) }
    case .table: table = rest.popFirst().map { Array($0.elements(as: Float.self)) } ?? []
    }
  }

  /// Writes some rows of the result.
  func write(_ range: Range<Int>, into target: UnsafeMutableRawBufferPointer) {
    let columns = op.columns
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: range.count * columns) { tile in
      guard let unpacked = tile.baseAddress, let output = target.baseAddress else { return }
      unpack(range, into: unpacked)
      for row in range {
        let codes = unpacked + (row - range.lowerBound) * columns
        if let format = op.format {
          writeBlocks(format, row, codes, into: output + row * format.rowBytes(columns: columns))
        } else {
          writeNumbers(row, codes, into: output.assumingMemoryBound(to: Float.self) + row * columns)
        }
      }
    }
  }

  private func scale(_ row: Int, _ group: Int) -> Float { scales[row * strides.row + group * strides.group] }

  private func writeNumbers(_ row: Int, _ codes: UnsafePointer<UInt8>, into output: UnsafeMutablePointer<Float>) {
    if let groups {
      for k in 0..<op.columns {
        let group = Int(groups[k])
        output[k] = (table[Int(codes[k])] - Float(zero(row, group))) * scale(row, group)
      }
      return
    }
    for group in 0..<op.groupCount {
      let scale = scale(row, group), zero = Float(zero(row, group))
      for k in group * op.group..<min((group + 1) * op.group, op.columns) {
        output[k] = (table[Int(codes[k])] - zero) * scale
      }
    }
  }

  private func writeBlocks(
    _ format: BlockFormat, _ row: Int, _ codes: UnsafePointer<UInt8>, into output: UnsafeMutableRawPointer
  ) {
    let length = format.groupLength(columns: op.columns), bytes = format.blockBytes(columns: op.columns)
    let middle = format.bits == 8 ? 0 : format.middleCode
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: length) { buffer in
      guard let block = buffer.baseAddress else { return }
      for index in 0..<format.blocks(columns: op.columns) {
        let start = index * length, count = min(length, op.columns - start)
        let group = start / op.group
        let zero = zero(row, group)
        if format.codes == .zeroPoint || format.codes == .float8 || format.levels != nil {
          block.update(from: codes + start, count: count)
        } else {
          // Codes count from the middle instead of from the zero point.
          let shift = middle - zero
          for k in 0..<count {
            block[k] = UInt8(truncatingIfNeeded: Int(table[Int(codes[start + k])]) + shift)
          }
        }
        let padding = format.levels.map { Int($0.zeroCode) } ?? (format.codes == .zeroPoint ? zero : middle)
        for k in count..<length { block[k] = UInt8(truncatingIfNeeded: padding) }
        format.assemble(
          scale: scale(row, group), zeroPoint: UInt8(truncatingIfNeeded: zero), codes: block, length: length,
          into: output + index * bytes)
      }
    }
  }

  // MARK: - Codes

  /// Column order of AWQ: where the code of row `n` of eight lies in a word.
  private static let awqPlaces = [0, 4, 1, 5, 2, 6, 3, 7]

  private func unpack(_ range: Range<Int>, into output: UnsafeMutablePointer<UInt8>) {
    guard let codes else { return }
    let columns = op.columns, bits = op.bits
    let mask = UInt8(truncatingIfNeeded: 1 << bits - 1)
    switch op.layout {
    case .signedBytes:
      for i in 0..<range.count * columns {
        output[i] = codes.load(fromByteOffset: range.lowerBound * columns + i, as: UInt8.self) ^ 0x80
      }
    case .rows, .highFirst:
      let rowBytes = codeBytes / max(rows, 1)
      for row in range {
        let source = (codes + row * rowBytes).assumingMemoryBound(to: UInt8.self)
        let target = output + (row - range.lowerBound) * columns
        if bits == 4 {
          let (even, odd): (UInt8, UInt8) = op.layout == .rows ? (0, 4) : (4, 0)
          for k in 0..<columns { target[k] = (source[k &>> 1] &>> (k & 1 == 0 ? even : odd)) & 15 }
          continue
        }
        for k in 0..<columns {
          let first = k * bits / 8, shift = k * bits % 8
          let place = op.layout == .rows ? shift : 8 - bits - shift
          var window = UInt16(source[first])
          if shift + bits > 8 { window |= UInt16(source[first + 1]) << 8 }
          target[k] = UInt8(truncatingIfNeeded: window >> UInt16(place)) & mask
        }
      }
    case .columns:
      // A code of three bits may lie in two words.
      for k in 0..<columns {
        let first = k * bits / 32, shift = k * bits % 32
        for row in range {
          var word = UInt64(load(first * op.rows + row))
          if shift + bits > 32 { word |= UInt64(load((first + 1) * op.rows + row)) << 32 }
          output[(row - range.lowerBound) * columns + k] = UInt8(truncatingIfNeeded: word >> UInt64(shift)) & mask
        }
      }
    case .awq:
      let words = op.rows / 8
      for k in 0..<columns {
        for row in range {
          let word = load(k * words + row / 8)
          output[(row - range.lowerBound) * columns + k] =
            UInt8(truncatingIfNeeded: word >> UInt32(4 * Self.awqPlaces[row % 8])) & 15
        }
      }
    case .planes:
      let stored = op.rows / 4
      for row in range {
        let source = (codes + row % stored * columns).assumingMemoryBound(to: UInt8.self)
        let target = output + (row - range.lowerBound) * columns
        for k in 0..<columns { target[k] = (source[k] &>> UInt8(2 * (row / stored))) & 3 }
      }
    }
  }

  private func load(_ word: Int) -> UInt32 {
    codes.map { $0.loadUnaligned(fromByteOffset: 4 * word, as: UInt32.self) } ?? 0
  }

  private func zero(_ row: Int, _ group: Int) -> Int {
    guard let zeros, let bytes = zeros.bytes.baseAddress else { return op.zero }
    func word(_ index: Int) -> Int { Int(bytes.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)) }
    let mask = 1 << op.bits - 1
    switch op.zeroPoints {
    case .none: return op.zero
    case .numbers: return Int(bytes.load(fromByteOffset: row * op.groupCount + group, as: Int8.self)) + op.zero
    case .awq: return word(group * (op.rows / 8) + row / 8) >> (4 * Self.awqPlaces[row % 8]) & 15 + op.zero
    case .groups:
      let words = op.rows * op.bits / 32, first = row * op.bits / 32, shift = row * op.bits % 32
      var value = word(group * words + first)
      if shift + op.bits > 32 { value |= word(group * words + first + 1) << 32 }
      return (value >> shift) & mask + op.zero
    case .rows:
      let first = row * op.bits / 32, shift = row * op.bits % 32
      var value = word(first * op.groupCount + group)
      if shift + op.bits > 32 { value |= word((first + 1) * op.groupCount + group) << 32 }
      return (value >> shift) & mask + op.zero
    }
  }
}
