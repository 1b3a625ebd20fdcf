import Base
import Glibc

/// Object files of earlier compilations, keyed by a hash of everything they depend on.
///
/// A cache that cannot be read or written is as good as an empty one: nothing here fails. Files appear whole by renaming,
/// so several compilers may share a cache. The least recently used files go when the cache grows beyond its limit.
package struct ObjectCache: Sendable {
  /// The folder of the whole cache; objects lie in `objects` in it.
  package var folder: String
  /// The largest sum of sizes that is kept, in bytes.
  package var limit: Int

  package init(folder: String, limit: Int = 512 << 20) {
    self.folder = folder
    self.limit = limit
  }

  /// `$XDG_CACHE_HOME/mcc`, else `~/.cache/mcc`; nil if there is neither.
  package static func defaultFolder(environment: [String: String] = CCompiler.currentEnvironment()) -> String? {
    if let cache = environment["XDG_CACHE_HOME"], cache.hasPrefix("/") { return cache + "/mcc" }
    if let home = environment["HOME"], home.hasPrefix("/") { return home + "/.cache/mcc" }
    return nil
  }

  /// A file of the cache.
  package struct Entry: Hashable, Sendable {
    /// The path relative to the folder of the cache.
    package var name: String
    /// Bytes.
    package var size: Int
    /// When it was last used, in seconds since 1970.
    package var used: Int
  }

  private func path(_ key: String) -> String { "\(folder)/objects/\(key.prefix(2))/\(key.dropFirst(2)).o" }

  /// The bytes kept under `key`, a hexadecimal hash.
  package func bytes(for key: String) -> [UInt8]? {
    let path = path(key)
    guard let bytes = try? MappedFile.contents(path: path), !bytes.isEmpty else { return nil }
    utimensat(AT_FDCWD, path, nil, 0)
    return bytes
  }

  /// Keeps bytes under `key`.
  package func store(_ bytes: [UInt8], for key: String) {
    do {
      try WorkFolder.create("\(folder)/objects/\(key.prefix(2))")
      try AtomicFile.write(bytes, to: path(key))
    } catch {
      return
    }
  }

  /// Everything in the cache, of whatever kind, sorted by name.
  package func entries() -> [Entry] {
    var entries: [Entry] = []
    func walk(_ relative: String) {
      for name in WorkFolder.names(in: folder + "/" + relative) {
        let child = relative.isEmpty ? name : relative + "/" + name
        var status = stat()
        guard lstat(folder + "/" + child, &status) == 0 else { continue }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: walk(child)
        case S_IFREG:
          entries.append(Entry(name: child, size: Int(status.st_size), used: Int(status.st_mtim.tv_sec)))
        default: continue
        }
      }
    }
    walk("")
    return entries
  }

  /// Removes the least recently used objects until the rest is within the limit.
  package func trim() {
    let objects = entries().filter { $0.name.hasPrefix("objects/") }
    var total = objects.reduce(0) { $0 + $1.size }
    guard total > limit else { return }
    for entry in objects.sorted(by: { ($0.used, $0.name) < ($1.used, $1.name) }) {
      if total <= limit { return }
      unlink(folder + "/" + entry.name)
      total -= entry.size
    }
  }

  /// Empties the cache.
  ///
  /// - Returns: the number of files removed and their bytes.
  @discardableResult
  package func clear() -> (files: Int, bytes: Int) {
    let entries = entries()
    for name in WorkFolder.names(in: folder) { WorkFolder.remove(folder + "/" + name) }
    return (entries.count, entries.reduce(0) { $0 + $1.size })
  }
}
