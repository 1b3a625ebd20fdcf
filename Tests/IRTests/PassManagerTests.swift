import Base
import IR
import Tensors
import TestSupport
import Testing

private struct Rename: Pass {
  static let name = "rename-it"
  static let summary = "renames the model"
  static let legality = "always"
  static let source = "mcc"
  enum Kind: String, Codable { case plain, fancy }
  var kind = Kind.plain
  var suffix = ""
  var sizes: [Int] = [1]
  @Exact var scale: Float = 1
  init() {}
  var fidelity: Fidelity { kind == .plain ? .exact : .lossy }
  func run(_ model: inout Model, _ context: inout PassContext) throws {
    model.name += suffix
    context.count("renamed")
    context.count("never", by: 0)
    context.report("error of %w", 0.5)
    context.remark("called it '\(model.name)'")
  }
}

private struct ToTanh: RulePass {
  static let name = "to-tanh"
  static let summary = "exp becomes tanh"
  static let legality = "always"
  static let source = "mcc"
  init() {}
  var fidelity: Fidelity { .lossy }
  var rules: [RewriteRule] {
    [
      RewriteRule("exp-to-tanh", on: Exp.self) { _, node, rewriter in
        try rewriter.emit(Tanh(), rewriter.inputs(of: node)[0])
      }
    ]
  }
}

private struct Fail: Pass {
  static let name = "fail"
  static let summary = "fails"
  static let legality = "always"
  static let source = "mcc"
  enum How: String, Codable { case input, `internal`, other, type, cycle, name }
  var how = How.internal
  init() {}
  var fidelity: Fidelity { .exact }
  struct Other: Error {}
  func run(_ model: inout Model, _ context: inout PassContext) throws {
    let graph = model.functions[0]
    switch how {
    case .input: throw CompileError(.input, "bad input")
    case .internal: throw CompileError(.internal, "a defect")
    case .other: throw Other()
    case .type: model.functions[0].setType(TensorType(.f32, [5]), of: graph.outputs[0])
    case .cycle:
      let node = graph.nodeIDs[0]
      model.functions[0].setInput(0, of: node, to: graph[node].results[0])
    case .name: model.functions.append(graph)
    }
  }
}

private let registry = PassRegistry([Rename.self, ToTanh.self]).adding(PassRegistry([Fail.self]))

private func model() throws -> Model {
  try Parser.parse("model @small { func @f(%x: f32[4]) -> (z) { %dead = abs(%x) %z = exp(%x) return %z } }")
}

private func pipeline(_ text: String) throws -> Pipeline { try Pipeline(parsing: text, registry: registry) }

@Suite struct PassManagerTests {
  @Test func pipelinesReadAndPrint() throws {
    let cases: [(String, String)] = [
      ("", ""),
      ("to-tanh", "to-tanh"),
      (" to-tanh ,\n rename-it{ } ", "to-tanh,rename-it"),
      ("rename-it{kind=fancy}", "rename-it{kind=fancy}"),
      ("rename-it{suffix = \"a b\", kind = plain,}", "rename-it{suffix=\"a b\"}"),
      ("rename-it{sizes=[1,2],scale=1e-5},to-tanh", "rename-it{sizes=[1, 2],scale=1e-05},to-tanh"),
    ]
    for (text, expected) in cases {
      let printed = try pipeline(text).description
      #expect(printed == expected)
      #expect(try pipeline(printed).description == printed)
    }
    let pass = try #require(try pipeline("rename-it{kind=fancy,suffix=x}").passes[0] as? Rename)
    #expect(pass.kind == .fancy && pass.suffix == "x" && pass.sizes == [1])
    #expect(pass.fidelity == .lossy)
    #expect(try Pipeline.options(of: Rename()).description == "{kind = plain, suffix = \"\", sizes = [1], scale = 1.0}")
  }

  @Test func wrongPipelinesAreUsageErrors() {
    let cases: [(String, String)] = [
      (
        "to-tan",
        "unknown pass 'to-tan', did you mean 'to-tanh'? (pipeline 'to-tan'); note: passes are rename-it, to-tanh, fail"
      ),
      (
        "rename-it{kid=fancy}",
        "unknown key 'kid' of pass 'rename-it', did you mean 'kind'? valid keys are kind, suffix, sizes, scale"
      ),
      ("to-tanh{x=1}", "unknown key 'x': pass 'to-tanh' takes no keys"),
      ("rename-it{sizes=3}", "'sizes' of pass 'rename-it' is the integer 3, expected a list"),
      ("rename-it{kind", "found the end of the text, expected '=' (pipeline 'rename-it{kind', column 15)"),
      ("to-tanh fail", "found 'fail', expected ',' between passes"),
      ("to-tanh,", "found the end of the text, expected the name of a pass"),
      (",", "found ',', expected the name of a pass"),
      ("to-tanh,,fail", "found ',', expected the name of a pass"),
      ("to-", "found the end of the text, expected the rest of the name"),
      ("\u{1}", "unexpected control character 1"),
    ]
    for (text, expected) in cases {
      let error = #expect(throws: CompileError.self) { try pipeline(text) }
      #expect(error?.kind == .usage)
      #expect(error.map { "\($0)".hasPrefix(expected) } == true, "\(error.map { "\($0)" } ?? "")")
    }
  }

