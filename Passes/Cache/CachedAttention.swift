import IR
import Tensors

/// An attention whose keys and values come from caches that nobody else reads and that may become others.
struct CachedAttention {
  /// A cache of keys or values.
  struct Cache {
    /// The rows of a call.
    var rows: ValueID
    var update: NodeID
    /// The state at the start of a call, and its number.
    var state: ValueID
    var number: Int
    /// Numbers of a head.
    var width: Int
    /// What puts the rows behind those of the last tokens, where these lie apart from the cache.
    var last: NodeID?
  }

  let node: NodeID
  let keys, values: Cache
  let position: ValueID
  /// The rows that the caches have.
  let rows: Int

  /// The attention of a function, if other caches, of more than `least` rows, can take the place of its own; with
  /// `takesCodes` also those of codes, and those beside which the last tokens lie.
  init(
    _ heads: AttentionHeads, function: Int, of model: Model, least: Int, takesCodes: Bool = false
  ) throws(AttentionHeads.Refusal) {
    typealias Refusal = AttentionHeads.Refusal
    let (graph, op) = (heads.lookup.graph, heads.op)
    let inputs = graph[heads.node].inputs
    let types = inputs.map { graph.type(of: $0) }
    guard op.causal else { throw Refusal(reason: "queries see all keys") }
    guard op.window == nil else { throw Refusal(reason: "queries see a window of the keys") }
    guard op.int8 == nil else { throw Refusal(reason: "the attention computes in bytes") }
    guard takesCodes || op.recent == nil else { throw Refusal(reason: "the last tokens lie apart from the cache") }
    guard op.angleBlock == nil else { throw Refusal(reason: "keys lie in the cache without their mean") }
    let optional = op.optionalInputs(types)
    guard optional.mask == nil else { throw Refusal(reason: "a mask or a bias is added to the scores") }
    guard types[0].rank == 2, let index = optional.position, graph.constant(of: inputs[index]) == nil else {
      throw Refusal(reason: "queries have no position")
    }
    position = inputs[index]
    node = heads.node
    var caches: [Cache] = []
    for (operand, role) in [(1, "keys"), (2, "values")] {
      guard takesCodes || types[operand].isDense else { throw Refusal(reason: "the cache of \(role) holds codes") }
      let rows = try heads.rows(of: operand)
      guard let update = rows.update, let number = rows.state, graph[update].inputs[2] == position,
        let width = heads.width(of: operand)
      else { throw Refusal(reason: "\(role) do not come from a cache at the position") }
      let state = graph.states[number].value
      for (other, graph) in model.functions.enumerated() where other != function {
        guard graph.value(named: heads.lookup.graph[state].name).map({ graph.isState($0) }) != true else {
          throw Refusal(
            reason: "the function '@\(graph.name)' keeps the state '%\(heads.lookup.graph[state].name)' too")
        }
      }
      caches.append(
        Cache(rows: rows.value, update: update, state: state, number: number, width: width, last: rows.last))
    }
    (keys, values) = (caches[0], caches[1])
    guard let rows = graph.type(of: keys.state).shape[0].fixedValue,
      graph.type(of: values.state).shape[0].fixedValue == rows
    else { throw Refusal(reason: "the caches have no common number of rows") }
    guard rows > least else {
      throw Refusal(reason: "the cache has \(rows) rows, of which \(least) stay in any case")
    }
    self.rows = rows
  }
}

extension Graph {
  fileprivate func isState(_ value: ValueID) -> Bool {
    if case .state = self[value].definition { return true }
    return false
  }
}
