import Base
import Tensors

/// Keeps what passes computed on samples, by a hash of all that it follows from (``ResultKey``).
package protocol ResultCache: Sendable {
  /// What tells this build of the program from others, whose results may differ.
  var salt: String { get }

  /// What was kept under a key; nil if there is nothing, or nothing whole.
  func find(_ key: String) -> CachedResult?

  /// Keeps a result; that it cannot be kept is no error.
  func keep(_ result: CachedResult, under key: String)
}

/// A result of a pass: facts, and bytes that they speak of.
package struct CachedResult: @unchecked Sendable {
  package let facts: JSON
  package let data: UnsafeRawBufferPointer
  private let owner: AnyObject?

  /// A result whose bytes `owner` keeps.
  package init(facts: JSON, data: UnsafeRawBufferPointer = .init(start: nil, count: 0), owner: AnyObject? = nil) {
    self.facts = facts
    self.data = data
    self.owner = owner
  }
}

/// A hash of what the result of a pass on samples follows from: the pass with its options, the functions, the bytes of the
/// weights, and the samples themselves; not of the paths of files.
package struct ResultKey {
  /// Bytes of a file that are hashed at a time.
  private static let step = 16 << 20

  /// The hash, hexadecimal.
  package let text: String

  /// The key for `pass`, whose options that do not change the result have one value for all.
  package init(_ pass: some Pass, _ model: Model, _ samples: [[FunctionInputs]], _ salt: String) throws {
    var hash = SHA256()
    for text in [salt, Pipeline.text(of: pass)] { hash.update(field: text) }
    for graph in model.functions { hash.update(field: try Printer.print(graph, of: model)) }
    for archive in model.archives {
      hash.update(field: archive.name)
      Self.add(archive.file, to: &hash)
    }
    for runs in samples {
      for run in runs {
        for tensor in run.inputs + (run.states ?? []) {
          hash.update(field: "\(tensor.type)")
          hash.update(tensor.view.bytes)
        }
        for (name, size) in run.symbols.sorted(by: { $0.key < $1.key }) { hash.update(field: "\(name)=\(size)") }
        hash.update(field: "run")
      }
      hash.update(field: "function")
    }
    text = hash.hexDigest()
  }

  /// Adds the content of a file: two fast hashes of each part.
  private static func add(_ file: MappedFile, to hash: inout SHA256) {
    let parts: [[UInt64]] = parallelMap((file.size + step - 1) / step) { index in
      let range = index * step..<min(file.size, (index + 1) * step)
      let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[range])
      defer { file.release(range) }
      return [xxHash64(bytes), xxHash64(bytes, seed: 1)]
    }
    hash.update(field: "\(file.size)")
    for part in parts { part.withUnsafeBytes { hash.update($0) } }
  }
}
