import Base
import CodeGen
import IR
import Tensors

/// Turns text into token ids with the tokenizer of generated programs: a program is compiled that has no more than it.
struct TokenizerProgram {
  /// Bytes of text that are given to the program at a time.
  private static let pieceBytes = 1 << 17

  private let folder: WorkFolder
  private let path: String

  /// Compiles the program.
  ///
  /// - Throws: `CompileError` of kind `.toolchain` without a C compiler.
  init(_ tokenizer: Tokenizer, vocabulary: Int) async throws {
    let length = Symbol("T", in: 1...2)
    var builder = GraphBuilder(name: "encode", role: "encode", symbols: [length])
    let tokens = builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    builder.output("output", try builder.emit(Cast(.f32), tokens))
    var model = Model(name: "tokens", stage: .transform)
    model.functions = [builder.graph]
    model.assets = [NamedAsset(name: "tokenizer", asset: .tokenizer(tokenizer))]
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model.compact()
    folder = try WorkFolder()
    path = folder.file("tokens")
    let text = folder.file("tokens.mir")
    try AtomicFile.write(try Printer.print(model, relativeTo: folder.path), to: text)
    var options = CompileOptions()
    options.output = path
    var compiler = Compiler(options)
    _ = try await compiler.compile(text)
  }

  /// The ids of a text file without those that the tokenizer puts before and behind a text, until there are `most`.
  func ids(of file: String, most: Int) async throws -> [Int32] {
    let text = try MappedFile.text(path: file)
    var ids: [Int32] = []
    var rest = text[...]
    while !rest.isEmpty, ids.count < most {
      let piece = Self.head(of: rest)
      rest = rest[piece.endIndex...]
      ids += try await self.ids(Array(piece))
    }
    return Array(ids.prefix(most))
  }

  /// The ids of each line of a text file that has any, likewise, until there are `most` of all together.
  func lines(of file: String, most: Int) async throws -> [[Int32]] {
    let text = try MappedFile.text(path: file)
    var lines: [[Int32]] = []
    var (rest, count) = (text[...], 0)
    while !rest.isEmpty, count < most {
      let piece = Self.head(of: rest, at: [UInt8(ascii: "\n")])
      rest = rest[piece.endIndex...]
      for line in try await answer(Array(piece), []).split(separator: "\n") where count < most {
        let ids = line.split(separator: " ").compactMap { Int32($0) }.prefix(most - count)
        if !ids.isEmpty { lines.append(Array(ids)) }
        count += ids.count
      }
    }
    return lines
  }

  /// The first part of a text, up to a space or a line if it is longer than a piece.
  private static func head(
    of text: ArraySlice<UInt8>, at ends: [UInt8] = [UInt8(ascii: " "), UInt8(ascii: "\n")]
  ) -> ArraySlice<UInt8> {
    guard text.count > pieceBytes else { return text }
    let head = text.prefix(pieceBytes)
    guard let end = head.lastIndex(where: { ends.contains($0) }), end > head.startIndex else { return head }
    return text[text.startIndex..<end]
  }

  private func ids(_ text: [UInt8]) async throws -> [Int32] {
    try await answer(text, ["--zero"]).split { $0 == " " || $0 == "\n" }.compactMap { Int32($0) }
  }

  /// The ids of texts, a line for each.
  private func answer(_ text: [UInt8], _ options: [String]) async throws -> String {
    let file = folder.file("text")
    try AtomicFile.write(text, to: file)
    let answer = try await ChildProcess.run(path, ["tokens", "--plain", "--file", file] + options)
    return try answer.printed(by: "the tokenizer")
  }
}
