import Base
import Tensors

/// In which basis a function keeps its states.
///
/// A pass that rotates or scales the rows of a cache changes what the state holds, though not what the function gives
/// from an empty one on. It notes so in the metadata: the rows lie multiplied by the numbers, then rotated by the
/// operator that are written there.
extension Model {
  private static func basisKey(_ state: String, _ function: String) -> String { "basis.\(function).\(state)" }
  private static func scalesKey(_ state: String, _ function: String) -> String { "scales.\(function).\(state)" }

  /// How the rows of a state of a function are rotated; nil if they are not.
  package func basis(ofState state: String, in function: String) -> Hadamard? {
    guard let text = self[metadata: Self.basisKey(state, function)],
      let attributes = try? AttributeDictionary(parsing: text), let defaults = try? AttributeCoder.encode(Hadamard())
    else { return nil }
    return try? AttributeCoder.decode(
      Hadamard.self, from: .dictionary(attributes), defaults: defaults, of: Hadamard.name)
  }

  /// What each number of a row of a state of a function is multiplied by; nil if it is not.
  package func scales(ofState state: String, in function: String) -> [Float]? {
    guard let text = self[metadata: Self.scalesKey(state, function)] else { return nil }
    let scales = text.split(separator: " ").compactMap { Float($0) }
    return scales.allSatisfy { $0 > 0 && $0.isFinite } ? scales : nil
  }

  /// How the rows of each state of a function lie.
  func bases(of graph: Graph) -> [StateBasis?] {
    graph.states.map { state in
      let name = graph[state.value].name
      let width = graph.type(of: state.value).shape.last.fixedValue
      let scales = scales(ofState: name, in: graph.name).flatMap { $0.count == width ? $0 : nil }
      let rotation = basis(ofState: name, in: graph.name)
      return scales == nil && rotation == nil ? nil : StateBasis(scales: scales, rotation: rotation)
    }
  }

  /// Notes that the rows of a state lie rotated.
  package mutating func setBasis(_ basis: Hadamard, ofState state: String, in function: String) throws {
    self[metadata: Self.basisKey(state, function)] = try AttributeCoder.attributes(of: basis).description
  }

  /// Notes that the rows of a state lie multiplied by positive numbers.
  package mutating func setScales(_ scales: [Float], ofState state: String, in function: String) {
    self[metadata: Self.scalesKey(state, function)] = scales.map(\.description).joined(separator: " ")
  }
}

/// How the rows of a state lie: multiplied by numbers, then rotated.
struct StateBasis: Hashable {
  var scales: [Float]?
  var rotation: Hadamard?

  /// Rows in f64 as they lie, of rows as they were imported, or with `back` the other way round.
  func changed(_ rows: Tensor, back: Bool) throws -> Tensor {
    if back { return scaled(try rotated(rows, rotation?.inverted), back: true) }
    return try rotated(scaled(rows, back: false), rotation)
  }

  private func rotated(_ rows: Tensor, _ rotation: Hadamard?) throws -> Tensor {
    guard let rotation else { return rows }
    let result = Tensor(rows.type)
    try rotation.evaluate([rows.view], into: [result.mutableView])
    return result
  }

  private func scaled(_ rows: Tensor, back: Bool) -> Tensor {
    guard let scales else { return rows }
    let numbers = rows.view.doubles.enumerated().map { index, number in
      let scale = Double(scales[index % scales.count])
      return back ? number / scale : number * scale
    }
    return Tensor(.f64, rows.view.sizes, numbers)
  }
}
