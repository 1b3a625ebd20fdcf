import Base
import Tensors

/// Writes a model as text, in the form that ``Parser`` reads.
///
/// Nodes come in depth-first order from the outputs, each constant before its first use, every attribute is written. For
/// a compacted model, parsing the text gives an equal model.
package struct Printer {
  private var text = ""
  private let model: Model
  /// The attributes of operators with default values, by mnemonic.
  private var defaults: [String: AttributeDictionary] = [:]
  /// The texts of the attributes of operators that were printed before.
  private var attributeTexts: [OperatorKey: String] = [:]

  /// An operator by value.
  private struct OperatorKey: Hashable {
    let op: any Operator

    static func == (left: Self, right: Self) -> Bool { left.op.isEqual(to: right.op) }

    func hash(into hasher: inout Hasher) {
      hasher.combine(ObjectIdentifier(type(of: op)))
      op.hash(into: &hasher)
    }
  }

  private init(_ model: Model) { self.model = model }

  /// The text of a model. Paths of archives are written relative to `folder`, the one that the text is for; without, as
  /// they are.
  package static func print(_ model: Model, relativeTo folder: String? = nil) throws -> String {
    var printer = Printer(model)
    try printer.print(folder)
    return printer.text
  }

  /// The text of one function.
  package static func print(_ graph: Graph, of model: Model) throws -> String {
    var printer = Printer(model)
    try printer.print(graph)
    return printer.text
  }

  /// The text of one node, for traces and messages.
  package static func line(for node: NodeID, in graph: Graph) -> String {
    var printer = Printer(Model(name: ""))
    do {
      try printer.print(node, in: graph)
    } catch {
      printer.text += " (\(error))"
    }
    return printer.text
  }

  // MARK: Models

  private mutating func print(_ folder: String?) throws {
    text.reserveCapacity(4096 + 128 * model.functions.reduce(0) { $0 + $1.nodeSlots })
    text += "mcc_ir \(Parser.version) stage = \(model.stage.rawValue)\nmodel "
    print(name: model.name, "@")
    text += " {\n"
    for archive in model.archives {
      text += "  archive "
      print(name: archive.name, "@")
      text += " = "
      let path = folder.map { ArchivePath.relative(archive.file.path, to: $0) } ?? archive.file.path
      AttributeValue.printQuoted(path, to: &text)
      text += " {size = \(archive.file.size)}\n"
    }
    if !model.metadata.isEmpty {
      text += "  metadata {\n"
      for entry in model.metadata {
        text += "    "
        AttributeValue.printWord(entry.key, to: &text)
        text += " = "
        AttributeValue.printQuoted(entry.value, to: &text)
        text += ",\n"
      }
      text += "  }\n"
    }
    for function in model.functions {
      text += "\n"
      try print(function)
    }
    // Last, since a tokenizer has more lines than all the rest.
    for named in model.assets {
      text += "\n"
      try print(named)
    }
    text += "}\n"
  }

  private mutating func print(_ named: NamedAsset) throws {
    text += "  asset "
    print(name: named.name, "@")
    text += " = "
    switch named.asset {
    case .tokenizer(let tokenizer):
      text += "tokenizer "
      try print(lines: AttributeCoder.encode(tokenizer))
    case .generation(let settings):
      text += "generation "
      try print(lines: AttributeCoder.encode(settings))
    case .labels(let labels):
      text += "labels "
      try print(lines: AttributeCoder.encode(["labels": labels]))
    }
  }

  /// Prints a dictionary with one key per line and long lists over several.
  private mutating func print(lines value: AttributeValue) {
    guard case .dictionary(let dictionary) = value, !dictionary.isEmpty else {
      text += "{}\n"
      return
    }
    text += "{\n"
    for entry in dictionary.entries {
      text += "    "
      AttributeValue.printWord(entry.key, to: &text)
      text += " = "
      if case .array(let values) = entry.value, values.count > 16 {
        text += "[\n     "
        var column = 5
        for value in values {
          let item = value.description
          if column + item.utf8.count + 2 > 110 {
            text += "\n     "
            column = 5
          }
          text += " " + item + ","
          column += item.utf8.count + 2
        }
        text += "\n    ]"
      } else {
        entry.value.print(to: &text)
      }
      text += ",\n"
    }
    text += "  }\n"
  }

  // MARK: Functions

  private mutating func print(_ graph: Graph) throws {
    text += "  func "
    print(name: graph.name, "@")
    if let role = graph.role {
      text += " role = "
      AttributeValue.printWord(role, to: &text)
    }
    if let target = graph.target {
      text += " target = "
      AttributeValue.printWord(target, to: &text)
    }
    for symbol in graph.symbols where !AttributeValue.isBareWord(symbol.name) {
      throw CompileError(.internal, "the symbol '\(symbol.name)' of '@\(graph.name)' is no word")
    }
    if !graph.symbols.isEmpty {
      text += " <"
      for (index, symbol) in graph.symbols.enumerated() {
        text += "\(index > 0 ? ", " : "")\(symbol.name) in \(symbol.minimum)...\(symbol.maximum)"
      }
      text += ">"
    }
    print(parameters: graph)
    text += " {\n"
    var isPrinted = [Bool](repeating: false, count: graph.valueSlots)
    for node in graph.topologicalOrder() {
      for input in graph[node].inputs { print(constant: input, in: graph, &isPrinted) }
      text += "    "
      try print(node, in: graph)
      print(origin: graph[node].origin)
      text += "\n"
    }
    for output in graph.outputs { print(constant: output, in: graph, &isPrinted) }
    for state in graph.states { print(constant: state.update, in: graph, &isPrinted) }
    for state in graph.states where state.update != state.value {
      text += "    update "
      print(name: graph[state.value].name, "%")
      text += " = "
      print(name: graph[state.update].name, "%")
      text += "\n"
    }
    text += "    return"
    for (index, output) in graph.outputs.enumerated() {
      text += index > 0 ? ", " : " "
      print(name: graph[output].name, "%")
    }
    text += "\n  }\n"
  }

  /// Prints inputs, states and outputs, on one line if they fit.
  private mutating func print(parameters graph: Graph) {
    func list(_ ids: [ValueID]) -> [String] {
      ids.map { id in
        var part = Printer(Model(name: ""))
        part.print(name: graph[id].name, "%")
        part.text += ": "
        part.print(type: graph.type(of: id))
        return part.text
      }
    }
    let outputs = zip(graph.outputNames, graph.outputs).map { name, id in
      var part = Printer(Model(name: ""))
      AttributeValue.printWord(name, to: &part.text)
      part.text += ": "
      part.print(type: graph.type(of: id))
      return part.text
    }
    let inputs = list(graph.inputs)
    let states = list(graph.states.map(\.value))
    let length = (inputs + states + outputs).reduce(0) { $0 + $1.utf8.count + 2 }
    func group(_ items: [String]) -> String {
      if items.isEmpty || length <= 72 { return "(" + items.joined(separator: ", ") + ")" }
      return "(\n    " + items.joined(separator: ",\n    ") + "\n  )"
    }
    text += " " + group(inputs)
    if !states.isEmpty { text += " state" + group(states) }
    text += " -> " + group(outputs)
  }

  /// Prints a value that stands for a constant, unless that has been done.
  private mutating func print(constant value: ValueID, in graph: Graph, _ isPrinted: inout [Bool]) {
    guard let id = graph.constant(of: value), !isPrinted[Int(value.index)] else { return }
    isPrinted[Int(value.index)] = true
    let constant = model.constants[id]
    text += "    "
    print(name: graph[value].name, "%")
    text += " = constant "
    if case .archive(let archive, let range) = constant.source {
      print(name: model.archives[archive].name, "@")
      text += "["
      AttributeValue.printQuoted(constant.name, to: &text)
      text += ", \(range.lowerBound)..<\(range.upperBound)]"
    } else {
      if constant.name != graph[value].name {
        AttributeValue.printQuoted(constant.name, to: &text)
        text += " "
      }
      switch constant.source {
      case .archive: break
      case .inline(let bytes): text += ConstantText.elements(bytes, constant.type)
      case .splat(let bits): text += "splat(" + ConstantText.number(bits) + ")"
      case .random(let seed, let deviation):
        text += "random(seed = \(seed), deviation = \(ConstantText.number(deviation)))"
      }
    }
    text += " : "
    print(type: constant.type)
    text += "\n"
  }

  private mutating func print(_ id: NodeID, in graph: Graph) throws {
    let node = graph[id]
    for (index, result) in node.results.enumerated() {
      if index > 0 { text += ", " }
      print(name: graph[result].name, "%")
    }
    text += " = "
    text += node.op.name
    text += "("
    for (index, input) in node.inputs.enumerated() {
      if index > 0 { text += ", " }
      print(name: graph[input].name, "%")
    }
    text += ")"
    text += try attributeText(node.op)
    text += " : "
    for (index, result) in node.results.enumerated() {
      if index > 0 { text += ", " }
      print(type: graph.type(of: result))
    }
  }

  /// The attributes with a space before; nothing for operators without any.
  private mutating func attributeText<Op: Operator>(_ op: Op) throws -> String {
    if MemoryLayout<Op>.size == 0 { return "" }
    let key = OperatorKey(op: op)
    if let known = attributeTexts[key] { return known }
    let standard: AttributeDictionary
    if let known = defaults[Op.name] {
      standard = known
    } else {
      standard = try AttributeCoder.attributes(of: Op())
      defaults[Op.name] = standard
    }
    let attributes = try AttributeCoder.attributes(of: op, defaults: standard)
    let text = attributes.isEmpty ? "" : " \(attributes)"
    attributeTexts[key] = text
    return text
  }

  /// Prints an origin as a comment; a comment ends with its line, so control characters become spaces.
  private mutating func print(origin: Origin?) {
    guard let origin, !origin.text.isEmpty else { return }
    text += "  // "
    guard origin.text.utf8.contains(where: { $0 < 0x20 }) else {
      text += origin.text
      return
    }
    for scalar in origin.text.unicodeScalars { text.unicodeScalars.append(scalar.value < 0x20 ? " " : scalar) }
  }

  // MARK: Parts

  private mutating func print(name: String, _ sign: Character) {
    text.append(sign)
    if ByteClass.isName(name) {
      text += name
    } else {
      AttributeValue.printQuoted(name, to: &text)
    }
  }

  private mutating func print(type: TensorType) {
    text += type.element.rawValue
    text += "["
    for (index, dim) in type.shape.dims.enumerated() {
      if index > 0 { text += ", " }
      if let value = dim.fixedValue {
        text += String(value)
      } else if dim.offset == 0, dim.terms.count == 1, dim.terms[0].coefficient == 1,
        case .symbol(let symbol) = dim.terms[0].atom
      {
        text += symbol.name
      } else {
        text += dim.description
      }
    }
    text += "]"
    switch type.encoding {
    case .dense: break
    case .block(let format): text += " block<\(format.name)>"
    case .packed(let layout):
      text += " packed<"
      AttributeValue.printWord(layout.name, to: &text)
      for number in [layout.rows, layout.panelBytes] + layout.parameters { text += ", \(number)" }
      text += ">"
    }
  }
}
