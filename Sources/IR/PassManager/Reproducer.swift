import Base

/// A file that shows a failure: the model before a pass, and the passes that were to run, in its first line.
package enum Reproducer {
  /// What stands before the pipeline.
  package static let prefix = "// PIPELINE: "

  /// Writes `<model>.repro.mir` into `folder` and returns its path.
  package static func write(_ model: Model, _ pipeline: Pipeline, into folder: String) throws -> String {
    let path = "\(folder)/\(GraphBuilder.valueName(model.name)).repro.mir"
    let text = try Printer.print(model, relativeTo: folder)
    let file = try AtomicFile(path: path)
    try file.append("\(prefix)\(pipeline)\n\(text)")
    try file.commit()
    return path
  }

  /// The pipeline in the first line of a text; nil if there is none.
  package static func pipeline(of text: String) -> String? {
    guard text.hasPrefix(prefix) else { return nil }
    return String(text.dropFirst(prefix.count).prefix { $0 != "\n" })
  }
}
