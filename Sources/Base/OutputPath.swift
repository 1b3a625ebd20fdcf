import Glibc

/// Looks at the place of an output before the work for it begins.
package enum OutputPath {
  /// Checks that a file can be created at `path`, or replaced; nothing is left behind.
  ///
  /// - Throws: `CompileError` of kind `.create` if not.
  package static func check(file path: String) throws {
    var status = stat()
    // A device or a pipe is not opened before there is something to write: its reader would see an end.
    if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG, status.st_mode & S_IFMT != S_IFDIR {
      guard access(path, W_OK) == 0 else {
        throw CompileError(.create, "cannot create '\(path)': \(describeErrno(errno))")
      }
      return
    }
    try AtomicFile(path: path).discard()
  }

  /// Checks that files can be created in the folder `path`, which may have to be made, with its parents if
  /// `makesParents`.
  ///
  /// - Throws: `CompileError` of kind `.create` if not.
  package static func check(folder path: String, makesParents: Bool) throws {
    func failure(_ reason: String) -> CompileError {
      CompileError(.create, "cannot create the folder '\(path)': \(reason)")
    }
    guard !path.isEmpty, !path.utf8.contains(0) else { throw failure("this is no file name") }
    var place = Substring(path)
    var status = stat()
    while stat(String(place), &status) != 0 {
      guard errno == ENOENT, makesParents || place.count == path.count else { throw failure(describeErrno(errno)) }
      while place.count > 1, place.last == "/" { place.removeLast() }
      let end = place.lastIndex(of: "/")
      place = end.map { $0 == place.startIndex ? "/" : place[..<$0] } ?? "."
    }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw failure(place.count == path.count ? "it is no folder" : "'\(place)' is no folder")
    }
    guard access(String(place), W_OK | X_OK) == 0 else { throw failure(describeErrno(errno)) }
  }
}
