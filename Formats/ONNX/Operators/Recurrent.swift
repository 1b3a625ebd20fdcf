import Base
import IR
import Tensors

extension ONNXOperators {
  /// Recurrent layers: the inputs' part of all gates is one product for all times, the steps are one operator.
  static let recurrent: [ONNXOperator] = [
    ONNXOperator("RNN") { node, importer in try RecurrentLayer(.rnn, &node).build(node, &importer) },
    ONNXOperator("GRU") { node, importer in try RecurrentLayer(.gru, &node).build(node, &importer) },
    ONNXOperator("LSTM") { node, importer in try RecurrentLayer(.lstm, &node).build(node, &importer) },
  ]
}

/// A recurrent layer of one or two directions.
private struct RecurrentLayer {
  let cell: Recurrence.Cell
  /// For each direction the operator without what depends on inputs.
  var steps: [Recurrence] = []
  var batchFirst = false

  init(_ cell: Recurrence.Cell, _ node: inout ONNXNode) throws {
    self.cell = cell
    let backward: [Bool]
    switch try node.string("direction", default: "forward") {
    case "forward": backward = [false]
    case "reverse": backward = [true]
    case "bidirectional": backward = [false, true]
    case let other: throw CompileError(.input, "'\(node.type)' has the direction '\(other)'")
    }
    batchFirst = try node.integer("layout", default: 0) != 0
    // Weights say the size.
    node.ignore("hidden_size")
    let names = try node.strings("activations") ?? []
    let count = cell.activations
    guard names.isEmpty || names.count == count * backward.count else {
      throw CompileError(.input, "'\(node.type)' has \(names.count) activations, expected \(count * backward.count)")
    }
    let alphas = try node.numbers("activation_alpha") ?? [], betas = try node.numbers("activation_beta") ?? []
    let clip = try node.has("clip") ? node.number("clip", default: 0) : nil
    var functions: [ScalarExpression] = []
    if names.isEmpty {
      functions = backward.flatMap { _ in Self.usual(cell) }
      guard alphas.isEmpty, betas.isEmpty else {
        throw CompileError(.unsupported, "unsupported '\(node.type)' with parameters of no activation")
      }
    }
    var parameters = (alphas: alphas[...], betas: betas[...])
    for name in names { functions.append(try Self.activation(name, &parameters)) }
    if let clip {
      guard clip > 0 else { throw CompileError(.input, "'\(node.type)' has the clip \(clip)") }
      let plain = functions
      functions = plain.map { $0.substituting { _ in .clamp(.input(0), -clip, clip) } }
      // The cell itself is not cut off.
      if cell == .lstm {
        for index in stride(from: 2, to: functions.count, by: 3) { functions[index] = plain[index] }
      }
    }
    let later = cell == .gru ? try node.integer("linear_before_reset", default: 0) != 0 : false
    let couples = cell == .lstm ? try node.integer("input_forget", default: 0) != 0 : false
    for (index, backward) in backward.enumerated() {
      var step = Recurrence(
        cell, backward: backward, activations: Array(functions[index * count..<(index + 1) * count]))
      step.resetsLater = later
      step.couplesGates = couples
      steps.append(step)
    }
  }

  private static func usual(_ cell: Recurrence.Cell) -> [ScalarExpression] {
    let sigmoid = ScalarExpression.unary(.sigmoid, .input(0)), tanh = ScalarExpression.unary(.tanh, .input(0))
    switch cell {
    case .rnn: return [tanh]
    case .gru: return [sigmoid, tanh]
    case .lstm: return [sigmoid, tanh, tanh]
    }
  }

  /// The function of that name, which takes what parameters it has from the front of the lists.
  private static func activation(
    _ name: String, _ parameters: inout (alphas: ArraySlice<Float>, betas: ArraySlice<Float>)
  ) throws -> ScalarExpression {
    let x = ScalarExpression.input(0)
    func alpha(_ value: Float) -> Float { parameters.alphas.popFirst() ?? value }
    func beta(_ value: Float) -> Float { parameters.betas.popFirst() ?? value }
    let isNegative = ScalarExpression.binary(.less, x, .number(0))
    switch name.lowercased() {
    case "relu": return .unary(.relu, x)
    case "tanh": return .unary(.tanh, x)
    case "sigmoid": return .unary(.sigmoid, x)
    case "softplus": return .unary(.softplus, x)
    case "softsign": return .softsign
    case "affine": return .binary(.add, .binary(.multiply, .number(alpha(1)), x), .number(beta(0)))
    case "leakyrelu": return .select(isNegative, .binary(.multiply, .number(alpha(0.01)), x), x)
    case "thresholdedrelu": return .select(.binary(.less, x, .number(alpha(1))), .number(0), x)
    case "scaledtanh":
      return .binary(.multiply, .number(alpha(1)), .unary(.tanh, .binary(.multiply, .number(beta(1)), x)))
    case "hardsigmoid": return .hardSigmoid(alpha: alpha(0.2), beta: beta(0.5))
    case "elu": return .elu(alpha: alpha(1))
    default: throw CompileError(.unsupported, "unsupported activation '\(name)' of a recurrent layer")
    }
  }

