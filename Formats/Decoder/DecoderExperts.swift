import Base
import IR
import Tensors

/// A feed-forward layer of which each token uses a few of many gated experts, chosen by a router (Shazeer and others,
/// 2017), and perhaps one that all tokens use (Dai and others, 2024):
/// `sum over the chosen of weight * down(activation(gate(x)) * up(x)) + shared(x)`.
struct DecoderExperts: DecoderPart {
  /// How the projections of an expert are called.
  struct Names: Hashable, Sendable {
    var gate = "gate_proj"
    var up = "up_proj"
    var down = "down_proj"
  }

  /// The name of the module; the router is `gate`, the experts are `experts.0`, `experts.1`, ... inside of it.
  var module = "mlp"
  var experts: Int
  /// Numbers per token inside of an expert.
  var width: Int
  var route: Route
  var names = Names()
  var activation = FeedForwardActivation.silu
  /// What all tokens use.
  var shared: DecoderFeedForward?
  /// Gives the logit by whose sigmoid the shared part is multiplied (Qwen2-MoE).
  var sharedGate: LinearModule?

  func emit(_ x: ValueID, _ context: inout DecoderContext, in emitter: inout ModuleEmitter) throws -> ValueID {
    let inputs = context.width
    let logits = try emitter.linear(x, LinearModule(module + ".gate"), inputs, experts)
    let routed = try emitter.builder.emitAll(route, [logits], names: ["experts", "shares"])
    emitter.at(module + ".experts")
    let hidden = try self.hidden(x, routed[0], inputs, in: &emitter)
    let down = try stack(in: &emitter) { expert, emitter in try weight(expert, names.down, [inputs, width], &emitter) }
    let y = try emitter.builder.emit(ExpertMatMul(), hidden, down, routed[0], routed[1])
    guard let shared else { return y }
    var all = try shared.emit(x, &context, in: &emitter)
    if let sharedGate {
      let gate = try emitter.linear(x, sharedGate, inputs, 1)
      all = try emitter.builder.emit(Multiply(), all, emitter.builder.emit(Sigmoid(), gate))
    }
    return try emitter.builder.emit(Add(), y, all)
  }

  /// `activation(gate(x)) * up(x)` of each chosen expert: `[T, slots, width]`.
  private func hidden(
    _ x: ValueID, _ ids: ValueID, _ inputs: Int, in emitter: inout ModuleEmitter
  ) throws -> ValueID {
    let sizes = [width, inputs]
    if let own = Activation(rawValue: activation.rawValue) {
      let pairs = try stack(in: &emitter) { expert, emitter in
        let gate = try weight(expert, names.gate, sizes, &emitter)
        return try emitter.builder.emit(Interleave(), gate, weight(expert, names.up, sizes, &emitter))
      }
      return try emitter.builder.emit(ExpertMatMul(activation: own, gated: true), x, pairs, ids)
    }
    let parts = try [names.gate, names.up].map { name in
      let weights = try stack(in: &emitter) { expert, emitter in try weight(expert, name, sizes, &emitter) }
      return try emitter.builder.emit(ExpertMatMul(), x, weights, ids)
    }
    return try emitter.builder.emit(Multiply(), emitter.activate(parts[0], activation), parts[1])
  }

  private func weight(
    _ expert: Int, _ name: String, _ sizes: [Int], _ emitter: inout ModuleEmitter
  ) throws -> ValueID {
    try emitter.weight("\(module).experts.\(expert).\(name).weight", sizes)
  }

  private func stack(
    in emitter: inout ModuleEmitter, _ entry: (Int, inout ModuleEmitter) throws -> ValueID
  ) throws -> ValueID {
    var entries: [ValueID] = []
    for expert in 0..<experts { entries.append(try entry(expert, &emitter)) }
    return try emitter.builder.emit(Stack(), entries)
  }
}
