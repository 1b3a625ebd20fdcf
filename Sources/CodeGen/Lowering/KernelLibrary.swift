import Base
import IR
import Tensors

/// What a kernel is asked to compute.
package struct KernelQuery: Hashable, Sendable {
  /// An operand as the kernel would read it.
  package struct Operand: Hashable, Sendable {
    /// Shape, element type and block format; never packed, except for layouts that a kernel chose for its result.
    package var type: TensorType
    /// Whether the operand is known at compile time and may be packed.
    package var isConstant: Bool
    /// Elements from one row to the next; nil where rows follow one another. The kernel gets the address of the first
    /// column that it reads.
    package var rowStride: Int?
    /// Whether the operation is on the dequantized numbers of a block-quantized operand.
    package var dequantized: DType?

    package init(
      _ type: TensorType, isConstant: Bool = false, rowStride: Int? = nil, dequantized: DType? = nil
    ) {
      self.type = type
      self.isConstant = isConstant
      self.rowStride = rowStride
      self.dequantized = dequantized
    }

    /// The type as the operation sees it.
    package var operationType: TensorType { dequantized.map { TensorType($0, type.shape) } ?? type }
  }

  package var operation: NestedOperator
  package var operands: [Operand]

  package init(_ operation: any Operator, _ operands: [Operand]) {
    self.operation = NestedOperator(operation)
    self.operands = operands
  }
}

/// What a C parameter of a kernel stands for.
package enum CallArgument: Hashable, Sendable {
  case input(Int)
  case result(Int)
  /// A size that is known when the program runs.
  case size(Dim)
}

/// One way to compute a query.
package struct KernelChoice: Sendable {
  /// The name of the C function; equal names mean equal functions.
  package var name: String
  /// Estimated seconds of a call on one core.
  package var cost: Double
  /// The layout that each input must be packed into; nil for as it is.
  package var layouts: [PackedLayout?]
  /// The layout of the first result; nil for dense.
  package var result: PackedLayout?
  /// What the C parameters stand for, in order.
  package var arguments: [CallArgument]
  /// Inputs whose memory the first result may take over.
  package var inPlace: Set<Int>
  /// The inputs whose memory the first results are, in order, which the call changes in part.
  package var updates: [Int]
  /// Makes the function.
  package var function: @Sendable () -> KernelFunction

  package init(
    name: String, cost: Double, layouts: [PackedLayout?], result: PackedLayout? = nil, arguments: [CallArgument],
    inPlace: Set<Int> = [], updates: [Int] = [], function: @escaping @Sendable () -> KernelFunction
  ) {
    self.name = name
    self.cost = cost
    self.layouts = layouts
    self.result = result
    self.arguments = arguments
    self.inPlace = inPlace
    self.updates = updates
    self.function = function
  }
}

/// Where lowering asks for kernels.
package protocol KernelLibrary: Sendable {
  /// All ways to compute the query on this target; empty if there is none.
  func choices(for query: KernelQuery) throws -> [KernelChoice]

  /// Fills the bytes of whole panels of a layout with the rows of a constant that belong to them; the last panel may be
  /// short.
  func pack(_ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer) throws
}