  @Test func reportsTellWhatPassesDid() throws {
    var model = try model()
    var context = PassContext()
    var seen: [String] = []
    let manager = PassManager { report, model in
      seen.append("\(report.text) \(model.name) \(model.functions[0].nodeSlots)")
    }
    let reports = try manager.run(try pipeline("to-tanh,rename-it{suffix=er},to-tanh"), on: &model, &context)
    #expect(seen == ["to-tanh small 2", "rename-it{suffix=er} smaller 2", "to-tanh smaller 2"])
    #expect(reports.map(\.name) == ["to-tanh", "rename-it", "to-tanh"])
    #expect(reports.map(\.hasChanged) == [true, true, false])
    #expect(reports.map { $0.counters.map { "\($0.name) \($0.count)" } } == [["exp-to-tanh 1"], ["renamed 1"], []])
    #expect(reports.map { $0.figures.map(\.value) } == [[], [0.5], []])
    #expect(reports.map(\.fidelity) == [.lossy, .exact, .lossy])
    #expect(reports[0].nodesBefore == 2 && reports[0].nodesAfter == 2)
    #expect(reports.allSatisfy { $0.seconds >= 0 })
    #expect(context.remarks.map { "\($0.pass): \($0.text)" } == ["rename-it: called it 'smaller'"])
    #expect(context.rewriteCount == 1)
  }

  @Test(arguments: ["internal", "other", "type", "cycle", "name"])
  func defectsLeaveAReproducer(how: String) throws {
    let folder = try TemporaryFolder()
    var model = try model()
    var context = PassContext()
    context.workFolder = folder.path
    let error = #expect(throws: CompileError.self) {
      try PassManager().run(try pipeline("to-tanh,fail{how=\(how)},rename-it{suffix=x}"), on: &model, &context)
    }
    #expect(error?.kind == .internal)
    #expect(error?.notes.contains("in the pass 'fail'") == true)
    let path = folder.path("small.repro.mir")
    #expect(error?.notes.last == "'\(path)' reproduces this")
    let text = String(decoding: try MappedFile.contents(path: path), as: UTF8.self)
    let rest = how == "internal" ? "fail,rename-it{suffix=x}" : "fail{how=\(how)},rename-it{suffix=x}"
    #expect(text.hasPrefix("// PIPELINE: \(rest)\nmcc_ir 1"))
    #expect(Reproducer.pipeline(of: text) == rest)
    // The model in it is the one before the pass, and the pipeline fails on it again.
    var again = try Parser.parse(contentsOf: path)
    #expect(again.functions[0].op(of: again.functions[0].outputs[0], as: Tanh.self) != nil)
    var fresh = PassContext()
    #expect(throws: CompileError.self) { try PassManager().run(try pipeline(rest), on: &again, &fresh) }
    #expect(folder.names() == ["small.repro.mir"])
  }

  @Test func faultsOfTheInputLeaveNothing() throws {
    let folder = try TemporaryFolder()
    var model = try model()
    var context = PassContext()
    context.workFolder = folder.path
    let error = #expect(throws: CompileError.self) {
      try PassManager().run(try pipeline("fail{how=input}"), on: &model, &context)
    }
    #expect(error.map { "\($0)" } == "bad input; note: in the pass 'fail'")
    #expect(folder.names() == [])
    // A folder that cannot be written does not hide the error.
    context.workFolder = folder.path("missing")
    let defect = #expect(throws: CompileError.self) {
      try PassManager().run(try pipeline("fail"), on: &model, &context)
    }
    #expect(defect?.message == "a defect")
    #expect(defect?.notes.last?.hasPrefix("no reproducer could be written") == true)
  }

  @Test func registriesFindPassesAndDuplicates() {
    #expect(registry.names == ["rename-it", "to-tanh", "fail"])
    #expect(registry["fail"] != nil && registry["none"] == nil)
    #expect(registry.duplicateNames == [])
    #expect(registry.adding(PassRegistry([Fail.self])).duplicateNames == ["fail"])
  }

  @Test func rewriteLimitHoldsOverPasses() throws {
    var model = try Parser.parse(
      "model @m { func @f(%x: f32[4]) -> (z) { %a = exp(%x) %z = exp(%a) return %z } }")
    var context = PassContext()
    context.rewriteLimit = 1
    let reports = try PassManager().run(try pipeline("to-tanh,to-tanh,rename-it{suffix=x}"), on: &model, &context)
    #expect(reports.map(\.hasChanged) == [true, false, true])
    let graph = model.functions[0]
    #expect(graph.topologicalOrder().map { graph[$0].op.name } == ["tanh", "exp"])
  }
}
