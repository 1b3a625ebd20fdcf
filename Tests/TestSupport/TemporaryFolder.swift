import Base
import Glibc

/// A new folder that is removed, with all in it, when the object goes away.
package final class TemporaryFolder: Sendable {
  /// The absolute path.
  package let path: String

  package init() throws {
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(parent)/mcc-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      throw CompileError(.create, "cannot create a temporary folder: \(describeErrno(errno))")
    }
    path = template.withUnsafeBytes { String(decoding: $0.dropLast(), as: UTF8.self) }
  }

  deinit { Self.remove(path) }

  /// The path of `name` in the folder.
  package func path(_ name: String) -> String { "\(path)/\(name)" }

  /// Writes a file and gives its path.
  @discardableResult
  package func write(_ name: String, _ bytes: [UInt8]) throws -> String {
    guard let file = fopen(path(name), "wb") else {
      throw CompileError(.create, "cannot create '\(path(name))': \(describeErrno(errno))")
    }
    defer { fclose(file) }
    guard fwrite(bytes, 1, bytes.count, file) == bytes.count else {
      throw CompileError(.io, "cannot write '\(path(name))': \(describeErrno(errno))")
    }
    return path(name)
  }

  /// Writes a text file and gives its path.
  @discardableResult
  package func write(_ name: String, _ text: String) throws -> String { try write(name, Array(text.utf8)) }

  /// The names in the folder, hidden ones too, sorted.
  package func names() -> [String] { Self.names(in: path) }

  package static func names(in path: String) -> [String] { (try? namesInFolder(path)) ?? [] }

  private static func remove(_ path: String) {
    for name in names(in: path) {
      var status = stat()
      let inner = "\(path)/\(name)"
      if lstat(inner, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { remove(inner) } else { unlink(inner) }
    }
    rmdir(path)
  }
}
