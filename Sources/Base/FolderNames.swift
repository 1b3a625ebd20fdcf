import Glibc

/// The names in the folder at `path` that `isWanted` takes, hidden ones too, without `.` and `..`; no more than `limit` of
/// them, in ascending order of their bytes, which is the same under every locale.
///
/// - Throws: `CompileError` of kind `.io` if the folder cannot be read.
package func namesInFolder(
  _ path: String, limit: Int = .max, where isWanted: (String) -> Bool = { _ in true }
) throws -> [String] {
  guard let folder = opendir(path) else {
    throw CompileError(.io, "cannot read the folder '\(path)': \(describeErrno(errno))")
  }
  defer { closedir(folder) }
  var names: [String] = []
  while names.count < limit, let entry = readdir(folder) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    if name != ".", name != "..", isWanted(name) { names.append(name) }
  }
  return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
}
