import Base
import Tensors

/// Reads the text form of a model.
///
///     mcc_ir 1 stage = import
///     model @tiny {
///       archive @w = "model.safetensors" {size = 1044992}
///       func @main role = main <T in 1...128> (%tokens: i32[T]) -> (x: f32[T, 64]) {
///         %e = constant @w["model.embed_tokens.weight", 128..<65664] : bf16[512, 64]
///         %x = gather(%e, %tokens) {axis = 0} : bf16[T, 64]  // model.embed_tokens
///         ...
///         return %x
///       }
///     }
///
/// Types of results may be left out; where they are written, they are compared with the inferred ones.
package struct Parser {
  /// The version of the text form.
  package static let version = 1

  var reader: TokenReader
  let operators: OperatorRegistry
  let openArchive: (String) throws -> MappedFile
  var model = Model(name: "")
  /// The attributes of operators with default values, by mnemonic.
  var defaults: [String: AttributeValue] = [:]

  private init(
    _ text: String, _ file: String?, _ operators: OperatorRegistry,
    _ openArchive: @escaping (String) throws -> MappedFile
  ) throws {
    reader = try TokenReader(text, file: file)
    self.operators = operators
    self.openArchive = openArchive
  }

  /// Reads a model from text. Errors name `file`; archives are looked for in its folder.
  ///
  /// - Throws: `CompileError` of kind `.input` with line and column.
  package static func parse(
    _ text: String, file: String? = nil, operators: OperatorRegistry = .core
  ) throws -> Model {
    let folder = file.map(ArchivePath.folder(of:))
    var parser = try Parser(text, file, operators) { path in
      try MappedFile(path: ArchivePath.absolute(path, in: folder))
    }
    return try parser.parseFile()
  }

  /// Reads a model from a file.
  ///
  /// - Throws: `CompileError` of kind `.input`.
  package static func parse(contentsOf path: String, operators: OperatorRegistry = .core) throws -> Model {
    let file = try MappedFile(path: path)
    guard let text = withExtendedLifetime(file, { String(validating: file.bytes, as: UTF8.self) }) else {
      throw CompileError(.input, "the text is not valid UTF-8", subject: .init(file: path))
    }
    return try parse(text, file: path, operators: operators)
  }

  // MARK: Models

  private mutating func parseFile() throws -> Model {
    if try reader.take(word: "mcc_ir") {
      let token = reader.token
      let version = try reader.integer("the version of the text form")
      guard version == Self.version else {
        throw reader.lexer.failure(
          "found version \(version) of the text form, expected \(Self.version)", at: token.start)
      }
      try reader.expect(word: "stage")
      try reader.expect("=")
      model.stage = try stage()
    }
    try reader.expect(word: "model")
    guard reader.isNext(.symbol) else { throw reader.unexpected("'@' and the name of the model") }
    model.name = try reader.lexer.content(reader.token)
    try reader.lexer.advance()
    try reader.expect("{")
    while try !reader.take("}") {
      if reader.isNext(word: "func") {
        try function()
      } else if reader.isNext(word: "archive") {
        try archive()
      } else if reader.isNext(word: "asset") {
        try asset()
      } else if reader.isNext(word: "metadata") {
        try metadata()
      } else {
        throw reader.unexpected("'archive', 'asset', 'metadata', 'func' or '}'")
      }
    }
    guard reader.isAtEnd else { throw reader.unexpected("the end of the text") }
    return model
  }

  private mutating func stage() throws -> Stage {
    let token = reader.token
    let name = try reader.word("a stage")
    guard let stage = Stage(rawValue: name), stage.hasText else {
      let choices = Stage.allCases.filter(\.hasText).map(\.rawValue)
      throw reader.lexer.failure(
        "found the stage '\(name)', expected \(AttributeDecoder.list(choices, suggestionFor: .string(name)))",
        at: token.start)
    }
    return stage
  }

  private mutating func archive() throws {
    try reader.expect(word: "archive")
    let nameToken = reader.token
    let name = try reader.name(.symbol, "the name of an archive")
    guard !model.archives.contains(where: { $0.name == name }) else {
      throw reader.lexer.failure("two archives are named '@\(name)'", at: nameToken.start)
    }
    try reader.expect("=")
    let pathToken = reader.token
    let path = try reader.string("the path of an archive in quotes")
    var attributes = AttributeDictionary()
    if reader.isNext("{") { attributes = try reader.dictionary() }
    try locate(pathToken) {
      let facts = try AttributeCoder.decode(ArchiveFacts.self, from: .dictionary(attributes), of: "archive '@\(name)'")
      let file = try openArchive(path)
      if let size = facts.size, size != file.size {
        throw CompileError(
          .input, "archive '@\(name)' has \(file.size) bytes, expected \(size): the file has changed")
      }
      model.archives.append(Archive(name: name, file: file))
    }
  }

  private struct ArchiveFacts: Codable {
    var size: Int?
  }

  private mutating func asset() throws {
    try reader.expect(word: "asset")
    let nameToken = reader.token
    let name = try reader.name(.symbol, "the name of an asset")
    guard !model.assets.contains(where: { $0.name == name }) else {
      throw reader.lexer.failure("two assets are named '@\(name)'", at: nameToken.start)
    }
    try reader.expect("=")
    let kindToken = reader.token
    let kind = try reader.word("'tokenizer', 'generation' or 'labels'")
    let attributes = try reader.dictionary()
    try locate(kindToken) {
      let asset: Asset
      let owner = "asset '@\(name)'"
      switch kind {
      case "tokenizer":
        // The algorithm has no default.
        let standard = try AttributeCoder.attributes(of: Tokenizer(algorithm: .scoredBPE))
        let defaults = standard.entries.filter { $0.key != "algorithm" }.map { ($0.key, $0.value) }
        asset = .tokenizer(
          try AttributeCoder.decode(
            Tokenizer.self, from: .dictionary(attributes), defaults: .dictionary(.init(defaults)), of: owner))
      case "generation":
        asset = .generation(
          try AttributeCoder.decode(
            GenerationSettings.self, from: .dictionary(attributes),
            defaults: try AttributeCoder.encode(GenerationSettings()), of: owner))
      case "labels":
        let labels = try AttributeCoder.decode([String: [String]].self, from: .dictionary(attributes), of: owner)
        guard let names = labels["labels"], labels.count == 1 else {
          throw CompileError(.input, "\(owner) has other keys than 'labels'")
        }
        asset = .labels(names)
      default:
        throw CompileError(.input, "found the asset kind '\(kind)', expected one of tokenizer, generation, labels")
      }
      model.assets.append(NamedAsset(name: name, asset: asset))
    }
  }

  private mutating func metadata() throws {
    let token = reader.token
    try reader.expect(word: "metadata")
    for entry in try reader.dictionary().entries {
      guard case .string(let value) = entry.value else {
        throw reader.lexer.failure(
          "metadata '\(entry.key)' is \(entry.value.kind), expected a string", at: token.start)
      }
      guard model[metadata: entry.key] == nil else {
        throw reader.lexer.failure("metadata '\(entry.key)' stands twice", at: token.start)
      }
      model.metadata.append(.init(key: entry.key, value: value))
    }
  }

  /// Gives errors of `body` the place of `token`, and the kind `.input`, unless they have a place in the text.
  func locate<Result>(_ token: Lexer.Token, _ body: () throws -> Result) throws -> Result {
    do {
      return try body()
    } catch let error as CompileError {
      throw located(error, token)
    }
  }

  mutating func locate<Result>(_ token: Lexer.Token, mutating body: (inout Parser) throws -> Result) throws -> Result {
    do {
      return try body(&self)
    } catch let error as CompileError {
      throw located(error, token)
    }
  }

  private func located(_ error: CompileError, _ token: Lexer.Token) -> CompileError {
    var result = error
    var place = reader.lexer.place(at: token.start)
    if error.subject?.line != nil { return error }
    place.object = error.subject.map(\.description)
    result.subject = place
    return result
  }
}
