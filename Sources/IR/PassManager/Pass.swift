/// How far a pass may change what a model computes.
package enum Fidelity: String, Hashable, Codable, Sendable, CaseIterable {
  /// Equal in real arithmetic.
  case exact
  /// Changes the precision of a value on purpose.
  case rounding
  /// Changes the function.
  case lossy
}

/// A transformation of a model; the stored properties of a conforming structure are its options.
package protocol Pass: Codable, Sendable {
  /// The name in pipelines, in kebab-case.
  static var name: String { get }

  /// What the pass does, in one line.
  static var summary: String { get }

  /// When the pass may act, in one sentence without a full stop.
  static var legality: String { get }

  /// The paper or specification that the transformation is from; `mcc` for plain engineering.
  static var source: String { get }

  /// The pass with default options.
  init()

  /// How far it may change what the model computes.
  var fidelity: Fidelity { get }

  /// The names of the rewrite rules that it applies; none for passes that are no rules.
  var ruleNames: [String] { get }

  /// Transforms the model.
  func run(_ model: inout Model, _ context: inout PassContext) throws
}

extension Pass {
  /// The name in pipelines.
  package var name: String { Self.name }

  package var ruleNames: [String] { [] }
}

/// A pass that is a set of rewrite rules.
package protocol RulePass: Pass {
  /// The rules, those to try first in front.
  var rules: [RewriteRule] { get }
}

extension RulePass {
  package var ruleNames: [String] { rules.map(\.name) }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    try RewriteDriver(rules).run(&model, &context)
  }
}
