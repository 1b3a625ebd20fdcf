import Tensors

extension GraphBuilder {
  /// The rows of the last `count` tokens before a call, which a new state in f32 keeps, and behind them those of the call:
  /// what `recent` of ``Attention`` reads.
  ///
  ///     %all = concat(%state, %rows)                       (%state: f32[count, width], %rows: f32[T, width])
  ///     update %state = cache_update(%state, slice(%all, T ..< T + count), 0)
  package mutating func lastRows(_ count: Int, before rows: ValueID, state name: String) throws -> ValueID {
    let type = type(of: rows)
    let index = graph.states.count
    let state = self.state(name, TensorType(.f32, Shape([.fixed(count), type.shape.last])))
    let all = try emit(Concat(axis: 0), state, rows)
    let next = try emit(Slice(axis: 0, start: type.shape[0], size: .fixed(count)), all)
    let start = constant(.inline("start", .i32, [1], [Int32(0)]))
    graph.setUpdate(ofState: index, to: try emit(CacheUpdate(), state, next, start))
    return all
  }
}
