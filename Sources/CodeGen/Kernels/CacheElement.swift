import Tensors

/// How the numbers of one head lie in a row of keys or values: f32, f16 or bf16 numbers, or blocks of codes of 8 to 2
/// bits.
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

  /// Whether rows become such blocks when they are written: int8 codes with f32 scales, 4-bit codes, or places
  /// in an ascending table.
  package static func isWritten(_ format: BlockFormat) -> Bool {
    guard let group = format.group else { return false }
    switch (format.bits, format.codes) {
    case (8, .signed): return format.scale == .f32 && group % 4 == 0
    case (4, .signed): return format.scale == .f32
    case (4, .zeroPoint): return format.scale == .f16
    case (_, .levels(let levels)): return format.scale == .f16 && levels.isAscending
    default: return false
    }
  }

  package var name: String { format.map { $0.bits == 8 ? "i8" : $0.name } ?? scalar.rawValue }

  /// Whether codes share bytes.
  package var isPacked: Bool { format.map { $0.bits < 8 } ?? false }

  /// The table of levels that codes are places in; nil for other codes.
  func table(_ k: KernelBuilder) -> Expression? { format?.levels.map { k.table($0) } }

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

  /// The parts of a head of `size` numbers, in order: vectors, and what is left. No part has codes from several places of the
  /// bytes of a plane, such as the lower and the upper half of those of 4 bits.
  package func parts(_ size: Int, lanes: Int) -> [Part] {
    let group = isPacked ? format?.group ?? size : size
    let stretch = format.map { isPacked ? $0.stretch(columns: group) : size } ?? size
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
  /// The table that codes are places in.
  private let table: Expression?

  /// The row at an offset in units of the element, of which some groups are read; all if nil.
  init(
    _ k: KernelBuilder, _ base: Pointer, _ element: CacheElement, at offset: Expression, size: Int,
    table: Expression? = nil, groups: ClosedRange<Int>? = nil
  ) {
    self.element = element
    self.table = table
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
    var first = part.group * format.blockBytes(columns: group) + format.headerBytes
    var codes: Expression?
    var shift = 0
    for width in format.planes {
      let bytes = group * width / 8
      let lowest = place / bytes * width
      var bits = numbers.load(start + .integer(first + place % bytes), count: count)
      if lowest > 0 { bits = bits >> lowest }
      if lowest + width < 8 { bits = bits & .integer(1 << width - 1) }
      codes = codes.map { $0 | (bits << shift) } ?? bits
      shift += width
      first += bytes
    }
    guard let codes else { preconditionFailure("codes without planes") }
    guard let table else { return (codes - zeros[part.group]).asFloat }
    // The low byte of each lane, with its sign.
    return (.lookup(table: table, codes) << 24).shiftedRightArithmetically(by: 24).asFloat
  }

  /// The numbers of a part.
  func load(_ part: CacheElement.Part, lanes: Int) -> Expression {
    let loaded = loadUnscaled(part, lanes: lanes)
    return scales[part.group].map { loaded * .broadcast($0) } ?? loaded
  }
}

extension BlockFormat {
  /// How many codes of a group follow one another in one place of the bytes of every plane.
  func stretch(columns: Int) -> Int { groupLength(columns: columns) * (planes.last ?? 8) / 8 }
}
