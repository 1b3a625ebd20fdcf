import Base
import Glibc

/// A file or folder whose format is to be found.
package struct Candidate: Sendable {
  /// The path as it was given.
  package let path: String
  /// The mapped file; nil for a folder.
  package let file: MappedFile?

  /// Looks at `path`, which must be a folder or a readable file; symbolic links that the caller names are followed.
  package init(path: String) throws {
    guard !path.utf8.contains(0) else {
      throw CompileError(.input, "cannot read '\(path)': the name contains a zero byte")
    }
    var status = stat()
    if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
      var folder = path
      while folder.count > 1, folder.hasSuffix("/") { folder.removeLast() }
      self.path = folder
      file = nil
    } else {
      self.path = path
      file = try MappedFile(path: path)
    }
  }

  /// Whether it is a folder.
  package var isFolder: Bool { file == nil }

  /// The bytes of a file; empty for a folder.
  package var bytes: UnsafeRawBufferPointer { file?.bytes ?? UnsafeRawBufferPointer(start: nil, count: 0) }

  /// Whether there is nothing in it: no byte in a file, no name in a folder.
  package var isEmpty: Bool {
    guard isFolder else { return bytes.isEmpty }
    return (try? namesInFolder(path, limit: 1))?.isEmpty ?? false
  }

  /// The last part of the path without its extension, as a name for the model.
  package var modelName: String {
    var resolved = path
    if isFolder, path == "." || path == ".." || path.hasSuffix("/..") || path.hasSuffix("/."),
      let absolute = realpath(path, nil)
    {
      resolved = String(cString: absolute)
      free(absolute)
    }
    var name = resolved.split(separator: "/").last.map(String.init) ?? "model"
    if !isFolder, let dot = name.lastIndex(of: "."), dot != name.startIndex { name = String(name[..<dot]) }
    return name
  }

  /// Whether a folder has a file, or a link to one, of that name.
  package func contains(_ name: String) -> Bool {
    var status = stat()
    return isFolder && stat("\(path)/\(name)", &status) == 0 && status.st_mode & S_IFMT == S_IFREG
  }
}
