import Base
import Glibc

/// Opens files that a model names: they must lie inside the model's folder.
enum ContainedFile {
  /// Whether a name is relative, without empty parts, `.`, `..`, backslashes and zero bytes.
  static func isPlainName(_ name: String) -> Bool {
    !name.utf8.contains(0) && !name.contains("\\")
      && name.split(separator: "/", omittingEmptySubsequences: false)
        .allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
  }

  /// Maps the file `name`, relative to `folder`.
  ///
  /// The name must be relative and without `..`; no part of it may be a symbolic link, and the file may have one name
  /// only, so that a model cannot make mcc read what lies outside its folder.
  ///
  /// - Throws: `CompileError` of kind `.input` that begins with `what`.
  static func open(_ name: String, in folder: String, named what: String) throws -> MappedFile {
    func failure(_ reason: String) -> CompileError { CompileError(.input, "\(what) at '\(name)' \(reason)") }
    guard isPlainName(name) else { throw failure("is not a plain name inside the model's folder") }
    let parts = name.split(separator: "/")
    var path = folder.isEmpty ? "." : folder
    for (index, part) in parts.enumerated() {
      path += (path.hasSuffix("/") ? "" : "/") + part
      var status = stat()
      guard lstat(path, &status) == 0 else { throw failure("does not exist") }
      let kind = status.st_mode & S_IFMT
      if kind == S_IFLNK { throw failure("is a symbolic link") }
      if index == parts.count - 1 {
        guard kind == S_IFREG else { throw failure("is not a regular file") }
        guard status.st_nlink == 1 else { throw failure("has more than one name (hard links)") }
      }
    }
    return try MappedFile(path: path)
  }
}
