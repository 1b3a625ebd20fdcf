import Base
import CodeGen
import IR

/// A generated program that is judged; a model is compiled first.
struct EvaluatedProgram {
  /// What a program computes.
  enum Kind: Hashable {
    /// Logits of the next token.
    case languageModel
    /// A row of numbers for a text.
    case encoder
    /// Tensors from tensors.
    case network
  }

  /// The name that the user gave.
  let name: String
  let kind: Kind
  /// Bytes of weights with their scales, and of the tokenizer.
  let bytes: Int
  /// The most tokens of a text; 1 for networks.
  let context: Int
  /// The token that a text begins with; nil for none.
  let beginID: Int32?
  /// The names of the inputs of a network.
  let inputNames: [String]
  let manifest: JSON

  private let path: String
  /// Keeps the folder of a program that was made here.
  private let folder: WorkFolder?

  /// The program at `path`, or one that is compiled from the model there with `options`.
  init(_ path: String, _ options: FrontendOptions) async throws {
    name = path
    if ModelEvaluation.isProgram(path) {
      folder = nil
      self.path = ChildProcess.path(of: path)
    } else {
      let folder = try WorkFolder()
      self.path = folder.file("program")
      self.folder = folder
      var compile = CompileOptions()
      compile.frontend = options
      try await compile.frontend.readTexts(for: path)
      compile.output = self.path
      var compiler = Compiler(compile)
      _ = try await compiler.compile(path)
    }
    let program = try ProgramFile(try MappedFile(path: self.path))
    manifest = try program.manifest()
    bytes = program.bytes(of: .weights).count + program.bytes(of: .tokenizer).count
    beginID = SettingsSection.beginID(of: program.bytes(of: .settings))
    context = manifest["metadata"]?["context"]?.string.flatMap { Int($0) } ?? 1
    let functions = manifest["functions"]?.array ?? []
    let roles = functions.compactMap { $0["role"]?.string }
    inputNames = (functions.first?["inputs"]?.array ?? []).compactMap { $0["name"]?.string }
    if roles.contains("cross") {
      throw CompileError(.unsupported, "'\(path)' answers a source; judging it is not supported")
    }
    kind = roles.contains("decode") ? .languageModel : inputNames == ["tokens"] ? .encoder : .network
  }

  /// What the program prints.
  ///
  /// - Throws: `CompileError` of kind `.check` with its first message if it fails.
  @discardableResult
  func run(_ arguments: [String]) async throws -> String {
    try await ChildProcess.run(path, arguments, outputLimit: 1 << 28).printed(by: "'\(name)'")
  }
}
