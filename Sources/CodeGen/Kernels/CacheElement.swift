import Tensors

/// How the numbers of one head lie in a row of keys or values: f32, f16 or bf16 numbers, or blocks of codes of 8 or 4 bits.
package struct CacheElement: Hashable, Codable, Sendable {
  /// What offsets count: numbers, or the bytes of codes.
  package var scalar: ScalarType
  /// The blocks of a head; nil for numbers.
  package var format: BlockFormat?

  package static let f32 = CacheElement(.f32)

  package init(_ scalar: ScalarType) { self.scalar = scalar }

  /// Blocks for heads of `size` numbers; nil if attention does not read them.
  package init?(_ format: BlockFormat, size: Int) {
    guard Self.isWritten(format), let group = format.group, size % group == 0 else { return nil }
    if format.bits == 8, group != size { return nil }
    scalar = format.bits == 8 ? .i8 : .u8
    self.format = format
  }

  /// Whether rows become such blocks when they are written: int8 codes with f32 scales, or 4-bit codes.
  package static func isWritten(_ format: BlockFormat) -> Bool {
    guard let group = format.group else { return false }
    switch (format.bits, format.codes) {
    case (8, .signed): return format.scale == .f32 && group % 4 == 0
    case (4, .signed): return format.scale == .f32
    case (4, .zeroPoint): return format.scale == .f16
    default: return false
    }
  }

  package var name: String { format.map { $0.bits == 8 ? "i8" : $0.name } ?? scalar.rawValue }

  /// Whether two codes share a byte.
  package var isPacked: Bool { format.map { $0.bits == 4 } ?? false }

  /// From one head to the next in a row, in units of `scalar`.
  package func headStride(_ size: Int) -> Int { format?.rowBytes(columns: size) ?? size }

  /// The same in bytes.
  package func headBytes(_ size: Int) -> Int { headStride(size) * scalar.byteCount }

  /// Groups of a head of `size` numbers, each with a scale; 1 for numbers.
  package func groups(_ size: Int) -> Int { format?.blocks(columns: size) ?? 1 }

  /// Numbers that are loaded together.
  package struct Part: Hashable {
    /// The first number in the head, and how many there are.
    var start, count: Int
    var group: Int

    /// How many are loaded, where that is not a whole vector.
    func tail(_ lanes: Int) -> Expression? { count < lanes ? .integer(count) : nil }
  }

  /// The parts of a head of `size` numbers, in order: vectors, and what is left. 4-bit codes lie in the lower halves of the
  /// bytes of a group first and then in the upper ones, and no part has both.
  package func parts(_ size: Int, lanes: Int) -> [Part] {
    let group = isPacked ? format?.group ?? size : size
    let stretch = isPacked ? group / 2 : size
    return stride(from: 0, to: size, by: stretch).flatMap { first in
      stride(from: 0, to: stretch, by: lanes).map {
        Part(start: first + $0, count: min(lanes, stretch - $0), group: first / group)
      }
    }
  }
}

/// A row of one head in a cache.
struct CacheRow {
  private let element: CacheElement
  private let numbers: Pointer
  private let start: Expression
  /// What the numbers of a group are multiplied with; nil for 1.
  let scales: [Expression?]
  /// The codes of zero.
  private let zeros: [Expression]

  /// The row at an offset in units of the element, of which some groups are read; all if nil.
  init(
    _ k: KernelBuilder, _ base: Pointer, _ element: CacheElement, at offset: Expression, size: Int,
    groups: ClosedRange<Int>? = nil
  ) {
    self.element = element
    let place = k.define("row", offset)
    guard let format = element.format else {
      (numbers, start, scales, zeros) = (base, place, [nil], [])
      return
    }
    let count = element.groups(size)
    let wanted = groups ?? 0...(count - 1)
    func block(_ group: Int) -> Expression { place + .integer(group * format.blockBytes(columns: size)) }
    scales = (0..<count).map { group in
      guard wanted.contains(group) else { return nil }
      return k.define(
        "scale", k.pointer("scales", base, offset: block(group), as: format.scale == .f16 ? .f16 : .f32)[0])
    }
    guard element.isPacked else {
      numbers = k.pointer("codes", base, offset: place + .integer(format.headerBytes))
      (start, zeros) = (0, [])
      return
    }
    (numbers, start) = (base, place)
    zeros = (0..<count).map { group in
      guard format.codes == .zeroPoint, wanted.contains(group) else { return .integer(format.middleCode) }
      return k.define("zero", .broadcast(base[block(group) + .integer(format.scale.byteCount)].asIndex))
    }
  }

  /// The scale, if all numbers have the same.
  var scale: Expression? { scales.count == 1 ? scales[0] : nil }

  /// Numbers from a column on, before they are scaled; not of packed codes.
  private func loadUnscaled(_ column: Expression, count: Expression?) -> Expression {
    let loaded = numbers.load(start + column, count: count)
    return element.format == nil ? loaded : loaded.asFloat
  }

  /// Numbers from a column on; not of packed codes, whose place follows from the column.
  func load(_ column: Expression, count: Expression?) -> Expression {
    let loaded = loadUnscaled(column, count: count)
    return scale.map { loaded * .broadcast($0) } ?? loaded
  }

  /// The numbers of a part before they are scaled.
  func loadUnscaled(_ part: CacheElement.Part, lanes: Int) -> Expression {
    let count = part.tail(lanes)
    guard element.isPacked, let format = element.format, let group = format.group else {
      return loadUnscaled(.integer(part.start), count: count)
    }
    let place = part.start - part.group * group
    let byte =
      part.group * format.blockBytes(columns: group) + format.headerBytes + place % (group / 2)
    let bytes = numbers.load(start + .integer(byte), count: count)
    let codes = place < group / 2 ? bytes & .integer(15) : bytes >> 4
    return (codes - zeros[part.group]).asFloat
  }

  /// The numbers of a part.
  func load(_ part: CacheElement.Part, lanes: Int) -> Expression {
    let loaded = loadUnscaled(part, lanes: lanes)
    return scales[part.group].map { loaded * .broadcast($0) } ?? loaded
  }
}
