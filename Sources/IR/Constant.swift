import Base
import Tensors

/// A file that holds bytes of constants.
package struct Archive: Sendable, Hashable {
  /// The name in the text form, such as `w`.
  package var name: String
  package var file: MappedFile

  package init(name: String, file: MappedFile) {
    self.name = name
    self.file = file
  }

  package static func == (left: Archive, right: Archive) -> Bool {
    left.name == right.name && left.file.path == right.file.path
  }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(name)
    hasher.combine(file.path)
  }
}

/// Where the bytes of a constant are. Two constants are compared by source, never by content.
package enum ConstantSource: Hashable, Sendable {
  /// A range of bytes of an archive of the model.
  case archive(Int, Range<Int>)
  /// The bytes themselves; meant for at most 64 elements.
  case inline([UInt8])
  /// Every element is this number; by bit pattern of the double.
  case splat(UInt64)
  /// Normally distributed numbers with mean 0: a checkpoint for tests and benchmarks.
  case random(seed: UInt64, deviation: UInt64)

  /// Every element is `value`.
  package static func splat(_ value: Double) -> ConstantSource { .splat(value.bitPattern) }

  /// Normally distributed numbers with mean 0 and that standard deviation.
  package static func random(seed: UInt64, deviation: Double) -> ConstantSource {
    .random(seed: seed, deviation: deviation.bitPattern)
  }
}

/// A tensor known at compile time: an address, not an array.
package struct Constant: Hashable, Sendable {
  /// The name in the checkpoint.
  package var name: String
  package var type: TensorType
  package var source: ConstantSource

  /// The largest number of elements that is kept inline.
  package static let inlineLimit = 64

  package init(name: String, type: TensorType, source: ConstantSource) {
    self.name = name
    self.type = type
    self.source = source
  }

  /// A small dense constant with the given elements, which must be of the Swift type of `element`.
  package static func inline<Value>(_ name: String, _ element: DType, _ sizes: [Int], _ values: [Value]) -> Constant {
    precondition(values.count == sizes.reduce(1, *) && MemoryLayout<Value>.stride == element.byteCount)
    return Constant(
      name: name, type: TensorType(element, sizes), source: .inline(values.withUnsafeBytes { Array($0) }))
  }
}

/// The constants of a model; equal constants are stored once.
package struct ConstantTable: Hashable, Sendable {
  package private(set) var constants: [Constant] = []
  private var index: [Constant: ConstantID] = [:]

  package init() {}

  package var count: Int { constants.count }

  /// Makes room for so many constants.
  package mutating func reserveCapacity(_ capacity: Int) {
    constants.reserveCapacity(capacity)
    index.reserveCapacity(capacity)
  }

  package subscript(id: ConstantID) -> Constant { constants[Int(id.index)] }

  /// The identifier of an equal constant, added if there is none.
  package mutating func insert(_ constant: Constant) -> ConstantID {
    if let id = index[constant] { return id }
    let id = ConstantID(index: Int32(constants.count))
    constants.append(constant)
    index[constant] = id
    return id
  }

  package static func == (left: Self, right: Self) -> Bool { left.constants == right.constants }

  package func hash(into hasher: inout Hasher) { hasher.combine(constants) }
}
