import IR
import Tensors

// Copies of passes, each with one mistake, that the certificate has to find.

/// Folds batch normalization into a convolution, but forgets the mean.
struct BrokenFoldBatchNorm: RulePass {
  static let name = "broken-fold-batch-norm"
  static let summary = "forgets the mean"
  static let legality = "never"
  static let source = "mcc"
  init() {}
  var fidelity: Fidelity { .exact }
  var rules: [RewriteRule] {
    [
      RewriteRule("broken-batch-norm-into-conv2d", on: BatchNorm.self) { norm, node, rewriter in
        let inputs = rewriter.inputs(of: node)
        guard let (op, conv) = rewriter.definition(of: inputs[0], as: Conv2D.self), op.epilogue == .identity else {
          return nil
        }
        let channels = rewriter.type(of: inputs[1]).shape[0]
        let epsilon = rewriter.constant(
          Constant(name: "epsilon", type: TensorType(.f32, [1]), source: .splat(Double(norm.epsilon))))
        let root = try rewriter.emit(Rsqrt(), rewriter.emit(Add(), inputs[4], epsilon))
        let scale = try rewriter.emit(Multiply(), inputs[1], root)
        let weight = try rewriter.emit(
          Multiply(), rewriter.inputs(of: conv)[1], rewriter.emit(Reshape([channels, 1, 1, 1]), scale))
        var folded = op
        folded.epilogue.bias = true
        return try rewriter.emit(folded, rewriter.inputs(of: conv)[0], weight, inputs[2])
      }
    ]
  }
}

/// Fuses SiLU, but does not look whether the gate is that of the same value; the rule for tanh is right.
struct BrokenFuseSiLU: RulePass {
  static let name = "broken-fuse-silu"
  static let summary = "takes the gate of another value"
  static let legality = "never"
  static let source = "mcc"
  init() {}
  var fidelity: Fidelity { .exact }
  var rules: [RewriteRule] {
    [
      RewriteRule("right-negate-twice", on: Negate.self, .shared) { _, node, rewriter in
        rewriter.definition(of: rewriter.inputs(of: node)[0], as: Negate.self).map { rewriter.inputs(of: $0.node)[0] }
      },
      RewriteRule("broken-silu", on: Multiply.self) { _, node, rewriter in
        let inputs = rewriter.inputs(of: node)
        guard rewriter.isDefined(inputs[1], by: Sigmoid.self), let gate = rewriter.input(of: inputs[1]) else {
          return nil
        }
        return try rewriter.emit(SiLU(), gate)
      },
    ]
  }
}

/// Multiplies one input by two weights at once, but hands the halves out in the wrong order. It is no set of rules.
struct BrokenMerge: Pass {
  static let name = "broken-merge"
  static let summary = "exchanges the halves"
  static let legality = "never"
  static let source = "mcc"
  init() {}
  var fidelity: Fidelity { .exact }
  func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      var graph = model.functions[index]
      let products = graph.nodeIDs.filter { graph[$0].op is MatMul }
      guard products.count == 2, let op = graph[products[0]].op as? MatMul, op.transposeB else { continue }
      func emit(_ op: any Operator, _ inputs: [ValueID]) throws -> ValueID {
        let node = try graph.addNode(op, inputs)
        return graph[node].results[0]
      }
      let weight = try emit(Concat(axis: 0), products.map { graph[$0].inputs[1] })
      let product = try emit(op, [graph[products[0]].inputs[0], weight])
      let width = graph.type(of: graph[products[0]].results[0]).shape.last
      for (half, node) in zip([1, 0], products) {
        let old = graph[node].results[0]
        let name = graph[old].name
        let part = try emit(Slice(axis: -1, start: width * half, size: width), [product])
        graph.replaceUses(of: old, with: part)
        graph.erase(node)
        graph.rename(part, to: name)
      }
      model.functions[index] = graph
    }
  }
}

