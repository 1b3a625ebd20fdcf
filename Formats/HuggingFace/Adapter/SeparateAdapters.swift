import IR

extension Model {
  /// Takes adapters out of the weights again: `x (W + s B A)^T` becomes `x W^T + s (x A^T) B^T`. The weight then stays as the
  /// checkpoint has it, which matters where it is quantized. Weights that are stored transposed, or read in another way than
  /// by a product, and those whose rows got lengths, keep what was added to them.
  mutating func separateAdapters() throws {
    for index in functions.indices {
      var builder = GraphBuilder(graph: functions[index], constants: constants)
      for id in builder.graph.topologicalOrder() {
        let node = builder.graph[id]
        guard let op = node.op as? MatMul, op == MatMul(transposeB: true),
          let update = builder.graph.definingNode(of: node.inputs[1]).map({ builder.graph[$0] }),
          let scale = (update.op as? LowRankUpdate)?.scale, update.inputs.count == 3,
          builder.graph.constant(of: update.inputs[1]) != nil
        else { continue }
        let x = node.inputs[0]
        builder.origin = node.origin
        let base = try builder.emit(op, x, update.inputs[0])
        // `A` has a row for each number of the small vector, as it is stored.
        let small = try builder.emit(
          Multiply(), builder.emit(op, x, update.inputs[2]),
          builder.constant(.inline("lora_scale", .f32, [1], [scale])))
        let sum = try builder.emit(Add(), base, builder.emit(op, small, update.inputs[1]))
        builder.graph.replaceUses(of: node.results[0], with: sum)
        builder.graph.erase(id)
      }
      builder.graph.eraseUnused()
      functions[index] = builder.graph
      constants = builder.constants
    }
  }
}

extension Graph {
  /// Erases nodes whose results nobody uses, and constants nobody uses.
  fileprivate mutating func eraseUnused() {
    for id in topologicalOrder().reversed() where self[id].results.allSatisfy({ self[$0].uses.isEmpty }) { erase(id) }
    for id in valueIDs where constant(of: id) != nil && self[id].uses.isEmpty { eraseConstant(id) }
  }
}
