import Base
import IR

/// An operator as an attribute of another one: `{matmul = {transposeB = true}}`.
package struct NestedOperator: Hashable, Codable, Sendable {
  package var op: any Operator

  package init(_ op: any Operator) { self.op = op }

  package static func == (left: Self, right: Self) -> Bool { left.op.isEqual(to: right.op) }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(op.name)
    op.hash(into: &hasher)
  }

  private struct Key: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }

    init(stringValue: String) { self.stringValue = stringValue }

    init?(intValue: Int) { nil }
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Key.self)
    guard let key = container.allKeys.first, container.allKeys.count == 1 else {
      throw CompileError(.input, "found \(container.allKeys.count) operators, expected one")
    }
    func decode<Op: Operator>(_ type: Op.Type) throws -> any Operator { try container.decode(type, forKey: key) }
    op = try decode(try LoweringRegistry.nested.type(named: key.stringValue))
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    func encode<Op: Operator>(_ op: Op) throws { try container.encode(op, forKey: Key(stringValue: op.name)) }
    try encode(op)
  }
}
