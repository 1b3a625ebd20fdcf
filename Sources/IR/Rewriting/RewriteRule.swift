/// A pattern at one node and what to put in its place.
///
///     /// multiply(x, sigmoid(x)) -> silu(x)
///     let fuseSiLU = RewriteRule("fuse-silu", on: Multiply.self) { _, node, rewriter in
///       guard let (gate, x) = rewriter.operands(of: node, where: { rewriter.isDefined($0, by: Sigmoid.self) }),
///         rewriter.input(of: gate) == x
///       else { return nil }
///       return try rewriter.emit(SiLU(), x)
///     }
///
/// The body looks at the graph through the ``Rewriter`` and returns the value that replaces the result of the root, or
/// nil; what it emitted before it returned nil is taken back. It cannot change anything else.
package struct RewriteRule: Sendable {
  /// Whether look-ups go through values that are used elsewhere too.
  package enum Sharing: Sendable {
    /// A look-up through a value succeeds only if the value has one use, so that its computation goes away.
    case single
    /// Look-ups disregard other uses, so that a computation may be done twice.
    case shared
  }

  /// The name in kebab-case, as traces and counters show it.
  package let name: String
  /// The operator type that the root must have; nil for any.
  let root: ObjectIdentifier?
  let sharing: Sharing
  let body: @Sendable (any Operator, NodeID, inout Rewriter) throws -> [ValueID]?

  /// A rule for nodes with an operator of the type `Op` and one result.
  package init<Op: Operator>(
    _ name: String, on type: Op.Type, _ sharing: Sharing = .single,
    _ body: @escaping @Sendable (Op, NodeID, inout Rewriter) throws -> ValueID?
  ) {
    self.init(name: name, root: ObjectIdentifier(type), sharing) { op, node, rewriter in
      guard let op = op as? Op else { return nil }
      return try body(op, node, &rewriter).map { [$0] }
    }
  }

  /// A rule for nodes with an operator of the type `Op` that replaces all results.
  package init<Op: Operator>(
    _ name: String, onAllResultsOf type: Op.Type, _ sharing: Sharing = .single,
    _ body: @escaping @Sendable (Op, NodeID, inout Rewriter) throws -> [ValueID]?
  ) {
    self.init(name: name, root: ObjectIdentifier(type), sharing) { op, node, rewriter in
      guard let op = op as? Op else { return nil }
      return try body(op, node, &rewriter)
    }
  }

  /// A rule for nodes with any operator that replaces all results.
  package init(
    onAny name: String, _ sharing: Sharing = .single,
    _ body: @escaping @Sendable (any Operator, NodeID, inout Rewriter) throws -> [ValueID]?
  ) {
    self.init(name: name, root: nil, sharing, body)
  }

  /// Whether the rule is tried at nodes with that operator.
  package func isTried(at op: any Operator) -> Bool { root == nil || root == ObjectIdentifier(type(of: op)) }

  private init(
    name: String, root: ObjectIdentifier?, _ sharing: Sharing,
    _ body: @escaping @Sendable (any Operator, NodeID, inout Rewriter) throws -> [ValueID]?
  ) {
    self.name = name
    self.root = root
    self.sharing = sharing
    self.body = body
  }
}
