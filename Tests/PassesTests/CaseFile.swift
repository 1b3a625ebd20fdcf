import Base
import IR
import Passes
import TestSupport

/// A file of cases: a model as text with what passes make of it as comments.
///
/// - `// RUN: pipeline` says which passes run; `// -----` begins another model, which goes by the last pipeline unless it
///   has its own.
/// - `// ERROR: text` says that reading or running fails with a message that holds `text`.
/// - `// KEEPS: rule, rule` before a function says that these rules are tried there and do nothing.
/// - Everything else is in ``FileCheck``.
struct CaseFile {
  /// A function that comes close to what rules look for.
  struct NearMiss {
    var function: String
    var rules: [String]
    var line: Int
  }

  struct Section {
    /// The whole file with the lines of other sections left blank, so that lines keep their numbers.
    var text: String
    var firstLine: Int
    var pipeline: String
    var errors: [String]
    var nearMisses: [NearMiss]
  }

  let name: String
  let sections: [Section]

  static let folder = Fixtures.packageRoot + "/Tests/PassesTests/Cases"

  init(_ name: String) throws {
    self.name = name
    let bytes = try MappedFile.contents(path: "\(Self.folder)/\(name)")
    let lines = String(decoding: bytes, as: UTF8.self)
      .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    var starts = [0]
    for (index, line) in lines.enumerated() where line.hasPrefix("// -----") { starts.append(index + 1) }
    var sections: [Section] = []
    var pipeline: String?
    for (index, start) in starts.enumerated() {
      let end = index + 1 < starts.count ? starts[index + 1] - 1 : lines.count
      let own = lines[start..<end]
      func directives(_ name: String) -> [String] {
        own.compactMap { line in
          guard let found = line.firstRange(of: "// \(name): ") else { return nil }
          return String(line[found.upperBound...])
        }
      }
      pipeline = directives("RUN").first ?? pipeline
      guard let pipeline else {
        throw FileCheck.Failure(line: start + 1, message: "no RUN line")
      }
      let text = lines.indices.map { own.indices.contains($0) ? lines[$0] : "" }.joined(separator: "\n")
      sections.append(
        Section(
          text: text, firstLine: start + 1, pipeline: pipeline, errors: directives("ERROR"),
          nearMisses: try Self.nearMisses(own)))
    }
    self.sections = sections
  }

  /// What the `KEEPS` lines of a section say of the functions that follow them.
  private static func nearMisses(_ lines: ArraySlice<String>) throws -> [NearMiss] {
    var result: [NearMiss] = []
    var waiting: (rules: [String], line: Int)?
    for (index, line) in zip(lines.indices, lines) {
      if let found = line.firstRange(of: "// KEEPS: ") {
        let rules = line[found.upperBound...].split(separator: ",").map { rule in
          String(rule.drop { $0 == " " })
        }
        waiting = ((waiting?.rules ?? []) + rules, index + 1)
      } else if let misses = waiting, let name = line.prefixMatch(of: /\s*func @([A-Za-z0-9_]+)/) {
        result.append(NearMiss(function: String(name.1), rules: misses.rules, line: misses.line))
        waiting = nil
      }
    }
    if let waiting { throw FileCheck.Failure(line: waiting.line, message: "no function follows") }
    return result
  }

  /// Runs the passes on a function alone: the names of the rules that fired, and the operators before and after.
  func run(_ miss: NearMiss, in section: Section) throws -> (counted: Set<String>, operators: [any Operator]) {
    var model = try Parser.parse(section.text, file: name)
    model.functions = model.functions.filter { $0.name == miss.function }
    func operators() -> [any Operator] { model.functions.flatMap { graph in graph.nodeIDs.map { graph[$0].op } } }
    let before = operators()
    var context = PassContext()
    let reports = try PassManager().run(Pipeline(parsing: section.pipeline, registry: .all), on: &model, &context)
    return (Set(reports.flatMap(\.counters).map(\.name)), before + operators())
  }

  /// Runs the passes of one section and compares; for exact passes also what the models compute.
  ///
  /// - Returns: the names of the rules that fired and of whatever else passes counted.
  @discardableResult
  func run(_ section: Section) throws -> Set<String> {
    let expectations = try FileCheck(parsing: section.text)
    guard !expectations.directives.isEmpty || !section.errors.isEmpty else {
      throw FileCheck.Failure(line: section.firstLine, message: "nothing is checked")
    }
    let before: Model
    let after: Model
    let isExact: Bool
    let counted: Set<String>
    do {
      before = try Parser.parse(section.text, file: name)
      var model = before
      let pipeline = try Pipeline(parsing: section.pipeline, registry: .all)
      var context = PassContext()
      let reports = try PassManager().run(pipeline, on: &model, &context)
      counted = Set(reports.flatMap(\.counters).map(\.name))
      after = model
      isExact = pipeline.passes.allSatisfy { $0.fidelity == .exact }
    } catch let error as CompileError {
      guard !section.errors.isEmpty else { throw error }
      for text in section.errors where !error.description.contains(text) {
        throw FileCheck.Failure(
          line: section.firstLine, message: "the error is '\(error)', expected it to hold '\(text)'")
      }
      return []
    }
    guard section.errors.isEmpty else {
      throw FileCheck.Failure(line: section.firstLine, message: "no error, expected '\(section.errors[0])'")
    }
    let text = try Printer.print(after)
    do {
      try expectations.verify(text)
    } catch let failure as FileCheck.Failure {
      throw FileCheck.Failure(line: failure.line, message: failure.message + "\n\(text)")
    }
    guard try Parser.parse(text) == after else {
      throw FileCheck.Failure(line: section.firstLine, message: "the result does not parse back\n\(text)")
    }
    if isExact { try compare(before, after, section) }
    return counted
  }

  /// Throws if a function gives other numbers than before.
  private func compare(_ before: Model, _ after: Model, _ section: Section) throws {
    for function in before.functions {
      let expected = Result { try SeededRun.outputs(of: before, function: function.name) }
      let found = Result { try SeededRun.outputs(of: after, function: function.name) }
      switch (expected, found) {
      case (.failure, .failure): continue
      case (.success(let expected), .success(let found)):
        let error = zip(found, expected).map { maxRelativeError($0, $1) }.max() ?? 0
        guard found.count == expected.count, error <= SeededRun.exactTolerance else {
          throw FileCheck.Failure(
            line: section.firstLine, message: "'@\(function.name)' gives other numbers: relative error \(error)")
        }
      case (.failure(let error), .success), (.success, .failure(let error)):
        throw FileCheck.Failure(
          line: section.firstLine, message: "'@\(function.name)' fails on one side only: \(error)")
      }
    }
  }
}
