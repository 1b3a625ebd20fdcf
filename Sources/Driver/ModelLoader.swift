import Base
import CodeGen
import Formats
import IR

/// Reads checkpoints and text IR alike.
package enum ModelLoader {
  /// The operators of every stage.
  package static let operators = OperatorRegistry.core.adding(LoweringRegistry.operators)

  /// The model at `path`: a `.mir` file of any stage, or a checkpoint in a format of `FormatRegistry`.
  package static func load(_ path: String, _ options: LoadOptions = LoadOptions()) throws -> Model {
    if isText(path) { return try Parser.parse(contentsOf: path, operators: operators) }
    var model = try FormatRegistry.load(path, options)
    model.compact()
    try Verifier.verify(model)
    return model
  }

  /// Whether a file begins like text IR.
  package static func isText(_ path: String) -> Bool {
    guard let file = try? MappedFile(path: path) else { return false }
    let head = withExtendedLifetime(file) { String(decoding: file.bytes.prefix(4096), as: UTF8.self) }
    for line in head.split(separator: "\n") {
      let text = line.drop { $0 == " " || $0 == "\t" || $0 == "\r" }
      if text.isEmpty || text.hasPrefix("//") { continue }
      return text.hasPrefix("mcc_ir ") || text.hasPrefix("model @")
    }
    return false
  }
}