  func build(_ node: ONNXNode, _ importer: inout ONNXImporter) throws -> [ValueID] {
    var x = try node.input(0, &importer)
    if batchFirst { x = try importer.builder.emit(Transpose([1, 0, 2]), x) }
    let shape = importer.builder.type(of: x).shape
    let w = try node.inputType(1, &importer).shape
    guard shape.rank == 3, w.rank == 3, w[0] == .fixed(steps.count), let columns = w[1].fixedValue, columns > 0,
      columns % cell.gates == 0
    else {
      throw CompileError(.input, "'\(node.type)' of shape \(shape) with weights of shape \(w)")
    }
    let hidden = columns / cell.gates
    var lengths = try node.optionalInput(4, &importer)
    if let given = lengths, importer.builder.type(of: given).element != .i32 {
      lengths = try importer.builder.emit(Cast(.i32), given)
    }
    var outputs: [ValueID] = []
    for (direction, step) in steps.enumerated() {
      outputs.append(
        try self.direction(
          direction, step, node, &importer, x: x, hidden: hidden, batch: shape[1], lengths: lengths))
    }
    return try results(outputs, times: shape[0], batch: shape[1], hidden: hidden, &importer)
  }

  /// One direction: `[T + 2, B, H]`.
  private func direction(
    _ index: Int, _ step: Recurrence, _ node: ONNXNode, _ importer: inout ONNXImporter, x: ValueID, hidden: Int,
    batch: Dim, lengths: ValueID?
  ) throws -> ValueID {
    var step = step
    /// What an input holds for this direction.
    func own(_ input: Int, axis: Int = 0) throws -> ValueID? {
      guard let value = try node.optionalInput(input, &importer) else { return nil }
      var dims = importer.builder.type(of: value).shape.dims
      guard dims.indices.contains(axis), dims[axis] == .fixed(steps.count) else {
        throw CompileError(.input, "input \(input) of '\(node.type)' has the shape \(Shape(dims))")
      }
      dims.remove(at: axis)
      let part = try importer.builder.emit(Slice(axis: axis, start: .fixed(index), size: 1), value)
      return try importer.builder.emit(Reshape(dims), part)
    }
    func part(_ value: ValueID, _ range: Range<Int>) throws -> ValueID {
      try importer.builder.emit(
        Slice(axis: 0, start: .fixed(range.lowerBound), size: .fixed(range.count)), value)
    }
    guard let w = try own(1), let r = try own(2) else {
      throw CompileError(.input, "'\(node.type)' has no weights")
    }
    let width = hidden * cell.gates
    var gates = try importer.builder.emit(MatMul(transposeB: true), x, w)
    var later: ValueID?
    if let bias = try own(3) {
      guard importer.builder.type(of: bias).shape == [2 * width] else {
        throw CompileError(.input, "'\(node.type)' has biases of type \(importer.builder.type(of: bias))")
      }
      var sum = try part(bias, 0..<width)
      let recurrent = try part(bias, width..<2 * width)
      if step.resetsLater {
        // The part of the candidate is multiplied with the reset gate.
        later = try part(recurrent, 2 * hidden..<width)
        let first = try importer.builder.emit(
          Add(), part(sum, 0..<2 * hidden), part(recurrent, 0..<2 * hidden))
        sum = try importer.builder.emit(Concat(axis: 0), first, part(sum, 2 * hidden..<width))
      } else {
        sum = try importer.builder.emit(Add(), sum, recurrent)
      }
      gates = try importer.builder.emit(Add(), gates, sum)
    }
    let turned = try importer.builder.emit(Transpose([1, 0]), r)
    let element = importer.builder.type(of: x).element
    func zeros(_ shape: [Dim]) throws -> ValueID {
      let zero = importer.builder.constant(Constant(name: "zero", type: TensorType(element, []), source: .splat(0.0)))
      return try importer.builder.emit(Expand(shape), zero)
    }
    let state = [batch, .fixed(hidden)]
    let axis = batchFirst ? 1 : 0
    var operands = [gates, turned, try own(5, axis: axis) ?? zeros(state)]
    if cell == .lstm { operands.append(try own(6, axis: axis) ?? zeros(state)) }
    if step.resetsLater { operands.append(try later ?? zeros([.fixed(hidden)])) }
    if cell == .lstm, let peepholes = try own(7) {
      step.peepholes = true
      operands.append(peepholes)
    }
    if let lengths {
      step.lengths = true
      operands.append(lengths)
    }
    return try importer.builder.emit(step, operands)
  }

  /// All states, the last one, and for LSTM the last cell, of all directions.
  private func results(
    _ outputs: [ValueID], times: Dim, batch: Dim, hidden: Int, _ importer: inout ONNXImporter
  ) throws -> [ValueID] {
    let all = try outputs.map { output -> ValueID in
      let rows = try importer.builder.emit(Slice(axis: 0, start: 0, size: times), output)
      return try importer.builder.emit(Reshape([times, 1, batch, .fixed(hidden)]), rows)
    }
    var y = all.count == 1 ? all[0] : try importer.builder.emit(Concat(axis: 1), all)
    func last(_ offset: Int) throws -> ValueID {
      let parts = try outputs.map {
        try importer.builder.emit(Slice(axis: 0, start: times + .fixed(offset), size: 1), $0)
      }
      let states = parts.count == 1 ? parts[0] : try importer.builder.emit(Concat(axis: 0), parts)
      return batchFirst ? try importer.builder.emit(Transpose([1, 0, 2]), states) : states
    }
    if batchFirst { y = try importer.builder.emit(Transpose([2, 0, 1, 3]), y) }
    return [y, try last(0)] + (cell == .lstm ? [try last(1)] : [])
  }
}
