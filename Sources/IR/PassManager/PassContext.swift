import Base
import Tensors

/// What passes share during one compilation: counters, remarks, numbering of rewrites, and where files may be put.
package struct PassContext {
  /// How often something happened in a pass.
  package struct Counter: Hashable, Sendable {
    package let name: String
    package fileprivate(set) var count: Int
  }

  /// What a pass measured, such as the error of a quantized tensor.
  package struct Figure: Hashable, Sendable {
    package let name: String
    package let value: Double
  }

  /// A remark for the user.
  package struct Remark: Hashable, Sendable {
    /// The pass that made it.
    package let pass: String
    package let text: String
  }

  /// A firing of a rule.
  package struct Rewrite: Hashable, Sendable {
    /// Its number in the compilation, from 1.
    package let number: Int
    package let rule: String
    /// The first result of the root, with its `%`.
    package let place: String
  }

  /// Remarks of all passes so far, in order.
  package private(set) var remarks: [Remark] = []
  /// The folder for spilled data and reproducers; nil if nothing may be written.
  package var workFolder: String?
  /// After that many rewrites in the whole compilation no rule fires any more (`--stop-after-rewrites`).
  package var rewriteLimit: Int?
  /// Rewrites in the whole compilation so far.
  package private(set) var rewriteCount = 0
  /// The last rewrite.
  package private(set) var lastRewrite: Rewrite?
  /// Whether the graph is verified after every single rewrite (`--verify-each rewrite`).
  package var verifiesEachRewrite = false
  /// Receives a line per rewrite (`--trace-rewrites`).
  package var traceRewrite: ((String) -> Void)?
  /// The pass whose refusals are told (`--explain`).
  package var explainedPass: String?
  /// The rule whose refusals are told, of whatever pass.
  package var explainedRule: String?
  /// Receives a line for each place where an explained rule found its pattern but did nothing.
  package var explainRefusal: ((String) -> Void)?
  /// The ranges of values that the pass `calibrate` measured; nil before it ran.
  package var calibration: Calibration?
  /// Reads the samples of a file for the inputs of a function: runs, each with one tensor per input.
  package var samples: ((_ path: String, _ function: Graph) throws -> [[Tensor]])?
  /// Reads windows of tokens of a text or of token ids for a network that reads them, or the samples of an archive for
  /// others: `count` of them of `length` tokens, nil for the usual numbers. For each function of the model what it runs
  /// on; the runs of a function go on with the states that those before left.
  package var tokenSamples:
    ((_ path: String, _ count: Int?, _ length: Int?, _ model: Model) throws -> [[FunctionInputs]])?
  /// The bytes that a model of the stage `transform` takes in a program: weights as kernels read them, and the
  /// tokenizer; nil where that cannot be said.
  package var programBytes: ((_ model: Model) throws -> Int)?
  /// Keeps what passes compute on samples; nil for nowhere.
  package var results: (any ResultCache)?
  /// The file that keeps new data of passes; nil for one that goes away with the model.
  package var spillPath: String?
  /// Shows what long passes are doing.
  package var progress: Progress?

  /// Counters of the current pass, in the order of their first use.
  package private(set) var counters: [Counter] = []
  /// Figures of the current pass, in order.
  package private(set) var figures: [Figure] = []
  private var pass = ""

  package init() {}

  /// Adds to a counter of the current pass; counters that stay 0 are not kept.
  package mutating func count(_ name: String, by amount: Int = 1) {
    guard amount != 0 else { return }
    if let index = counters.firstIndex(where: { $0.name == name }) {
      counters[index].count += amount
    } else {
      counters.append(Counter(name: name, count: amount))
    }
  }

  /// Reports a figure of the current pass, such as the relative error of one tensor.
  package mutating func report(_ name: String, _ value: Double) { figures.append(Figure(name: name, value: value)) }

  /// Tells the user something.
  package mutating func remark(_ text: String) { remarks.append(Remark(pass: pass, text: text)) }

  /// An evaluator of the constants and recipes of one function.
  package func constantEvaluator(for graph: Graph, in model: Model) -> ConstantEvaluator {
    ConstantEvaluator(model, graph)
  }

  // MARK: Rewrites

  /// Whether rules may still fire.
  package var mayRewrite: Bool { rewriteLimit.map { rewriteCount < $0 } ?? true }

  var tracesRewrites: Bool { traceRewrite != nil }

  func trace(_ line: String) { traceRewrite?(line) }

  /// Counts a firing and gives its number, from 1.
  mutating func noteRewrite(by rule: String, at place: String) -> Int {
    rewriteCount += 1
    lastRewrite = Rewrite(number: rewriteCount, rule: rule, place: place)
    count(rule)
    return rewriteCount
  }

  // MARK: Refusals

  /// Whether refusals of the current pass may be told.
  package var explains: Bool { explainRefusal != nil && (explainedPass == pass || explainedRule != nil) }

  /// Whether the refusals of that rule of the current pass are told.
  func explains(_ rule: String) -> Bool {
    explainRefusal != nil && (explainedPass == pass || explainedRule == rule)
  }

  /// Says why the current pass leaves a place as it is: `place` is a value with its `%`, `rule` the rule or the pass.
  package func explain(_ rule: String, at place: String, _ reason: @autoclosure () -> String) {
    guard explains(rule) else { return }
    explainRefusal?("\(place): \(rule): \(reason())")
  }

  // MARK: Passes

  /// The same for a trial of the current pass, which fires at most so many rules and tells nobody.
  func trial(firing count: Int) -> PassContext {
    var trial = self
    trial.rewriteLimit = min(rewriteLimit ?? .max, rewriteCount + count)
    trial.lastRewrite = nil
    trial.traceRewrite = nil
    trial.explainRefusal = nil
    trial.progress = nil
    return trial
  }

  mutating func begin(_ pass: String) {
    self.pass = pass
    counters = []
    figures = []
  }
}
