import IR
import Tensors

extension KernelSelection {
  /// Computes in f32 what no kernel computes on numbers of 16 bits, where every result is rounded as before, or of f64, where
  /// numbers and results are those of f32.
  ///
  ///     %y = softmax(%x) : f16[2, 3]
  ///     ->
  ///     %w = cast(%x) {type = f32}
  ///     %s = softmax(%w) : f32[2, 3]
  ///     %y = cast(%s) {type = f16}
  ///
  /// Constants of 16 bits stay as they are where the operator takes them beside f32, as products do.
  ///
  /// - Returns: how many operators were changed, and how many of them were in f64.
  func computeInSingle(_ model: inout Model) throws -> (count: Int, doubles: Int) {
    var (count, doubles) = (0, 0)
    for function in model.functions.indices {
      var builder = GraphBuilder(graph: model.functions[function], constants: model.constants)
      let isRecipe = builder.graph.recipeFlags()
      for id in builder.graph.topologicalOrder() {
        let node = builder.graph[id]
        let types = node.inputs.map { builder.type(of: $0) }
        // Values that came from widening what is before are no recipes.
        let isConstant = node.inputs.map { isRecipe.indices.contains(Int($0.index)) && isRecipe[Int($0.index)] }
        let isOther =
          zip(types, isConstant).contains { $0.isOther && !$1 }
          || node.results.contains { builder.type(of: $0).isOther }
        guard isOther, !node.results.allSatisfy({ isRecipe[Int($0.index)] }), !builder.graph.isView(node),
          !(node.op is KernelCall), !(try hasKernel(id, in: builder.graph))
        else { continue }
        builder.origin = node.origin
        func isChanged(_ index: Int, constants: Bool) -> Bool {
          types[index].isOther && (constants || !isConstant[index] || types[index].element == .f64)
        }
        func results(constants: Bool) throws -> [TensorType] {
          try node.op.inferTypes(
            types.indices.map { isChanged($0, constants: constants) ? types[$0].with(element: .f32) : types[$0] })
        }
        let constants = (try? results(constants: false)) == nil
        guard (try? results(constants: constants)) != nil else { continue }
        let inputs = try node.inputs.enumerated().map { index, input in
          isChanged(index, constants: constants) ? try builder.emit(Cast(.f32), input) : input
        }
        for (old, new) in zip(node.results, try builder.emitAll(node.op, inputs)) {
          let element = builder.type(of: old).element
          let value = builder.type(of: new).element == element ? new : try builder.emit(Cast(element), new)
          builder.graph.replaceUses(of: old, with: value)
        }
        builder.graph.erase(id)
        count += 1
        if types.contains(where: { $0.element == .f64 }) { doubles += 1 }
      }
      model.functions[function] = builder.graph
      model.constants = builder.constants
    }
    return (count, doubles)
  }
}

extension TensorType {
  /// Whether the numbers are floating-point ones of 16 or 64 bits.
  fileprivate var isOther: Bool { isDense && (element == .f16 || element == .bf16 || element == .f64) }
}
