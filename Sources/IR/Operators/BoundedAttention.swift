import Base
import Tensors

/// Causal attention over at most `C` keys for each key and value head, which keeps the keys that receive attention.
///
/// A cache of `C` rows holds the first `sinks` tokens, the last `recent` ones, the query's own included, and of those
/// between the ones that received most: tokens are taken in order, and one that leaves the last ones takes the place of
/// the row that received least, the first of equals, unless it received less itself. What counts is the sum of the weights
/// that the queries of the head's group gave a row, divided by the number of tokens that saw it (after Z. Zhang and others,
/// H2O, 2023, arXiv:2306.14048, who do not divide; sinks: G. Xiao and others, StreamingLLM, 2023, arXiv:2309.17453). Up to
/// `C` tokens this is ``Attention``; and tokens give the same in one call or in many.
///
/// Inputs: the states `keys[H, C, D]`, `values[H, C, Dv]` and `received[H, 2, C]`, sums of weights and behind them positions,
/// then the rows of the call `q[T, heads * D]`, `k[T, H * D]` and `v[T, H * Dv]`, keys with their rotary embedding, and
/// `position: i32[1]`, the number of tokens before, at most 2^24. Results: the states after the call and `y[T, heads * Dv]`.
/// Where a text begins (`position` 0) states may hold anything.
///
/// Row `p` of a head holds the token at position `p < sinks`; the `recent` rows behind are a ring, in which the token at
/// position `p` has the row `sinks + (p - sinks) mod recent`; then follow the others.
package struct BoundedAttention: Operator {
  package static let name = "bounded_attention"
  /// The most rows of a head.
  package static let mostRows = 1 << 16

  package var heads: Int = 1
  @Exact package var scale: Float = 1
  package var softcap: Float?
  package var sinks: Int = 4
  package var recent: Int = 32

  package init() {}

  package init(heads: Int, scale: Float, softcap: Float? = nil, sinks: Int = 4, recent: Int = 32) {
    self.heads = heads
    self.scale = scale
    self.softcap = softcap
    self.sinks = sinks
    self.recent = recent
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 7...7)
    let roles = ["kept keys", "kept values", "received attention", "queries", "keys", "values"]
    for (index, role) in roles.enumerated() {
      try expectFloat(inputs[index], role)
      let rank = index < 3 ? 3 : 2
      try expectRank(inputs[index], rank...rank, role)
    }
    try expectPosition(inputs[6])
    let (keys, values, queries) = (inputs[0].shape, inputs[1].shape, inputs[3].shape)
    let kvHeads = try expectFixed(keys[0], "heads")
    let rows = try expectFixed(keys[1], "rows")
    let (depth, valueDepth) = (try expectFixed(keys[2], "key columns"), try expectFixed(values[2], "value columns"))
    guard kvHeads >= 1, heads >= 1, heads <= 1 << 20, heads % kvHeads == 0 else {
      throw failure("\(heads) heads do not divide into \(kvHeads) key and value heads")
    }
    guard scale.isFinite else { throw failure("attribute 'scale' is \(scale), expected a finite number") }
    if let softcap, !(softcap > 0 && softcap.isFinite) {
      throw failure("attribute 'softcap' is \(softcap), expected a positive number")
    }
    guard sinks >= 0, recent >= 1, sinks <= Self.mostRows, recent <= Self.mostRows else {
      throw failure("found \(sinks) sinks and \(recent) last tokens, expected at least 0 and 1")
    }
    guard rows >= sinks + recent, rows <= Self.mostRows else {
      throw failure(
        "found caches of \(rows) rows, expected \(sinks + recent), those of sinks and last tokens, to \(Self.mostRows)")
    }
    guard depth >= 1, valueDepth >= 1 else { throw failure("found heads without columns") }
    try expectShape(inputs[1], [.fixed(kvHeads), .fixed(rows), .fixed(valueDepth)], roles[1])
    try expectShape(inputs[2], [.fixed(kvHeads), 2, .fixed(rows)], roles[2])
    try expectShape(inputs[3], [queries[0], .fixed(heads * depth)], roles[3])
    try expectShape(inputs[4], [queries[0], .fixed(kvHeads * depth)], roles[4])
    try expectShape(inputs[5], [queries[0], .fixed(kvHeads * valueDepth)], roles[5])
    return Array(inputs[..<3]) + [inputs[3].with(shape: [queries[0], .fixed(heads * valueDepth)])]
  }
}
