import Base
import IR
import Tensors

/// Where the recurrent weights `r[H, G * H]` of a layer lie: panels of `units` numbers of the state, each `[H][G][units]` f32, zeros
/// beyond the last one. A step thus reads each panel from front to back.
package struct RecurrenceLayout: Hashable, Sendable {
  /// The name of the packed layout.
  package static let name = "recurrence_f32"

  /// Size of the state, gates, and numbers of the state in a panel.
  package var hidden: Int
  package var gates: Int
  package var units: Int

  package init(hidden: Int, gates: Int, units: Int) {
    self.hidden = hidden
    self.gates = gates
    self.units = units
  }

  var panels: Int { (hidden + units - 1) / units }
  /// f32 numbers of a panel.
  var panelCount: Int { hidden * gates * units }

  /// The layout as an encoding of tensor types; every panel has columns of all rows, so that all of them count as one.
  package var packed: PackedLayout {
    PackedLayout(
      name: Self.name, rows: hidden, panelBytes: 4 * panels * panelCount, parameters: [hidden, gates, units])
  }

  /// The panels that a packed layout describes; nil if it is of another kind.
  package init?(_ layout: PackedLayout) {
    let numbers = layout.parameters
    guard layout.name == Self.name, numbers.count == 3, numbers.allSatisfy({ (1...(1 << 16)).contains($0) }),
      numbers[1] <= 4, numbers[2] <= 1 << 10
    else { return nil }
    self.init(hidden: numbers[0], gates: numbers[1], units: numbers[2])
    guard packed == layout else { return nil }
  }

  /// Fills the panels from all rows, in f32, f16 or bf16.
  func pack(_ view: TensorView, into bytes: UnsafeMutableRawBufferPointer) throws {
    let width = hidden * gates
    guard view.type.isDense, [.f32, .f16, .bf16].contains(view.type.element), view.sizes == [hidden, width] else {
      throw CompileError(
        .internal, "cannot pack \(view.type) into panels of recurrent weights of [\(hidden), \(width)]")
    }
    guard bytes.count >= 4 * panels * panelCount, let target = bytes.baseAddress,
      let source = view.bytes.baseAddress
    else { throw CompileError(.internal, "\(bytes.count) bytes for \(panels) panels of \(4 * panelCount) bytes") }
    let rowBytes = width * view.type.element.byteCount
    let row = UnsafeMutableBufferPointer<Float>.allocate(capacity: width)
    defer { row.deallocate() }
    for i in 0..<hidden {
      convertRow(
        UnsafeRawBufferPointer(start: source + i * rowBytes, count: rowBytes), view.type.element,
        into: UnsafeMutableRawBufferPointer(row), .f32)
      for panel in 0..<panels {
        for gate in 0..<gates {
          let start = panel * panelCount + (i * gates + gate) * units
          for unit in 0..<units {
            let column = panel * units + unit
            let value = column < hidden ? row[gate * hidden + column] : 0
            target.storeBytes(of: value, toByteOffset: 4 * (start + unit), as: Float.self)
          }
        }
      }
    }
  }
}
