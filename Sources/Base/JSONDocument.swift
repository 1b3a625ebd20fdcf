/// A JSON file of which large arrays and objects stay text, to be read by a ``JSONCursor``.
package struct JSONDocument {
  /// The document; the arrays and objects that stay text are empty in it.
  package let root: JSONField
  private let file: MappedFile
  private let paths: [[String]]
  private let parts: [JSONPart?]

  /// Parses a file; what is under `paths`, keys from the root, stays text if it is an array or an object.
  ///
  /// - Throws: `CompileError` of kind `.input` with the byte offset.
  package init(_ file: MappedFile, leaving paths: [[String]]) throws {
    let (value, parts) = try withExtendedLifetime(file) {
      try JSON.parse(file.bytes, file: file.path, leaving: paths)
    }
    root = JSONField(value, file: file.path)
    self.file = file
    self.paths = paths
    self.parts = parts
  }

  /// A cursor before the array or object under one of the paths; nil if there is none.
  package func cursor(_ path: String...) -> JSONCursor? {
    guard let index = paths.firstIndex(of: path), let part = parts[index] else { return nil }
    return JSONCursor(file, part)
  }
}
