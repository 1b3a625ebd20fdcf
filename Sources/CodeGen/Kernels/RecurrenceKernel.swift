import IR
import Tensors

/// Recurrent layers.
package enum RecurrenceKernel: Kernel {
  package static let name = "recurrence"
  package static let summary = "the steps of RNN, GRU and LSTM layers"

  /// What threads that meet after a step wait for each other, in seconds.
  private static let meeting = 5e-7

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Recurrence, query.isPlain(), let x = query.operands.first?.type,
      query.operands.indices.allSatisfy({ query.operands[$0].type.element == ($0 == op.lengthsIndex ? .i32 : .f32) }),
      let hidden = query.operands[1].type.shape[0].fixedValue
    else { return [] }
    let steps = Double(x.shape[0].maximum), batch = Double(x.shape[1].maximum)
    let weights = Double(hidden * hidden * op.cell.gates)
    return [false, true].map { sharesState in
      var extents = ExtentTable()
      let config = RecurrenceConfig(
        operation: op, times: extents.extent(x.shape[0], "T"), batch: extents.extent(x.shape[1], "B"), hidden: hidden,
        isPacked: query.operands[1].isConstant, sharesState: sharesState, target: target)
      var layouts = query.unpacked
      if config.isPacked { layouts[1] = config.layout(target: target).packed }
      // One load for each multiply-add. A single entry keeps one thread busy unless the state is shared.
      var work = KernelWork()
      work.floatOperations = steps * batch * (4 * weights + 40 * Double(hidden * op.cell.gates))
      if !sharesState, batch == 1 { work.floatOperations *= 2 }
      if sharesState { work.floatOperations += 2 * steps * meeting * target.throughput.floatOperations }
      work.bytes = 4 * (weights + steps * batch * Double(hidden * (op.cell.gates + 1)))
      return KernelChoice(
        config.build(target: target), work: work, target: target,
        pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents, layouts: layouts)
    }
  }

  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    guard let panels = RecurrenceLayout(layout) else { return false }
    try panels.pack(rows, into: bytes)
    return true
  }
}
