import Base

/// Passes in the order in which they run.
///
/// The text form lists names, with options that differ from the default in braces:
/// `canonicalize,fuse,rotate{kind=hadamard},quantize{spec=w4g32}`. White space is free.
package struct Pipeline: Sendable {
  package var passes: [any Pass]

  /// A pipeline of the given passes.
  package init(_ passes: [any Pass] = []) { self.passes = passes }

  /// Reads a pipeline.
  ///
  /// - Throws: `CompileError` of kind `.usage` that names an unknown pass or option and the nearest known one.
  package init(parsing text: String, registry: PassRegistry) throws {
    do {
      passes = try Self.parse(text, registry)
    } catch let error as CompileError {
      var error = error
      if error.kind == .input { error.kind = .usage }
      // A pipeline is one line, so that its columns are enough.
      let column = error.subject?.column.map { ", column \($0)" } ?? ""
      error.subject = .init(object: "pipeline '\(text.utf8.count > 400 ? "\(text.prefix(400))..." : text)'\(column)")
      throw error
    }
  }

  private static func parse(_ text: String, _ registry: PassRegistry) throws -> [any Pass] {
    var reader = try TokenReader(text)
    var passes: [any Pass] = []
    while !reader.isAtEnd {
      var name = try reader.word("the name of a pass")
      while try reader.take("-") { name += "-" + (try reader.word("the rest of the name of a pass")) }
      guard let type = registry[name] else {
        let suggestion = Base.suggestion(for: name, in: registry.names)
        throw CompileError(
          .usage, "unknown pass '\(name)'\(suggestion)",
          notes: ["passes are \(registry.names.joined(separator: ", "))"])
      }
      let options = reader.isNext("{") ? try reader.dictionary() : AttributeDictionary()
      passes.append(try decode(type, options))
      guard try reader.take(",") else { break }
      guard !reader.isAtEnd else { throw reader.unexpected("the name of a pass") }
    }
    guard reader.isAtEnd else { throw reader.unexpected("',' between passes") }
    return passes
  }

  private static func decode<P: Pass>(_ type: P.Type, _ options: AttributeDictionary) throws -> any Pass {
    try AttributeCoder.decode(
      type, from: .dictionary(options), defaults: try AttributeCoder.encode(type.init()), of: "pass '\(type.name)'")
  }

  /// The options of a pass with their values, in order of declaration.
  package static func options<P: Pass>(of pass: P) throws -> AttributeDictionary {
    try AttributeCoder.attributes(of: pass, defaults: try AttributeCoder.attributes(of: P()))
  }

  /// The text of one pass: its name, with the options that differ from the default.
  package static func text<P: Pass>(of pass: P) -> String {
    guard let options = try? options(of: pass), let standard = try? self.options(of: P()) else { return P.name }
    let changed = options.entries.filter { standard[$0.key] != $0.value }
    if changed.isEmpty { return P.name }
    var text = P.name + "{"
    for (index, entry) in changed.enumerated() {
      if index > 0 { text += "," }
      AttributeValue.printWord(entry.key, to: &text)
      text += "="
      entry.value.print(to: &text)
    }
    return text + "}"
  }
}

extension Pipeline: CustomStringConvertible {
  package var description: String { passes.map { Self.text(of: $0) }.joined(separator: ",") }
}
