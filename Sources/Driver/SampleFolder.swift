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
    let names = try namesInFolder(path, limit: Self.fileLimit + 1) { name in
      (name.hasSuffix(".npy") || name.hasSuffix(".npz")) && !Self.isFolder("\(path)/\(name)")
    }
    guard names.count <= Self.fileLimit else {
      throw CompileError(.input, "'\(path)' has more than \(Self.fileLimit) files of samples")
    }
    guard !names.isEmpty else { throw CompileError(.input, "the folder '\(path)' has no file .npy or .npz") }
    files = names.map { "\(path)/\($0)" }
  }

  /// Whether there is a folder at `path`.
  static func isFolder(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }
}
