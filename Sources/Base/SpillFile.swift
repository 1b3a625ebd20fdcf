import Glibc

/// A file for data that is made piece by piece and then mapped, such as new weights.
///
/// A file of a path of its own stays; one without goes away with the mapping. `add` is for one thread at a time.
package final class SpillFile {
  private let file: AtomicFile
  /// The folder made for the file; nil for a file that stays.
  private let folder: String?

  /// Begins the file at `path`, or, without one, a file called `name` under `parent`, which is `TMPDIR` or `/tmp` unless given.
  ///
  /// - Throws: `CompileError` of kind `.create` if it cannot be made.
  package init(path: String? = nil, name: String, in parent: String? = nil) throws {
    if let path {
      folder = nil
      file = try AtomicFile(path: path)
      return
    }
    let given = getenv("TMPDIR").map { String(cString: $0) } ?? ""
    let parent = parent ?? (given.isEmpty ? "/tmp" : given)
    var template = Array((parent + "/.mcc-XXXXXX").utf8CString)
    guard mkdtemp(&template) != nil else {
      throw CompileError(.create, "cannot create a temporary folder in '\(parent)': \(describeErrno(errno))")
    }
    let made = template.withUnsafeBytes { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    folder = made
    // A name may have 255 bytes, and none is a path.
    let short = String(
      decoding: name.utf8.prefix(200).map { $0 == UInt8(ascii: "/") ? UInt8(ascii: "_") : $0 }, as: UTF8.self)
    file = try AtomicFile(path: made + "/" + short, permissions: 0o600)
  }

  deinit {
    file.discard()
    remove()
  }

  /// Writes bytes at a multiple of 64.
  ///
  /// - Returns: their place.
  package func add(_ bytes: UnsafeRawBufferPointer) throws -> Range<Int> {
    try file.pad(to: 64)
    let start = file.offset
    try file.append(bytes)
    return start..<file.offset
  }

  /// Ends the file and maps it; nothing can be added afterwards.
  package func finish() throws -> MappedFile {
    try file.commit()
    defer { remove() }
    return try MappedFile(path: file.path)
  }

  private func remove() {
    guard let folder else { return }
    unlink(file.path)
    rmdir(folder)
  }
}
