import Base
import Tensors

/// How far a model has come on the way from checkpoint to program.
package enum Stage: String, Hashable, Codable, Sendable, CaseIterable, Comparable {
  case `import`, simplify, transform, lower, schedule, emit, build

  /// The position among all stages, from 1.
  package var number: Int { (Self.allCases.firstIndex(of: self) ?? 0) + 1 }

  /// Whether a model of this stage has a text form that parses back.
  package var hasText: Bool { self <= .lower }

  package static func < (left: Stage, right: Stage) -> Bool { left.number < right.number }
}

/// A named asset of a model.
package struct NamedAsset: Hashable, Sendable {
  package var name: String
  package var asset: Asset

  package init(name: String, asset: Asset) {
    self.name = name
    self.asset = asset
  }
}

/// A neural network: functions over shared constants, with what else it needs.
package struct Model: Sendable {
  package var name: String
  package var stage: Stage
  package var functions: [Graph] = []
  package var constants = ConstantTable()
  package var archives: [Archive] = []
  package var assets: [NamedAsset] = []
  /// Facts for inspection and the manifest, such as `architecture` or `source.sha256`; in a fixed order.
  package var metadata: [Entry] = []

  /// A line of metadata.
  package struct Entry: Hashable, Sendable {
    package var key: String
    package var value: String

    package init(key: String, value: String) {
      self.key = key
      self.value = value
    }
  }

  package init(name: String, stage: Stage = .import) {
    self.name = name
    self.stage = stage
  }

  /// The metadata under `key`; setting nil removes it.
  package subscript(metadata key: String) -> String? {
    get { metadata.first { $0.key == key }?.value }
    set {
      let index = metadata.firstIndex { $0.key == key }
      switch (index, newValue) {
      case (let index?, let value?): metadata[index].value = value
      case (let index?, nil): metadata.remove(at: index)
      case (nil, let value?): metadata.append(Entry(key: key, value: value))
      case (nil, nil): break
      }
    }
  }

  /// The key of metadata that an importer tells the user about.
  package static let noteKey = "note"

  /// Adds sentences that an importer tells the user; keys of metadata occur once, so all of them are one text.
  package mutating func add(notes: [String]) {
    let all = (self[metadata: Self.noteKey].map { [$0] } ?? []) + notes
    if !all.isEmpty { self[metadata: Self.noteKey] = all.joined(separator: "; ") }
  }

  /// The tokenizer, if there is one.
  package var tokenizer: Tokenizer? {
    for named in assets { if case .tokenizer(let tokenizer) = named.asset { return tokenizer } }
    return nil
  }

  /// The generation settings, if there are any.
  package var generation: GenerationSettings? {
    for named in assets { if case .generation(let settings) = named.asset { return settings } }
    return nil
  }

  /// The function with that role.
  package func function(role: String) -> Graph? { functions.first { $0.role == role } }

  /// The index of the archive for a file, added if it is new.
  package mutating func addArchive(_ file: MappedFile) -> Int {
    if let index = archives.firstIndex(where: { $0.file.path == file.path }) { return index }
    archives.append(Archive(name: archives.isEmpty ? "w" : "w\(archives.count)", file: file))
    return archives.count - 1
  }

  /// The bytes of a constant that lies in an archive or inline; nil for made-up ones.
  package func withBytes<Result>(
    of id: ConstantID, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result? {
    switch constants[id].source {
    case .archive(let archive, let range): return try body(try archives[archive].file.slice(range))
    case .inline(let bytes): return try bytes.withUnsafeBytes { try body($0) }
    case .splat, .random: return nil
    }
  }

  /// Brings every function into canonical order and drops constants that nothing refers to.
  package mutating func compact() {
    var table = ConstantTable()
    var map: [ConstantID: ConstantID] = [:]
    for index in functions.indices {
      functions[index].compact()
      for value in functions[index].valueIDs {
        if let id = functions[index].constant(of: value), map[id] == nil { map[id] = table.insert(constants[id]) }
      }
      functions[index].renumberConstants { map[$0] ?? $0 }
    }
    constants = table
  }
}

extension Model: Equatable {
  package static func == (left: Model, right: Model) -> Bool {
    left.name == right.name && left.stage == right.stage && left.functions == right.functions
      && left.constants == right.constants && left.archives == right.archives && left.assets == right.assets
      && left.metadata == right.metadata
  }
}
