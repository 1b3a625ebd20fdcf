import Base
import IR
import Tensors

/// Writes the C of a scheduled model: a structure of weights, and each function as a page of calls.
package struct ModelEmitter {
  private let schedule: Schedule
  private let model: Model
  private let targets: [Target]
  private let language: KernelLanguage
  private let compiler: String
  private let table: WeightTable

  /// An emitter for a model; the program reports `compiler`, such as `mcc 0.1.0`, as its maker.
  package init(
    _ schedule: Schedule, of model: Model, targets: [Target], kernels language: KernelLanguage = .c, compiler: String
  ) {
    self.schedule = schedule
    self.model = model
    self.targets = targets
    self.language = language
    self.compiler = compiler
    table = WeightTable(schedule)
  }

  /// How code for a target is compiled.
  private static func flags(_ target: Target) -> [String] { ["-std=gnu11", "-O3"] + target.compilerFlags }

  /// The sources and headers, with an identity that depends on them and on `salt`.
  package func sources(salt: String = "") throws -> GeneratedSources {
    var sources: [GeneratedSources.File] = []
    var headers: [GeneratedSources.File] = []
    for (level, target) in targets.enumerated() {
      let renderer = CRenderer(target: target)
      let kernels = zip(schedule.kernels, schedule.kernelLevels).filter { $0.1 == level }.map(\.0)
      for group in renderer.groups(kernels.sorted { $0.name < $1.name }) {
        let name = "kernels_\(sources.count)"
        switch language {
        case .c:
          let text = renderer.file(group, includes: ["\"mcc.h\""])
          sources.append(.init(name: name + ".c", text: text, flags: Self.flags(target)))
        case .swift:
          let file = SwiftRenderer(target: target).file(group, guardName: name.uppercased() + "_H")
          sources.append(
            .init(name: name + ".swift", text: file.source, flags: SwiftRenderer.compilerFlags(target: target)))
          headers.append(.init(name: name + ".h", text: file.header))
        }
      }
    }
    headers += [
      .init(name: "kernels.h", text: CRenderer(target: targets[0]).header(schedule.kernels)),
      .init(name: "model.h", text: self.header()),
    ]
    var hash = SHA256()
    for file in sources + headers { hash.update(field: file.text) }
    hash.update(field: try modelSource(identity: 0))
    hash.update(field: salt)
    let identity = hash.digest().prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let flags = Self.flags(targets.count == 1 ? targets[0] : .portable)
    sources.insert(.init(name: "model.c", text: try modelSource(identity: identity), flags: flags), at: 0)
    return GeneratedSources(
      sources: sources, headers: headers, identity: identity,
      face: face)
  }

  private var face: GeneratedSources.Face {
    if schedule.functions.contains(where: { $0.role == "decode" }) { return .languageModel }
    return encode == nil ? .network : .encoder
  }

  /// The function of an encoder over tokens.
  private var encode: Schedule.Function? {
    schedule.functions.first { $0.role == "encode" && $0.inputs.map(\.name) == ["tokens"] && $0.symbols.count == 1 }
  }

  // MARK: model.h

  private func header() -> String {
    var text = """
      /* The weights of \(Self.comment(model.name)). */
      #ifndef MODEL_H
      #define MODEL_H

      #include "kernels.h"


      """
    for row in table.rows {
      text += "/* One of \(row.count) \(row.name). */\ntypedef struct \(row.type) {\n"
      for (name, weights) in row.members { text += member(name, weights[0]) }
      text += "} \(row.type);\n\n"
    }
    text += "typedef struct model_weights {\n"
    for (name, weight) in table.singles { text += member(name, weight) }
    for row in table.rows { text += "  \(row.type) \(row.name)[\(row.count)];\n" }
    if table.singles.isEmpty && table.rows.isEmpty { text += "  char none;\n" }
    return text + "} model_weights;\n\n#endif\n"
  }

  private func member(_ name: String, _ weight: Int) -> String {
    let declaration = "  const \(CRenderer.cType(table.elements[weight])) *\(name);"
    let padding = String(repeating: " ", count: max(1, 44 - declaration.count))
    return declaration + padding + "/* \(Self.describe(schedule.weights[weight].type)) */\n"
  }

  /// The type, of a packed one what its layout is called.
  static func describe(_ type: TensorType) -> String {
    guard case .packed(let layout) = type.encoding else { return comment(type.description) }
    let panels = layout.rows == 1 ? "" : ", panels of \(layout.rows) rows"
    return "\(type.shape) \(comment(layout.name))\(panels)"
  }

  // MARK: model.c

  private func modelSource(identity: UInt64) throws -> String {
    var text = """
      /*
       * \(Self.comment(model.name)), compiled by \(compiler) for \(targets.map(\.name).joined(separator: ", ")).
       *
       * Each function is run by all threads at once: every kernel computes the thread's share, and mcc_barrier waits for
       * the others before a step that needs what they computed.
       */
      #include "model.h"


      """
    if !schedule.weights.isEmpty { text += weightsSource() }
    var descriptors = ""
    for function in schedule.functions {
      let body = FunctionEmitter(function, schedule, table, targets)
      text += body.source()
      descriptors += try body.descriptor()
    }
    text += descriptors
    text += "static const mcc_function functions[] = {\n"
    for function in schedule.functions { text += FunctionEmitter(function, schedule, table, targets).entry() }
    text += "};\n\n"
    var levels: [String] = []
    for target in targets {
      let features = target.features.map { Self.quoted(Self.builtinName(ofFeature: $0)) } + ["NULL"]
      text += Self.wrapped("static const char *const features_\(target.suffix)[] = {", features, "};\n")
      levels.append("{\(Self.quoted(target.name)), features_\(target.suffix)}")
    }
    text += Self.wrapped("static const mcc_level levels[] = {", levels, "};\n\n")
    text += "const mcc_program mcc_model = {\n"
    let figures = figures
    for (name, value) in [
      ("name", Self.quoted(model.name)), ("compiler", Self.quoted(compiler)),
      ("identity", "0x\(String(identity, radix: 16))u"), ("level_count", "\(targets.count)"),
      ("levels", "levels"),
      ("function_count", "\(schedule.functions.count)"), ("functions", "functions"),
      ("weights_bytes", "\(schedule.weightsBytes)"), ("arena_bytes", "\(schedule.arenaBytes)"),
      ("context", "\(figures.context)"), ("vocabulary", "\(figures.vocabulary)"),
      ("bytes_per_token", "\(figures.bytesPerToken)"),
      ("cache_bytes_per_position", "\(figures.cacheBytesPerPosition)"),
    ] { text += "    .\(name) = \(value),\n" }
    return text + "};\n"
  }

  /// Where the weights are: tables of offsets and the function that makes pointers of them.
  private func weightsSource() -> String {
    var text = ""
    for row in table.rows {
      text += "/* Bytes from the start of the weights to each tensor of each of the \(row.name). */\n"
      text += "static const int64_t \(row.name)_offsets[\(row.count)][\(row.members.count)] = {\n"
      for layer in 0..<row.count {
        let offsets = row.members.map { "\(schedule.weights[$0.weights[layer]].offset)" }
        text += Self.wrapped("    {", offsets, "},\n")
      }
      text += "};\n\n"
    }
    text += "static model_weights find_weights(const uint8_t *weights) {\n  model_weights w;\n"
    for (name, weight) in table.singles {
      text += "  w.\(name) = \(pointer(weight, "\(schedule.weights[weight].offset)"));\n"
    }
    for row in table.rows {
      text += "  for (int l = 0; l < \(row.count); l++) {\n"
      text += "    const int64_t *offsets = \(row.name)_offsets[l];\n"
      for (index, member) in row.members.enumerated() {
        text += "    w.\(row.name)[l].\(member.name) = \(pointer(member.weights[0], "offsets[\(index)]"));\n"
      }
      text += "  }\n"
    }
    return text + "  return w;\n}\n\n"
  }

  private func pointer(_ weight: Int, _ offset: String) -> String {
    let type = CRenderer.cType(table.elements[weight])
    return type == "uint8_t" ? "weights + \(offset)" : "(const \(type) *)(weights + \(offset))"
  }

  // MARK: Figures

  /// What the descriptor of a language model or an encoder tells about it.
  package var figures: (context: Int, vocabulary: Int, bytesPerToken: Int, cacheBytesPerPosition: Int) {
    if let encode {
      return (encode.symbols[0].maximum, model[metadata: "vocabulary"].flatMap { Int($0) } ?? 0, 0, 0)
    }
    guard let decode = schedule.functions.first(where: { $0.role == "decode" }) else { return (0, 0, 0, 0) }
    // States that do not grow leave the length of a text to the importer.
    let rows = model.function(role: "decode")?.cacheRows ?? model[metadata: "context"].flatMap { Int($0) } ?? 1 << 20
    let vocabulary = decode.outputs.first { $0.name == "logits" }.flatMap {
      decode.buffers[$0.buffer].type.shape.last.fixedValue
    }
    return (
      rows, vocabulary ?? 0,
      Int(decode.steps.reduce(0) { $0 + $1.work.weightBytes.value([:]) }.rounded()), schedule.cacheBytesPerToken ?? 0
    )
  }

  // MARK: Text

  /// How `__builtin_cpu_supports` spells a feature of /proc/cpuinfo.
  static func builtinName(ofFeature name: String) -> String {
    switch name {
    case "sse4_1": "sse4.1"
    case "sse4_2": "sse4.2"
    case "bmi1": "bmi"
    default: name.filter { $0 != "_" }
    }
  }

  static func quoted(_ text: String) -> String {
    var result = "\""
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "?"):
        result += "\\" + String(Unicode.Scalar(byte))
      case 0x20...0x7E: result += String(Unicode.Scalar(byte))
      default:
        let octal = String(byte, radix: 8)
        result += "\\" + String(repeating: "0", count: 3 - octal.count) + octal
      }
    }
    return result + "\""
  }

  /// Text that may stand in a comment.
  static func comment(_ text: String) -> String {
    String(text.unicodeScalars.map { $0.value < 0x20 || $0 == "*" || $0 == "\\" ? "_" : Character($0) })
  }

  /// `head a, b, c tail`, broken at 120 columns.
  static func wrapped(_ head: String, _ items: [String], _ tail: String) -> String {
    let indent = String(repeating: " ", count: head.prefix { $0 == " " }.count + 8)
    var text = head
    var column = head.count
    for (index, item) in items.enumerated() {
      let piece = item + (index == items.count - 1 ? "" : ",")
      if index > 0 {
        if column + 1 + piece.count + tail.count > 118 {
          text += "\n" + indent
          column = indent.count
        } else {
          text += " "
          column += 1
        }
      }
      text += piece
      column += piece.count
    }
    return text + tail
  }
}
