import Base
import IR
import Tensors

/// A part of the columns of a tensor, read in place.
package struct ColumnSlice: Hashable, Codable, Sendable {
  package var start: Int
  package var count: Int

  package init(start: Int, count: Int) {
    self.start = start
    self.count = count
  }
}

/// How a kernel sees one of its operands, where that is not simply the operand's type.
package struct KernelOperand: Hashable, Codable, Sendable {
  /// The index among the inputs.
  package var index: Int = 0
  /// Element type and block format of the numbers, whatever layout they were packed into; nil for dense numbers.
  package var element: DType = .f32
  package var format: BlockFormat?
  /// The element type to which the kernel expands a quantized operand before the operation.
  package var dequantized: DType?
  /// The columns that take part; nil for all.
  package var columns: ColumnSlice?

  package init(
    index: Int, element: DType, format: BlockFormat? = nil, dequantized: DType? = nil, columns: ColumnSlice? = nil
  ) {
    self.index = index
    self.element = element
    self.format = format
    self.dequantized = dequantized
    self.columns = columns
  }
}

/// An operation that one kernel of the target computes, on operands in the layouts that the kernel demands.
///
/// The meaning is that of `operation` on the operands once they are unpacked, cut to their columns and dequantized as
/// `operands` says. Results may be in a layout of the kernel, too.
package struct KernelCall: DimensionAttributes {
  package static let name = "kernel_call"
  package static let level = OperatorLevel.target

  /// The name of the C function.
  package var kernel: String = ""
  package var operation = NestedOperator(Reshape())
  package var operands: [KernelOperand] = []
  /// The layout of the first result; nil for dense.
  package var result: PackedLayout?

  package init() {}

  package init(
    kernel: String, operation: any Operator, operands: [KernelOperand] = [], result: PackedLayout? = nil
  ) {
    self.kernel = kernel
    self.operation = NestedOperator(operation)
    self.operands = operands
    self.result = result
  }

  /// How the kernel sees input `index`.
  package func operand(_ index: Int) -> KernelOperand? { operands.first { $0.index == index } }

  /// The type that the kernel is asked for: input `index` unpacked and cut to its columns.
  package func kernelType(_ index: Int, _ type: TensorType) throws -> TensorType {
    guard let operand = operand(index) else {
      if case .packed = type.encoding {
        throw failure("input \(index) is \(type), but how it looks unpacked is not said")
      }
      return type
    }
    var result = TensorType(operand.element, type.shape, encoding: operand.format.map { .block($0) } ?? .dense)
    if let columns = operand.columns {
      guard columns.start >= 0, columns.count >= 0, let width = type.shape.dims.last?.fixedValue,
        columns.start + columns.count <= width
      else { throw failure("columns \(columns.start) to \(columns.start + columns.count) lie outside of \(type)") }
      result.shape.dims[type.rank - 1] = .fixed(columns.count)
    }
    return result
  }

  /// The type of input `index` as the operation sees it.
  package func operationType(_ index: Int, _ type: TensorType) throws -> TensorType {
    let kernel = try kernelType(index, type)
    guard let element = operand(index)?.dequantized else { return kernel }
    return TensorType(element, kernel.shape)
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    for operand in operands where !inputs.indices.contains(operand.index) {
      throw failure("describes input \(operand.index) of \(inputs.count)")
    }
    var types = try operation.op.inferTypes(
      try inputs.indices.map { try operationType($0, inputs[$0]) })
    if let result, !types.isEmpty { types[0].encoding = .packed(result) }
    return types
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> KernelCall {
    var copy = self
    if let op = operation.op as? any DimensionAttributes {
      copy.operation = NestedOperator(op.substituting(replacement))
    }
    return copy
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    var kept: [Tensor] = []
    func keep(_ tensor: Tensor) -> TensorView {
      kept.append(tensor)
      return tensor.view
    }
    var operands: [TensorView] = []
    for (index, input) in inputs.enumerated() {
      guard let form = operand(index) else {
        operands.append(input)
        continue
      }
      var view = input
      if case .packed(let layout) = input.type.encoding {
        throw CompileError(
          .unsupported, "\(kernel): the layout '\(layout.name)' of input \(index) is for generated code alone",
          notes: ["evaluate the model at the stage 'transform'"])
      }
      if let columns = form.columns {
        let slice = Slice(axis: -1, start: .fixed(columns.start), size: .fixed(columns.count))
        let part = Tensor(try slice.inferTypes([view.type])[0])
        try slice.evaluate([view], into: [part.mutableView])
        view = keep(part)
      }
      if let element = form.dequantized {
        let dense = Tensor(TensorType(element, view.type.shape))
        try Dequantize(element).evaluate([view], into: [dense.mutableView])
        view = keep(dense)
      }
      operands.append(view)
    }
    guard result == nil else {
      throw CompileError(
        .unsupported, "\(kernel): the layout of its result is for generated code alone",
        notes: ["evaluate the model at the stage 'transform'"])
    }
    try withExtendedLifetime(kept) { try operation.op.evaluate(operands, into: outputs) }
  }
}
