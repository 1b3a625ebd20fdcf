import Base
import IR
import Tensors

/// A feed-forward layer: `down(activation(up(x)))`, or gated `down(activation(gate(x)) * up(x))` (Shazeer, 2020).
struct DecoderFeedForward: DecoderPart {
  /// How a checkpoint stores what goes before the activation.
  enum Projections: Hashable, Sendable {
    case plain(up: LinearModule)
    case gated(gate: LinearModule, up: LinearModule)
    /// One weight: the rows of the gate, then those of the other projection.
    case joined(LinearModule)
  }

  /// The name for messages and origins.
  var module = "mlp"
  /// Numbers per token between the layers.
  var width: Int
  var projections: Projections
  var down: LinearModule
  var activation = FeedForwardActivation.silu

  func emit(_ x: ValueID, _ context: inout DecoderContext, in emitter: inout ModuleEmitter) throws -> ValueID {
    let inputs = context.width
    let hidden: ValueID
    switch projections {
    case .plain(let up):
      let sums = try emitter.linear(x, up, inputs, width)
      emitter.at(module)
      hidden = try emitter.activate(sums, activation)
    case .gated(let gate, let up):
      let g = try emitter.linear(x, gate, inputs, width)
      hidden = try product(g, emitter.linear(x, up, inputs, width), in: &emitter)
    case .joined(let linear):
      emitter.at(linear.module)
      let weight = try emitter.rows(linear, inputs, 2 * width)
      let bias = linear.hasBias ? try emitter.wideWeight(linear.module + ".bias", [2 * width]) : nil
      func half(_ index: Int, _ rows: ValueID) throws -> ValueID {
        try emitter.builder.emit(Slice(axis: 0, start: .fixed(index * width), size: .fixed(width)), rows)
      }
      let parts = try (0..<2).map { index in
        try emitter.product(x, half(index, weight), bias: bias.map { try half(index, $0) })
      }
      hidden = try product(parts[0], parts[1], in: &emitter)
    }
    return try emitter.linear(hidden, down, width, inputs)
  }

  private func product(_ gate: ValueID, _ up: ValueID, in emitter: inout ModuleEmitter) throws -> ValueID {
    emitter.at(module)
    return try emitter.builder.emit(Multiply(), emitter.activate(gate, activation), up)
  }
}
