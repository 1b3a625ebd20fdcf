import Base
import IR
import Tensors
import TestSupport
import Testing

private func model(_ statements: String, returns: String = "%z") throws -> Model {
  try Parser.parse(
    """
    model @m {
      func @f(%x: f32[4], %y: f32[4]) -> (\(returns.split(separator: ",").indices.map { "o\($0)" }.joined(separator: ", "))) {
        \(statements)
        return \(returns)
      }
    }
    """)
}

/// The statements of the function after the rules, in canonical order, without types.
private func rewritten(
  _ statements: String, returns: String = "%z", _ rules: [RewriteRule], context: inout PassContext
) throws -> [String] {
  var model = try model(statements, returns: returns)
  try RewriteDriver(rules).run(&model, &context)
  try Verifier.verify(model)
  model.compact()
  return try Printer.print(model).split(separator: "\n").map(String.init)
    .filter { $0.contains(" = ") && !$0.contains("mcc_ir") || $0.contains("return") }
    .map { String($0.trimmingPrefix(while: { $0 == " " })).replacing(" : f32[4]", with: "") }
}

private func rewritten(_ statements: String, returns: String = "%z", _ rules: [RewriteRule]) throws -> [String] {
  var context = PassContext()
  return try rewritten(statements, returns: returns, rules, context: &context)
}

/// multiply(x, sigmoid(x)) -> silu(x)
private let fuseSiLU = RewriteRule("fuse-silu", on: Multiply.self) { _, node, rewriter in
  guard let (gate, x) = rewriter.operands(of: node, where: { rewriter.isDefined($0, by: Sigmoid.self) }),
    rewriter.input(of: gate) == x
  else { return nil }
  return try rewriter.emit(SiLU(), x)
}

/// exp(exp(x)) -> tanh(x), with and without regard for other uses
private func exponentials(_ sharing: RewriteRule.Sharing) -> RewriteRule {
  RewriteRule("exponentials", on: Exp.self, sharing) { _, node, rewriter in
    guard let inner = rewriter.definition(of: rewriter.inputs(of: node)[0], as: Exp.self) else { return nil }
    return try rewriter.emit(Tanh(), rewriter.inputs(of: inner.node)[0])
  }
}

/// negate(negate(x)) -> x
private let negateTwice = RewriteRule("negate-twice", on: Negate.self) { _, node, rewriter in
  let inner = rewriter.inputs(of: node)[0]
  return rewriter.isDefined(inner, by: Negate.self) ? rewriter.input(of: inner) : nil
}

