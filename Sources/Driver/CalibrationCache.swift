import Base
import CodeGen
import Glibc
import IR

/// A folder of results of passes on samples. Each is a file of its own: `magic`, the length of the facts, the facts as
/// JSON, the bytes, and a hash of all before it. A file that is damaged counts as missing.
package struct CalibrationCache: ResultCache {
  package let folder: String
  package let salt: String
  /// The largest sum of sizes that is kept, in bytes.
  private let limit: Int

  private static let magic = Array("mcc results 1\n\0\0".utf8)
  private static let suffix = ".results"

  package init(folder: String, limit: Int = 4 << 30) {
    self.folder = folder
    self.limit = limit
    // Another build may choose other codes.
    let program = (try? MappedFile(path: "/proc/self/exe"))?.identity
    salt = "\(Version.number) \(program.map { "\($0.size) \($0.modifiedNanoseconds)" } ?? "")"
  }

  /// The folder that `--calibration-cache` names (`none` for none), else one in `XDG_CACHE_HOME`, if that is set.
  package static func chosen(
    _ named: String?, environment: [String: String] = CCompiler.currentEnvironment()
  ) -> CalibrationCache? {
    if let named { return named == "none" ? nil : CalibrationCache(folder: named) }
    guard let cache = environment["XDG_CACHE_HOME"], cache.hasPrefix("/") else { return nil }
    return CalibrationCache(folder: cache + "/mcc/calibration")
  }

  /// Checks that results can be kept in the folder.
  ///
  /// - Throws: `CompileError` of kind `.create` if not.
  package func check() throws { try OutputPath.check(folder: folder, makesParents: true) }

  private func path(_ key: String) -> String { "\(folder)/\(key)\(Self.suffix)" }

  package func find(_ key: String) -> CachedResult? {
    guard let file = try? MappedFile(path: path(key)) else { return nil }
    let head = Self.magic.count + 8
    guard file.size >= head + 8, file.bytes.starts(with: Self.magic) else { return nil }
    func number(_ place: Int) -> UInt64 {
      UInt64(littleEndian: file.bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
    }
    func part(_ range: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: file.bytes[range]) }
    guard let length = Int(exactly: number(Self.magic.count)), length <= file.size - head - 8 else { return nil }
    let data = part(head + length..<file.size - 8)
    guard Self.sum(part(0..<head + length), data) == number(file.size - 8),
      let facts = try? JSON.parse(part(head..<head + length), file: path(key)), facts["key"]?.string == key
    else { return nil }
    utimensat(AT_FDCWD, path(key), nil, 0)
    return CachedResult(facts: facts, data: data, owner: file)
  }

  package func keep(_ result: CachedResult, under key: String) {
    var facts = result.facts.object ?? JSONObject()
    facts["key"] = .string(key)
    let text = JSON.object(facts).bytes()
    let head = Self.magic + withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text
    let sum = head.withUnsafeBytes { Self.sum($0, result.data) }
    do {
      try WorkFolder.create(folder)
      let file = try AtomicFile(path: path(key))
      try file.append(head)
      try file.append(result.data)
      try withUnsafeBytes(of: sum.littleEndian) { try file.append($0) }
      try file.commit()
    } catch {
      return
    }
    trim()
  }

  private static func sum(_ head: UnsafeRawBufferPointer, _ data: UnsafeRawBufferPointer) -> UInt64 {
    xxHash64(data, seed: xxHash64(head))
  }

  /// Removes the least recently used results until the rest is within the limit.
  private func trim() {
    var results: [(name: String, size: Int, used: Int)] = []
    for name in WorkFolder.names(in: folder) where name.hasSuffix(Self.suffix) {
      var status = stat()
      guard lstat(folder + "/" + name, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
      results.append((name, Int(status.st_size), Int(status.st_mtim.tv_sec)))
    }
    var total = results.reduce(0) { $0 + $1.size }
    for result in results.sorted(by: { ($0.used, $0.name) < ($1.used, $1.name) }) {
      if total <= limit { return }
      unlink(folder + "/" + result.name)
      total -= result.size
    }
  }
}
