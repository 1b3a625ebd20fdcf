import Base
import Tensors

/// Applies rules to every node until none matches.
///
/// Nodes wait in a list, first in the order of computation; rules are tried in the order given. When one fires, the uses
/// of the root go over to the replacement, which takes the root's name; nodes without use are erased; new nodes, users
/// and those whose operands lost a use wait again. Every firing is numbered over the whole compilation.
package struct RewriteDriver: Sendable {
  private let specific: [ObjectIdentifier: [RewriteRule]]
  private let general: [RewriteRule]
  private let budget: Int?

  /// A driver for `rules`. More firings than `budget` in one function are taken for a cycle; without, the budget grows
  /// with the function.
  package init(_ rules: [RewriteRule], budget: Int? = nil) {
    self.budget = budget
    general = rules.filter { $0.root == nil }
    var specific: [ObjectIdentifier: [RewriteRule]] = [:]
    for root in Set(rules.compactMap(\.root)) { specific[root] = rules.filter { $0.root == nil || $0.root == root } }
    self.specific = specific
  }

  /// Rewrites every function of a model, as part of the pass `context` is in.
  ///
  /// - Throws: `CompileError` of kind `.internal` for a rule that fails, changes a type or never stops firing.
  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices where context.mayRewrite {
      try run(function: index, of: &model, &context)
    }
  }

  /// Rewrites one function of a model, likewise.
  package func run(function index: Int, of model: inout Model, _ context: inout PassContext) throws {
    let graph = model.functions[index]
    var session = RewriteSession(
      rewriter: Rewriter(graph: graph, constants: model.constants),
      budget: budget ?? 1000 + 20 * graph.nodeCount)
    defer {
      model.functions[index] = session.rewriter.graph
      model.constants = session.rewriter.constants
    }
    for node in graph.topologicalOrder() { session.enqueue(node) }
    while let node = session.next() {
      guard session.rewriter.graph.isLive(node) else { continue }
      let op = session.rewriter.graph[node].op
      for rule in specific[ObjectIdentifier(type(of: op))] ?? general {
        guard context.mayRewrite else { return }
        guard let number = try session.apply(rule, to: node, op, &context) else { continue }
        if context.verifiesEachRewrite {
          do {
            var snapshot = model
            snapshot.constants = session.rewriter.constants
            try Verifier.verify(session.rewriter.graph, in: snapshot)
          } catch let error as CompileError {
            throw error.noting("after rewrite \(number), by the rule '\(rule.name)'")
          }
        }
        break
      }
    }
  }
}

/// The work on one function.
private struct RewriteSession {
  var rewriter: Rewriter
  let budget: Int
  private var waiting: [NodeID] = []
  private var head = 0
  private var isWaiting: [Bool] = []
  private var fired = 0
  private var lastRules: [String] = []

  init(rewriter: Rewriter, budget: Int) {
    self.rewriter = rewriter
    self.budget = budget
  }

  mutating func enqueue(_ node: NodeID) {
    let index = Int(node.index)
    while isWaiting.count <= index { isWaiting.append(false) }
    guard !isWaiting[index] else { return }
    isWaiting[index] = true
    waiting.append(node)
  }

  mutating func next() -> NodeID? {
    guard head < waiting.count else { return nil }
    let node = waiting[head]
    head += 1
    isWaiting[Int(node.index)] = false
    if head > 4096, head * 2 > waiting.count {
      waiting.removeFirst(head)
      head = 0
    }
    return node
  }