@Suite struct RewritingTests {
  @Test func replacesAndKeepsNameAndOrigin() throws {
    #expect(
      try rewritten("%s = sigmoid(%x)\n %z = multiply(%x, %s)  // layers.3", [fuseSiLU])
        == ["%z = silu(%x)  // layers.3", "return %z"])
  }

  @Test func triesBothOrdersOfCommutativeOperandsOnly() throws {
    #expect(try rewritten("%s = sigmoid(%x)\n %z = multiply(%s, %x)", [fuseSiLU]) == ["%z = silu(%x)", "return %z"])
    let rule = RewriteRule("subtract-exp", on: Subtract.self) { _, node, rewriter in
      guard let (_, other) = rewriter.operands(of: node, where: { rewriter.isDefined($0, by: Exp.self) }) else {
        return nil
      }
      return other
    }
    #expect(try rewritten("%e = exp(%x)\n %z = subtract(%e, %y)", [rule]) == ["return %y"])
    #expect(try rewritten("%e = exp(%x)\n %z = subtract(%y, %e)", [rule]).count == 3)
  }

  @Test func looksThroughSingleUsesOnlyUnlessShared() throws {
    let statements = "%a = exp(%x)\n %z = exp(%a)"
    #expect(try rewritten(statements, [exponentials(.single)]) == ["%z = tanh(%x)", "return %z"])
    let unchanged = ["%a = exp(%x)", "%z = exp(%a)", "return %z, %a"]
    #expect(try rewritten(statements, returns: "%z, %a", [exponentials(.single)]) == unchanged)
    #expect(
      try rewritten(statements, returns: "%z, %a", [exponentials(.shared)])
        == ["%z = tanh(%x)", "%a = exp(%x)", "return %z, %a"])
  }

  @Test func aUseThatGoesAwayMakesOthersMatch() throws {
    // %a has two uses until the rule on abs has removed one of them; the rule on exp was tried before.
    let dropNegate = RewriteRule("drop-negate", on: Floor.self, .shared) { _, node, rewriter in
      guard let negate = rewriter.definition(of: rewriter.inputs(of: node)[0], as: Negate.self) else { return nil }
      return rewriter.input(of: rewriter.inputs(of: negate.node)[0])
    }
    #expect(
      try rewritten(
        "%a = exp(%x)\n %z = exp(%a)\n %n = negate(%a)\n %w = floor(%n)", returns: "%z, %w",
        [exponentials(.single), dropNegate]) == ["%z = tanh(%x)", "return %z, %x"])
  }

  @Test func emissionsOfARuleThatGivesUpAreTakenBack() throws {
    let undecided = RewriteRule("undecided", on: Exp.self) { _, node, rewriter in
      let x = rewriter.inputs(of: node)[0]
      let a = try rewriter.emit(Tanh(), x)
      let c = rewriter.constant(.inline("c", .f32, [4], [1, 2, 3, 4] as [Float]))
      _ = try rewriter.emit(Add(), a, c)
      return nil
    }
    var model = try model("%z = exp(%x)")
    let before = model.functions[0]
    var context = PassContext()
    try RewriteDriver([undecided]).run(&model, &context)
    #expect(model.functions[0] == before)
    #expect(model.functions[0].nodeSlots == before.nodeSlots)
    #expect(model.functions[0].valueSlots == before.valueSlots)
    #expect(model.functions[0][model.functions[0].inputs[0]].uses == before[before.inputs[0]].uses)
    #expect(context.rewriteCount == 0)
    try Verifier.verify(model)
  }

  @Test func whatIsEmittedInVainGoesAway() throws {
    let wasteful = RewriteRule("wasteful", on: Exp.self) { _, node, rewriter in
      let x = rewriter.inputs(of: node)[0]
      _ = try rewriter.emit(Tanh(), x)
      return try rewriter.emit(Abs(), x)
    }
    #expect(try rewritten("%z = exp(%x)", [wasteful]) == ["%z = abs(%x)", "return %z"])
  }

  @Test func existingValuesKeepTheirNames() throws {
    #expect(
      try rewritten("%a = exp(%x)\n %b = negate(%a)\n %z = negate(%b)\n %w = tanh(%z)", returns: "%w", [negateTwice])
        == ["%a = exp(%x)", "%w = tanh(%a)", "return %w"])
    #expect(try rewritten("%b = negate(%x)\n %z = negate(%b)", [negateTwice]) == ["return %x"])
  }

  @Test func rulesAreTriedInOrderAndChainsComeToAnEnd() throws {
    let toTanh = RewriteRule("to-tanh", on: Exp.self) { _, node, rewriter in
      try rewriter.emit(Tanh(), rewriter.inputs(of: node)[0])
    }
    let toAbs = RewriteRule("to-abs", on: Exp.self) { _, node, rewriter in
      try rewriter.emit(Abs(), rewriter.inputs(of: node)[0])
    }
    let tanhToRelu = RewriteRule(onAny: "tanh-to-relu") { op, node, rewriter in
      op is Tanh ? [try rewriter.emit(ReLU(), rewriter.inputs(of: node)[0])] : nil
    }
    var context = PassContext()
    #expect(
      try rewritten("%z = exp(%x)", [toTanh, toAbs, tanhToRelu], context: &context) == ["%z = relu(%x)", "return %z"])
    #expect(context.counters.map(\.name) == ["to-tanh", "tanh-to-relu"])
    #expect(context.counters.map(\.count) == [1, 1])
    #expect(try rewritten("%z = exp(%x)", [toAbs, toTanh]) == ["%z = abs(%x)", "return %z"])
  }

  @Test func longChainsAreRewrittenWhole() throws {
    var statements = "%n0 = negate(%x)\n"
    for index in 1..<2000 { statements += "%n\(index) = negate(%n\(index - 1))\n" }
    #expect(try rewritten(statements, returns: "%n1999", [negateTwice]) == ["return %x"])
  }

  @Test func statesAndOutputsFollow() throws {
    var model = try Parser.parse(
      """
      model @m {
        func @f(%x: f32[4]) state(%s: f32[4]) -> (a, b) {
          %n = negate(%x)
          %z = negate(%n)
          update %s = %z
          return %z, %z
        }
      }
      """)
    var context = PassContext()
    try RewriteDriver([negateTwice]).run(&model, &context)
    try Verifier.verify(model)
    let graph = model.functions[0]
    #expect(graph.outputs == [graph.inputs[0], graph.inputs[0]])
    #expect(graph.states[0].update == graph.inputs[0])
    #expect(graph.nodeCount == 0)
  }

  @Test func cyclesAreErrorsThatNameTheRules() throws {
    let there = RewriteRule("there", on: Exp.self) { _, node, rewriter in
      try rewriter.emit(Tanh(), rewriter.inputs(of: node)[0])
    }
    let back = RewriteRule("back", on: Tanh.self) { _, node, rewriter in
      try rewriter.emit(Exp(), rewriter.inputs(of: node)[0])
    }
    var model = try model("%z = exp(%x)")
    var context = PassContext()
    let error = #expect(throws: CompileError.self) {
      try RewriteDriver([there, back], budget: 50).run(&model, &context)
    }
    #expect(error?.kind == .internal)
    #expect(error?.message == "rewriting '@f' does not come to an end after 50 rewrites")
    #expect(error?.notes.first?.hasSuffix("there, back, there, back, there, back, there") == true)
    // Without a budget of its own the driver stops too.
    #expect(throws: CompileError.self) { try RewriteDriver([there, back]).run(&model, &context) }
  }

  @Test func wrongReplacementsAreErrors() throws {
    func message(_ rule: RewriteRule) throws -> String {
      var model = try model("%z = exp(%x)")
      var context = PassContext()
      let error = #expect(throws: CompileError.self) { try RewriteDriver([rule]).run(&model, &context) }
      #expect(error?.kind == .internal)
      return error.map { "\($0)" } ?? ""
    }
    let type = RewriteRule("wrong-type", on: Exp.self) { _, node, rewriter in
      try rewriter.emit(Reshape([2, 2]), rewriter.inputs(of: node)[0])
    }
    #expect(try message(type) == "the rule 'wrong-type' replaces '%z' of type f32[4] by a value of type f32[2, 2]")
    let count = RewriteRule("wrong-count", onAllResultsOf: Exp.self) { _, node, rewriter in [] }
    #expect(try message(count) == "the rule 'wrong-count' returns 0 values for 1 results of 'exp'")
    let wrap = RewriteRule("wraps", on: Exp.self) { _, node, rewriter in
      try rewriter.emit(Abs(), rewriter[node].results[0])
    }
    #expect(try message(wrap) == "the rule 'wraps' uses '%z', which it replaces")
    let fails = RewriteRule("fails", on: Exp.self) { _, node, rewriter in
      try rewriter.emit(Reshape([3]), rewriter.inputs(of: node)[0])
    }
    #expect(try message(fails).hasPrefix("the rule 'fails' fails at '%z'"))
  }

  @Test func numbersRunOverTheWholeCompilation() throws {
    let statements = "%a = exp(%x)\n %b = abs(%a)\n %c = exp(%b)\n %z = abs(%c)"
    let toTanh = RewriteRule("to-tanh", on: Exp.self) { _, node, rewriter in
      try rewriter.emit(Tanh(), rewriter.inputs(of: node)[0])
    }
    let toRelu = RewriteRule("to-relu", on: Abs.self) { _, node, rewriter in
      try rewriter.emit(ReLU(), rewriter.inputs(of: node)[0])
    }
    func ops(limit: Int?) throws -> [String] {
      var model = try model(statements)
      var context = PassContext()
      context.rewriteLimit = limit
      try RewriteDriver([toTanh]).run(&model, &context)
      try RewriteDriver([toRelu]).run(&model, &context)
      try Verifier.verify(model)
      #expect(context.rewriteCount == min(limit ?? 4, 4))
      let graph = model.functions[0]
      return graph.topologicalOrder().map { graph[$0].op.name }
    }
    #expect(try ops(limit: 0) == ["exp", "abs", "exp", "abs"])
    #expect(try ops(limit: 1) == ["tanh", "abs", "exp", "abs"])
    #expect(try ops(limit: 2) == ["tanh", "abs", "tanh", "abs"])
    #expect(try ops(limit: 3) == ["tanh", "relu", "tanh", "abs"])
    #expect(try ops(limit: 4) == ["tanh", "relu", "tanh", "relu"])
    #expect(try ops(limit: nil) == ["tanh", "relu", "tanh", "relu"])
  }

  @Test func tracesShowRuleRootAndResult() throws {
    let lines = Lines()
    var context = PassContext()
    context.traceRewrite = { lines.text.append($0) }
    _ = try rewritten("%s = sigmoid(%x)\n %z = multiply(%x, %s)", [fuseSiLU], context: &context)
    #expect(
      lines.text
        == ["rewrite 1: fuse-silu: %z = multiply(%x, %s) : f32[4]  ->  %z = silu(%x) : f32[4]"])
  }

  private final class Lines {
    var text: [String] = []
  }

  @Test func constantsCanBeAdded() throws {
    let addOne = RewriteRule("add-one", on: Exp.self) { _, node, rewriter in
      let one = rewriter.constant(.inline("one", .f32, [4], [1, 1, 1, 1] as [Float]))
      return try rewriter.emit(Add(), rewriter.inputs(of: node)[0], one)
    }
    #expect(
      try rewritten("%z = exp(%x)", [addOne])
        == ["%one = constant [1.0, 1.0, 1.0, 1.0]", "%z = add(%x, %one)", "return %z"])
  }

  @Test func everyRewriteCanBeVerified() throws {
    var context = PassContext()
    context.verifiesEachRewrite = true
    #expect(
      try rewritten("%s = sigmoid(%x)\n %z = multiply(%s, %x)", [fuseSiLU], context: &context)
        == ["%z = silu(%x)", "return %z"])
  }
}
