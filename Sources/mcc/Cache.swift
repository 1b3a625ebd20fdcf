import ArgumentParser
import Base
import CodeGen
import Driver

/// `mcc cache`: the compiled objects kept between runs.
struct Cache: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows or empties the cache of compiled objects.", subcommands: [List.self, Clear.self])

  struct Folder: ParsableArguments {
    @Option(help: "The cache's folder. (default: mcc in XDG_CACHE_HOME or ~/.cache)")
    var cacheDir: String?

    func cache() throws -> ObjectCache {
      guard let folder = cacheDir ?? ObjectCache.defaultFolder() else {
        throw CompileError(.usage, "there is no home folder for the cache; name one with --cache-dir")
      }
      return ObjectCache(folder: folder)
    }
  }

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "Lists the cached objects.")

    @Flag(help: "Prints JSON.")
    var json = false

    @OptionGroup var folder: Folder

    func run() async throws {
      let cache = try folder.cache()
      let entries = cache.entries()
      let bytes = entries.reduce(0) { $0 + $1.size }
      if json {
        return printJSON([
          "folder": .string(cache.folder), "bytes": .int(bytes),
          "entries": .array(entries.map { ["name": .string($0.name), "bytes": .int($0.size)] }),
        ])
      }
      for entry in entries { Standard.output("\(entry.name)  \(Quantity.bytes(entry.size))") }
      Standard.output("\(entries.count) objects, \(Quantity.bytes(bytes)) in \(cache.folder)")
    }
  }

  struct Clear: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Removes the cached objects.")

    @OptionGroup var folder: Folder

    func run() async throws {
      let removed = try folder.cache().clear()
      Standard.output("removed \(removed.files) objects, \(Quantity.bytes(removed.bytes))")
    }
  }
}
