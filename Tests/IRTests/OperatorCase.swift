import Base
import IR
import TestSupport
import Tensors
import Testing

/// An operator with inputs and the results it must give.
struct OperatorCase: Sendable, CustomTestStringConvertible {
  var op: any Operator
  var inputs: [Tensor]
  var outputs: [Tensor]

  init(_ op: any Operator, _ inputs: [Tensor], _ outputs: [Tensor]) {
    self.op = op
    self.inputs = inputs
    self.outputs = outputs
  }

  var testDescription: String {
    let attributes = (try? AttributeCoder.attributes(of: op))?.description ?? "?"
    return "\(op.name) \(attributes) of \(inputs.map { $0.type.description }.joined(separator: ", "))"
  }

  /// The cases computed by `Fixtures/operator_reference.py` and `Fixtures/sequence_reference.py`.
  static let recorded: [OperatorCase] = {
    do {
      return try ["operator", "sequence"].flatMap { name in
        let path = "\(Fixtures.packageRoot)/Tests/IRTests/Fixtures/\(name)_reference.json"
        return try JSONField(path: path).elements().map { try OperatorCase($0) }
      }
    } catch {
      Issue.record("the recorded cases cannot be read: \(error)")
      return []
    }
  }()

  private init(_ json: JSONField) throws {
    let type = try OperatorRegistry.core.type(named: json["operator"].string())
    op = try Self.decode(type, json["attributes"].string())
    inputs = try json["inputs"].elements().map(Self.tensor)
    outputs = try json["outputs"].elements().map(Self.tensor)
  }

  private static func decode<T: Operator>(_ type: T.Type, _ attributes: String) throws -> any Operator {
    try AttributeCoder.decode(
      type, from: .dictionary(try AttributeDictionary(parsing: attributes)), defaults: AttributeCoder.encode(T()),
      of: T.name)
  }

  private static func tensor(_ json: JSONField) throws -> Tensor {
    let element = try #require(DType(rawValue: try json["type"].string()))
    let values = try json["values"].elements().map { value in
      if let text = value.value?.string { return try #require(Double(text)) }
      return try value.double()
    }
    let tensor = Tensor(TensorType(.f64, try json["shape"].ints()))
    try #require(values.count == tensor.view.count)
    for (i, value) in values.enumerated() { tensor.mutableView.elements(as: Double.self)[i] = value }
    return tensor.converted(to: element)
  }
}

extension Tensor {
  /// The same numbers in another element type.
  func converted(to element: DType) -> Tensor {
    let result = Tensor(type.with(element: element))
    convertRow(view.bytes, type.element, into: result.mutableView.bytes, element)
    return result
  }

  /// All numbers of a dense tensor.
  var doubles: [Double] { converted(to: .f64).array(of: Double.self) }

  /// Some outermost rows of a tensor.
  func rows(_ range: Range<Int>) -> TensorView {
    let bytes = view.bytes.count / max(view.sizes[0], 1)
    var part = type
    part.shape[0] = .fixed(range.count)
    return TensorView(
      part, UnsafeRawBufferPointer(rebasing: view.bytes[(range.lowerBound * bytes)..<(range.upperBound * bytes)]))
  }

  static func f32(_ sizes: [Int], _ values: [Float]) -> Tensor { Tensor(.f32, sizes, values) }

  /// A position.
  static func i32(_ value: Int32) -> Tensor { Tensor(.i32, [1], [value]) }
}