  /// Tries a rule on a node.
  ///
  /// - Returns: the number of the firing; nil if the rule does not match.
  mutating func apply(
    _ rule: RewriteRule, to node: NodeID, _ op: any Operator, _ context: inout PassContext
  ) throws -> Int? {
    let root = rewriter.graph[node]
    let mark = rewriter.graph.mark
    let (firstNode, firstValue) = (rewriter.graph.nodeSlots, rewriter.graph.valueSlots)
    rewriter.sharing = rule.sharing
    rewriter.origin = root.origin
    (rewriter.refusal, rewriter.wantsRefusals) = (nil, context.explains(rule.name))
    let replacement: [ValueID]?
    do {
      replacement = try rule.body(op, node, &rewriter)
    } catch let error as CompileError {
      throw CompileError(
        .internal, "the rule '\(rule.name)' fails at '\(place(of: root))'", subject: error.subject, notes: error.notes,
        cause: error.message)
    }
    guard let replacement, replacement != root.results else {
      rewriter.graph.truncate(to: mark)
      if let refusal = rewriter.refusal {
        context.explain(rule.name, at: place(of: root), refusal)
      }
      return nil
    }
    try check(replacement, for: root, rule, newNodes: firstNode..<rewriter.graph.nodeSlots)
    fired += 1
    lastRules.append(rule.name)
    if lastRules.count > 8 { lastRules.removeFirst() }
    guard fired <= budget else {
      throw CompileError(
        .internal, "rewriting '@\(rewriter.graph.name)' does not come to an end after \(budget) rewrites",
        notes: ["the last rules were \(lastRules.joined(separator: ", "))"])
    }
    let before = context.tracesRewrites ? Printer.line(for: node, in: rewriter.graph) : ""
    let number = context.noteRewrite(by: rule.name, at: place(of: root))
    replace(node, by: replacement, newNodes: firstNode..<rewriter.graph.nodeSlots, firstValue: firstValue)
    if context.tracesRewrites {
      let after = replacement.map { value in
        rewriter.graph.definingNode(of: value).map { Printer.line(for: $0, in: rewriter.graph) }
          ?? "%" + rewriter.graph[value].name
      }
      context.trace("rewrite \(number): \(rule.name): \(before)  ->  \(after.joined(separator: "; "))")
    }
    return number
  }

  /// How messages name a node: its first result, with its `%`, or its operator.
  private func place(of node: Node) -> String {
    node.results.first.map { "%" + rewriter.graph[$0].name } ?? node.op.name
  }

  private func check(_ replacement: [ValueID], for root: Node, _ rule: RewriteRule, newNodes: Range<Int>) throws {
    func fail(_ message: String) -> CompileError { CompileError(.internal, "the rule '\(rule.name)' \(message)") }
    guard replacement.count == root.results.count else {
      throw fail("returns \(replacement.count) values for \(root.results.count) results of '\(root.op.name)'")
    }
    for (old, new) in zip(root.results, replacement) {
      let (oldType, newType) = (rewriter.graph.type(of: old), rewriter.graph.type(of: new))
      guard oldType == newType else {
        throw fail("replaces '%\(rewriter.graph[old].name)' of type \(oldType) by a value of type \(newType)")
      }
      guard !root.results.contains(new) else { throw fail("exchanges results of '\(root.op.name)'") }
    }
    for index in newNodes {
      for input in rewriter.graph[NodeID(index: Int32(index))].inputs where root.results.contains(input) {
        throw fail("uses '%\(rewriter.graph[input].name)', which it replaces")
      }
    }
  }

  private mutating func replace(
    _ node: NodeID, by replacement: [ValueID], newNodes: Range<Int>, firstValue: Int
  ) {
    let results = rewriter.graph[node].results
    let names = results.map { rewriter.graph[$0].name }
    for (old, new) in zip(results, replacement) { rewriter.graph.replaceUses(of: old, with: new) }
    eraseDead(from: node)
    // What was emitted in vain goes away too.
    for index in newNodes.reversed() { eraseDead(from: NodeID(index: Int32(index))) }
    for (name, new) in zip(names, replacement) where Int(new.index) >= firstValue && rewriter.graph.isLive(new) {
      rewriter.graph.rename(new, to: name)
    }
    for index in newNodes where rewriter.graph.isLive(NodeID(index: Int32(index))) {
      enqueue(NodeID(index: Int32(index)))
    }
    for value in replacement where rewriter.graph.isLive(value) {
      for user in rewriter.graph.users(of: value) { enqueue(user) }
    }
  }

  /// Erases a node without use and what only it used; who shared an operand with it waits again.
  private mutating func eraseDead(from node: NodeID) {
    var stack = [node]
    while let id = stack.popLast() {
      guard rewriter.graph.isLive(id), rewriter.graph[id].results.allSatisfy({ rewriter.graph[$0].uses.isEmpty })
      else { continue }
      let inputs = rewriter.graph[id].inputs
      rewriter.graph.erase(id)
      for input in inputs where rewriter.graph.isLive(input) {
        if rewriter.graph[input].uses.isEmpty {
          if let producer = rewriter.graph.definingNode(of: input) {
            stack.append(producer)
          } else if rewriter.graph.constant(of: input) != nil {
            rewriter.graph.eraseConstant(input)
          }
        } else {
          for user in rewriter.graph.users(of: input) { enqueue(user) }
          if let producer = rewriter.graph.definingNode(of: input) { enqueue(producer) }
        }
      }
    }
  }
}
