import Base
import Glibc

/// A folder for files made on the way, such as C sources and objects; a temporary one goes away with the object.
package final class WorkFolder: Sendable {
  /// The path of the folder.
  package let path: String
  private let isTemporary: Bool

  /// A new folder under `TMPDIR` (or `/tmp`), removed with everything in it when the object goes away.
  ///
  /// - Throws: `CompileError` of kind `.create` if it cannot be made.
  package init() throws {
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? ""
    var template = Array(((parent.isEmpty ? "/tmp" : parent) + "/mcc-XXXXXX").utf8CString)
    guard mkdtemp(&template) != nil else {
      throw CompileError(.create, "cannot create a temporary folder: \(describeErrno(errno))")
    }
    path = template.withUnsafeBytes { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    isTemporary = true
  }

  /// The folder `path`, made with its parents if need be; it stays.
  ///
  /// - Throws: `CompileError` of kind `.create` if it cannot be made.
  package init(keepingAt path: String) throws {
    try Self.create(path)
    // Compilers run inside the folder, so its own path must not be relative.
    guard let absolute = realpath(path, nil) else {
      throw CompileError(.create, "cannot find folder '\(path)': \(describeErrno(errno))")
    }
    defer { free(absolute) }
    self.path = String(cString: absolute)
    isTemporary = false
  }

  deinit {
    if isTemporary { Self.remove(path) }
  }

  /// The path of a file in the folder.
  package func file(_ name: String) -> String { path + "/" + name }

  /// Makes a folder and its parents.
  ///
  /// - Throws: `CompileError` of kind `.create` if that is refused.
  package static func create(_ path: String) throws {
    var made = path.hasPrefix("/") ? "" : "."
    for part in path.split(separator: "/") {
      made += "/" + part
      var status = stat()
      if stat(made, &status) == 0 {
        guard status.st_mode & S_IFMT == S_IFDIR else {
          throw CompileError(.create, "cannot create folder '\(path)': '\(made)' is no folder")
        }
      } else if mkdir(made, 0o777) != 0, errno != EEXIST {
        throw CompileError(.create, "cannot create folder '\(path)': \(describeErrno(errno))")
      }
    }
  }

  /// The names in a folder, sorted; empty if it cannot be read.
  package static func names(in path: String) -> [String] { (try? namesInFolder(path)) ?? [] }

  /// Removes a file, or a folder with everything in it; links are not followed.
  package static func remove(_ path: String) {
    if unlink(path) == 0 { return }
    var status = stat()
    guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return }
    for name in names(in: path) { remove(path + "/" + name) }
    rmdir(path)
  }
}
