extension KernelFunction: CustomStringConvertible {
  /// The kernel in a form for people: one statement a line, verbs by name, vector types left out.
  package var description: String {
    let names = parameters.map { parameter -> String in
      switch parameter {
      case .pointer(let pointer): "\(pointer.name): \(pointer.isMutable ? "inout " : "")\(pointer.element.rawValue)*"
      case .symbol(let name): name
      }
    }
    return comment.map { "// \($0)\n" }.joined() + "kernel \(name)(\(names.joined(separator: ", "))) {\n"
      + body.map { $0.text(indent: "  ") }.joined() + "}\n"
  }
}

extension Statement {
  fileprivate func text(indent: String) -> String {
    let inner = indent + "  "
    switch self {
    case .comment(let text): return "\(indent)// \(text)\n"
    case .declare(let name, let value, let isMutable):
      return "\(indent)\(isMutable ? "var" : "let") \(name) = \(value)\n"
    case .assign(let name, _, let value): return "\(indent)\(name) = \(value)\n"
    case .array(let pointer, let count):
      return "\(indent)array \(pointer.name): \(pointer.element.rawValue)[\(count)]\n"
    case .derive(let pointer, let base, let offset):
      return "\(indent)pointer \(pointer.name): \(pointer.element.rawValue)* = \(base.name) + \(offset)\n"
    case .store(let pointer, let index, let value, let count):
      return "\(indent)\(pointer.name)[\(index)\(count.map { ", first \($0)" } ?? "")] = \(value)\n"
    case .loop(let name, let from, let to, let step, let body):
      return "\(indent)for \(name) in \(from) ..< \(to)\(step == 1 ? "" : " by \(step)") {\n"
        + body.map { $0.text(indent: inner) }.joined() + "\(indent)}\n"
    case .condition(let condition, let then, let otherwise):
      let head = "\(indent)if \(condition) {\n" + then.map { $0.text(indent: inner) }.joined() + "\(indent)}"
      if otherwise.isEmpty { return head + "\n" }
      return head + " else {\n" + otherwise.map { $0.text(indent: inner) }.joined() + "\(indent)}\n"
    case .prefetch(let pointer, let index): return "\(indent)prefetch \(pointer.name)[\(index)]\n"
    case .partition(let begin, let end, let units): return "\(indent)partition \(begin) ..< \(end) of \(units)\n"
    case .share(let name, let units, let body):
      return "\(indent)share \(name) of \(units) {\n" + body.map { $0.text(indent: inner) }.joined() + "\(indent)}\n"
    case .meet: return "\(indent)meet\n"
    }
  }
}

extension Expression: CustomStringConvertible {
  /// Functional notation: `fma(a, broadcast(x[i]), load(w, k))`.
  package var description: String {
    switch self {
    case .integer(let value): "\(value)"
    case .real(let value): "\(value)"
    case .variable(let name, _): name
    case .element(let pointer, let index): "\(pointer.name)[\(index)]"
    case .load(let pointer, let index, let count):
      "load(\(pointer.name), \(index)\(count.map { ", first: \($0)" } ?? ""))"
    case .broadcast(let value): "broadcast(\(value))"
    case .repeated(let pointer, let index, let count): "repeat(\(pointer.name), \(index), first: \(count))"
    case .exchanged(let value, let distance): "exchange(\(value), \(distance))"
    case .laneNumbers: "lanes"
    case .lookup(let table, let places): "lookup(\(table), \(places))"
    case .unary(let operation, let value): "\(operation.rawValue)(\(value))"
    case .binary(let operation, let a, let b): "\(operation.rawValue)(\(a), \(b))"
    case .fma(let a, let b, let c): "fma(\(a), \(b), \(c))"
    case .compare(let comparison, let a, let b): "\(comparison.rawValue)(\(a), \(b))"
    case .select(let condition, let a, let b): "select(\(condition), \(a), \(b))"
    case .convert(let value, let type): "\(type.rawValue)(\(value))"
    case .reinterpret(let value, let lane): "bits_\(lane.rawValue)(\(value))"
    case .reduce(let reduction, let value): "reduce_\(reduction.rawValue)(\(value))"
    case .call(let function, let arguments):
      "\(function.rawValue)(\(arguments.map(\.description).joined(separator: ", ")))"
    case .dotStep(let dot, let sum, let weights, let activations):
      "dot_\(dot.name)(\(sum), \(weights), \(activations))"
    case .dotFlush(let dot, let sum, let partial): "flush_\(dot.name)(\(sum), \(partial))"
    case .dotArrange(let arrangement, let low, let high): "\(arrangement.rawValue)(\(low), \(high))"
    case .dotTokens(let first, let index, let second, let other):
      "dot_tokens(\(first.name)[\(index)], \(second.name)[\(other)])"
    }
  }
}