/// Computes equal expressions once, but does not compare attributes.
struct BrokenEliminate: Pass {
  static let name = "broken-eliminate"
  static let summary = "overlooks attributes"
  static let legality = "never"
  static let source = "mcc"
  init() {}
  var fidelity: Fidelity { .exact }
  func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      var graph = model.functions[index]
      var seen: [String: NodeID] = [:]
      for id in graph.topologicalOrder() {
        let types = graph[id].results.map { "\(graph.type(of: $0))" }
        let key = "\(graph[id].op.name) \(graph[id].inputs.map(\.index)) \(types)"
        guard let first = seen[key] else {
          seen[key] = id
          continue
        }
        graph.replaceUses(of: graph[id].results[0], with: graph[first].results[0])
        graph.erase(id)
      }
      model.functions[index] = graph
    }
  }
}

/// Fuses the gain of an RMS norm, but takes half of its epsilon: a difference of some 1e-6.
struct BrokenNorm: RulePass {
  static let name = "broken-norm"
  static let summary = "halves epsilon"
  static let legality = "never"
  static let source = "mcc"
  init() {}
  var fidelity: Fidelity { .exact }
  var rules: [RewriteRule] {
    [
      RewriteRule("broken-epsilon", on: RMSNorm.self) { norm, node, rewriter in
        guard norm.epsilon > 6e-6 else { return nil }
        return try rewriter.emit(RMSNorm(axis: norm.axis, epsilon: norm.epsilon / 2), rewriter.inputs(of: node))
      }
    ]
  }
}

/// Makes a quotient by a number a product with the reciprocal, but rounds that to bf16.
struct BrokenReciprocal: RulePass {
  static let name = "broken-reciprocal"
  static let summary = "rounds the reciprocal to few bits"
  static let legality = "never"
  static let source = "mcc"
  init() {}
  var fidelity: Fidelity { .exact }
  var rules: [RewriteRule] {
    [
      RewriteRule("broken-divide", on: Divide.self) { _, node, rewriter in
        let inputs = rewriter.inputs(of: node)
        guard case .splat(let bits)? = rewriter.constant(of: inputs[1])?.source else { return nil }
        let reciprocal = BF16.value(BF16.bits(Float(1 / Double(bitPattern: bits))))
        let factor = Constant(
          name: "reciprocal", type: rewriter.type(of: inputs[1]), source: .splat(Double(reciprocal)))
        return try rewriter.emit(Multiply(), inputs[0], rewriter.constant(factor))
      }
    ]
  }
}

/// Multiplies part of the first weight by 1.001: one row, or all of it.
struct PlantError: Pass {
  static let name = "plant-error"
  static let summary = "makes one weight a thousandth larger"
  static let legality = "never"
  static let source = "mcc"
  var whole = false
  init() {}
  init(whole: Bool) { self.whole = whole }
  var fidelity: Fidelity { .exact }
  func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      var graph = model.functions[index]
      let layer = graph.topologicalOrder().first { node in
        (graph[node].op is MatMul || graph[node].op is Conv2D)
          && ConstantEvaluator.isRecipe(graph[node].inputs[1], in: graph)
          && graph.type(of: graph[node].inputs[1]).element == .f32
          && !ConstantEvaluator.isRecipe(graph[node].results[0], in: graph)
      }
      guard let layer, let rows = graph.type(of: graph[layer].inputs[1]).shape[0].fixedValue else { continue }
      let weight = graph[layer].inputs[1]
      let sizes = [rows] + [Int](repeating: 1, count: graph.type(of: weight).rank - 1)
      let factors = (0..<rows).map { whole || $0 == rows / 2 ? Float(1.001) : 1 }
      let constant = model.constants.insert(.inline("planted", .f32, sizes, factors))
      let factor = graph.addConstant(constant, "planted", TensorType(.f32, sizes))
      let node = try graph.addNode(Multiply(), [weight, factor], names: ["larger"])
      graph.setInput(1, of: layer, to: graph[node].results[0])
      model.functions[index] = graph
    }
  }
}
