import Base
import IR
import Tensors

/// A family of kernels: knows which operators it computes and how its weight layouts are filled.
package protocol Kernel {
  /// The family's name: `matmul`.
  static var name: String { get }

  /// One line for `mcc kernels`.
  static var summary: String { get }

  /// The ways to compute a query on a target; empty if the family does not.
  static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice]

  /// Fills panels of a layout of this family from rows of a constant; false if the layout is another family's.
  static func pack(_ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer) throws
    -> Bool
}

extension Kernel {
  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool { false }
}

/// Names the run-time sizes of one kernel and keeps what they stand for.
struct ExtentTable {
  private(set) var dims: [String: Dim] = [:]

  /// A number as it is, anything else as the parameter `name`.
  mutating func extent(_ dim: Dim, _ name: String) -> Extent {
    if let value = dim.fixedValue { return .fixed(value) }
    dims[name] = dim
    return .runtime(name)
  }

  /// The parameter `name`, for a number too: what a kernel is not specialised for.
  mutating func parameter(_ dim: Dim, _ name: String) -> Extent {
    dims[name] = dim
    return .runtime(name)
  }

  /// The arguments of a kernel: the given ones for its pointers in order, then its run-time sizes.
  func arguments(_ pointers: [CallArgument], of function: KernelFunction) -> [CallArgument] {
    var rest = pointers[...]
    return function.parameters.map { parameter in
      switch parameter {
      case .pointer:
        guard let next = rest.popFirst() else {
          preconditionFailure("\(function.name) has more pointers than arguments")
        }
        return next
      case .symbol(let name):
        guard let dim = dims[name] else { preconditionFailure("\(function.name) has an unknown size \(name)") }
        return .size(dim)
      }
    }
  }
}

/// What a call moves and computes, for the cost model.
struct KernelWork {
  var floatOperations = 0.0
  var byteOperations = 0.0
  var bytes = 0.0

  /// Seconds on one core: the slower of memory and arithmetic, plus what a call costs at least.
  func seconds(on target: Target) -> Double {
    let arithmetic =
      floatOperations / target.throughput.floatOperations + byteOperations / target.throughput.byteOperations
    return max(arithmetic, bytes / target.throughput.bytes) + 2e-7
  }
}

extension KernelChoice {
  /// A choice that calls a built function.
  init(
    _ function: KernelFunction, work: KernelWork, target: Target, pointers: [CallArgument], extents: ExtentTable,
    layouts: [PackedLayout?], result: PackedLayout? = nil, inPlace: Set<Int> = [], updates: [Int] = []
  ) {
    self.init(
      name: function.name, cost: work.seconds(on: target), layouts: layouts, result: result,
      arguments: extents.arguments(pointers, of: function), inPlace: inPlace, updates: updates, function: { function })
  }
}

extension KernelQuery {
  /// The types of the results.
  func resultTypes() throws -> [TensorType] { try operation.op.inferTypes(operands.map(\.operationType)) }

  /// Whether all operands lie dense and contiguous, but for those named.
  func isPlain(except strided: Set<Int> = []) -> Bool {
    operands.indices.allSatisfy { index in
      let operand = operands[index]
      return operand.type.isDense && operand.dequantized == nil && (operand.rowStride == nil || strided.contains(index))
    }
  }

  /// No layouts for any operand.
  var unpacked: [PackedLayout?] { operands.map { _ in nil } }
}

extension DType {
  /// The element type of kernels; nil where there is none.
  var scalar: ScalarType? {
    switch self {
    case .f64: .f64
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .i64: .i64
    case .i32: .i32
    case .i16: .i16
    case .i8: .i8
    case .u8, .bool: .u8
    case .f8e4m3, .f8e5m2: nil
    }
  }
}

extension Shape {
  /// The product of some sizes; nil if it is no linear expression.
  func product(_ range: Range<Int>) -> Dim? {
    dims[range].reduce(.some(.fixed(1))) { product, dim in product.flatMap { Dim.product($0, dim) } }
  }
}

/// A short stable hash that tells configs of one kernel name apart.
func shortHash(_ text: String) -> String {
  var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
  let digits = String((hash ^ (hash >> 32)) & 0xff_ffff, radix: 16)
  return String(repeating: "0", count: 6 - digits.count) + digits
}
