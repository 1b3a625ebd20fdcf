import Glibc

/// Parts of paths, and paths of archives as a text names them: relative to the folder of the text.
package enum ArchivePath {
  /// The path of `file` seen from `folder`; the absolute path where the folder does not exist.
  package static func relative(_ file: String, to folder: String) -> String {
    guard let file = resolve(file), let folder = resolve(folder.isEmpty ? "." : folder) else { return file }
    let parts = file.split(separator: "/")
    let base = folder.split(separator: "/")
    var shared = 0
    while shared < base.count, shared < parts.count - 1, parts[shared] == base[shared] { shared += 1 }
    // Nothing in common but the root: the absolute path says more than a row of dots.
    if shared == 0, !base.isEmpty { return file }
    return ([Substring](repeating: "..", count: base.count - shared) + parts[shared...]).joined(separator: "/")
  }

  /// The path of an archive that a text in `folder` names.
  package static func absolute(_ path: String, in folder: String?) -> String {
    guard let folder, !path.hasPrefix("/"), !folder.isEmpty, folder != "." else { return path }
    return folder.hasSuffix("/") ? folder + path : folder + "/" + path
  }

  /// The folder of a file; `.` for a bare name.
  package static func folder(of file: String) -> String {
    guard let slash = file.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == file.startIndex ? "/" : String(file[..<slash])
  }

  /// The last part of a path.
  package static func name(of path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

  /// The path without links and dots; nil if nothing is there.
  private static func resolve(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(validatingCString: resolved)
  }
}
