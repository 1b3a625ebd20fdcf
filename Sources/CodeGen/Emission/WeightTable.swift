import IR
import Tensors

/// How the weights are named in the C sources: members of a structure, with an array of structures for each row of layers.
struct WeightTable {
  /// The weights of one layer after the other.
  struct Row {
    /// The name of the array, such as `layers`.
    var name: String
    /// The name of the structure.
    var type: String
    var count: Int
    /// For each member its name and the weight of each layer.
    var members: [(name: String, weights: [Int])]
  }

  private(set) var rows: [Row] = []
  /// Weights that belong to no row, by number, with their names.
  private(set) var singles: [(name: String, weight: Int)] = []
  /// The C element type of each weight's pointer.
  private(set) var elements: [ScalarType]
  private var memberOf: [[Int]: (row: Int, member: String)] = [:]
  private var singleNames: [Int: String] = [:]

  init(_ schedule: Schedule) {
    elements = [ScalarType](repeating: .u8, count: schedule.weights.count)
    var hints = schedule.weights.map(\.name)
    var tuples: [(weights: [Int], count: Int)] = []
    var alone: [Int] = []
    for function in schedule.functions {
      for (index, step) in function.steps.enumerated() {
        let parameters = schedule.kernels[step.kernel].parameters
        let loop = function.loops.first { $0.steps.contains(index) }
        for (position, argument) in step.arguments.enumerated() {
          guard case .weight(let weight) = argument else { continue }
          if case .pointer(let pointer) = parameters[position] { elements[weight] = pointer.element }
          if Self.isMadeUp(schedule.weights[weight].name), let origin = step.origin?.text,
            hints[weight] == schedule.weights[weight].name
          {
            hints[weight] = "\(origin).\(parameters[position].name)"
          }
          guard let loop else {
            if !alone.contains(weight) { alone.append(weight) }
            continue
          }
          guard index < loop.start + loop.period else { continue }
          let weights = Self.weights(function, loop, step: index, argument: position)
          if Set(weights).count == 1 {
            if !alone.contains(weight) { alone.append(weight) }
          } else if !tuples.contains(where: { $0.weights == weights }) {
            tuples.append((weights, loop.count))
          }
        }
      }
    }
    var names = Identifiers(reserved: ["w", "t", "arena", "weights", "symbols"])
    var memberNames: [Identifiers] = []
    var bases: [String] = []
    for tuple in tuples {
      let common = Identifiers.common(tuple.weights.map { hints[$0] })
      let row: Int
      // Rows of one length whose names agree are one row, whichever function they come from.
      if let known = rows.indices.first(where: { index in
        rows[index].count == tuple.count && bases[index] == common.row ?? bases[index]
      }) {
        row = known
      } else {
        row = rows.count
        bases.append(common.row ?? "blocks")
        let name = names.unique(bases[row])
        rows.append(Row(name: name, type: Self.singular(name) + "_weights", count: tuple.count, members: []))
        memberNames.append(Identifiers())
      }
      let member = memberNames[row].unique(common.member)
      rows[row].members.append((member, tuple.weights))
      memberOf[tuple.weights] = (row, member)
    }
    for weight in alone {
      let name = names.unique(Identifiers.short(hints[weight]))
      singles.append((name, weight))
      singleNames[weight] = name
    }
  }

  /// The weights that an argument of a step has in the rounds of a loop.
  static func weights(_ function: Schedule.Function, _ loop: Schedule.Loop, step: Int, argument: Int) -> [Int] {
    (0..<loop.count).compactMap { round in
      let step = function.steps[loop.start + round * loop.period + (step - loop.start) % loop.period]
      if case .weight(let weight) = step.arguments[argument] { return weight }
      return nil
    }
  }

  /// The row and member for the weights of the rounds of a loop.
  func member(_ weights: [Int]) -> (row: Row, member: String)? { memberOf[weights].map { (rows[$0.row], $0.member) } }

  /// The member for a weight outside of rows.
  func single(_ weight: Int) -> String { singleNames[weight] ?? "v" }

  /// Whether an exporter made up the name of a constant that had none: `onnx::Conv_497`, `497`.
  private static func isMadeUp(_ name: String) -> Bool {
    name.hasPrefix("onnx::") || name.utf8.allSatisfy { $0 &- 0x30 < 10 }
  }

  private static func singular(_ name: String) -> String {
    name.hasSuffix("s") && name.count > 2 ? String(name.dropLast()) : name
  }
}
