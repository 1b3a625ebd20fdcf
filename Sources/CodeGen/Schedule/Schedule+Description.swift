import IR
import Tensors

extension Schedule: CustomStringConvertible {
  /// Memory and steps as text: for reading, not for parsing.
  ///
  ///     schedule: 2 functions, 12 kernels, 1050432 bytes of weights, 950848 bytes of arena
  ///     weights
  ///            0  131072  model.embed_tokens.weight: f32[512, 64] packed<...>
  ///     states
  ///     function @decode
  ///       %x: f32[1, 64] at 657984, 256 bytes, live 0...5
  ///       0: | mcc_rms_norm_64(%x, $norm, %y)
  ///
  /// A bar marks a step that waits for all threads; the rounds of a loop are shown once.
  package var description: String {
    var text = "schedule: \(functions.count) functions, \(kernels.count) kernels, \(weightsBytes) bytes of weights, "
    text += "\(arenaBytes) bytes of arena (states \(stateBytes))\n"
    func column(_ number: Int, _ width: Int) -> String {
      let digits = String(number)
      return String(repeating: " ", count: max(0, width - digits.count)) + digits
    }
    if !weights.isEmpty { text += "weights\n" }
    for weight in weights {
      text += "\(column(weight.offset, 12)) \(column(weight.byteCount, 12))  \(weight.name): \(weight.type)\n"
    }
    if !states.isEmpty { text += "states\n" }
    for state in states {
      text += "\(column(state.offset, 12)) \(column(state.type.byteCount ?? 0, 12))  \(state.name): \(state.type)\n"
    }
    for function in functions { text += describe(function) }
    return text
  }

  private func describe(_ function: Function) -> String {
    var text = "function @\(function.name) \(function.role): \(function.steps.count) steps, "
    text += "\(function.temporaryBytes) bytes of buffers\n"
    for buffer in function.buffers {
      text += "  %\(buffer.name): \(buffer.type) at \(buffer.offset), \(buffer.byteCount) bytes, \(buffer.role), "
      text += "live \(buffer.live.lowerBound)...\(buffer.live.upperBound)\n"
    }
    for (index, step) in function.steps.enumerated() {
      let loop = function.loops.first { $0.steps.contains(index) }
      if let loop {
        if index >= loop.start + loop.period { continue }
        if index == loop.start { text += "  \(loop.count) times\n" }
      }
      let arguments = step.arguments.enumerated().map { position, argument -> String in
        let mark = step.writes.contains(position) ? "=" : ""
        return mark + describe(argument, in: function)
      }
      text += "  \(loop == nil ? "" : "  ")\(index): \(step.barrier ? "| " : "")\(kernels[step.kernel].name)"
      text += "(\(arguments.joined(separator: ", ")))"
      text += (step.origin.map { "  // \($0.text)" } ?? "") + "\n"
    }
    return text
  }

  private func describe(_ argument: Argument, in function: Function) -> String {
    func moved(_ name: String, _ offset: Dim) -> String { offset == 0 ? name : "\(name)+\(offset)" }
    switch argument {
    case .weight(let weight): return "$\(weights[weight].name)"
    case .state(let state, let offset): return moved("&\(states[state].name)", offset)
    case .buffer(let buffer, let offset): return moved("%\(function.buffers[buffer].name)", offset)
    case .size(let dim): return dim.description
    }
  }
}
