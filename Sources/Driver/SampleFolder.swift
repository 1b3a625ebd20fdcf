import Base
import Glibc

/// A folder of samples: the files `.npy` and `.npz` in it, by name. Other files and inner folders are passed over.
struct SampleFolder {
  /// The most files that one may have.
  private static let fileLimit = 1 << 20

  /// The paths of the files.
  let files: [String]

  /// The folder at `path`; nil if there is something else.
  ///
  /// - Throws: `CompileError` of kind `.input` if it has no such files, or too many, `.io` if it cannot be read.
  init?(_ path: String) throws {
    guard Self.isFolder(path) else { return nil }
    guard let folder = opendir(path) else {
      throw CompileError(.io, "cannot read the folder '\(path)': \(describeErrno(errno))")
    }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      guard name.hasSuffix(".npy") || name.hasSuffix(".npz"), !Self.isFolder("\(path)/\(name)") else { continue }
      names.append(name)
      guard names.count <= Self.fileLimit else {
        throw CompileError(.input, "'\(path)' has more than \(Self.fileLimit) files of samples")
      }
    }
    guard !names.isEmpty else { throw CompileError(.input, "the folder '\(path)' has no file .npy or .npz") }
    // By bytes, so that the order is the same under every locale.
    names.sort { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    files = names.map { "\(path)/\($0)" }
  }

  /// Whether there is a folder at `path`.
  static func isFolder(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }
}
