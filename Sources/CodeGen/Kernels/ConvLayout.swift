import Base
import IR
import Tensors

/// Where each weight of a convolution lies: panels of `panel` output channels of one group, each
/// `[kh * kw][C/groups][panel]` f32, zeros beyond the last output channel of a group.
package struct ConvLayout: Hashable, Sendable {
  /// The name of the packed layout.
  package static let name = "conv_f32"

  /// Output channels, and groups of them.
  package var rows: Int
  package var groups: Int
  /// Input channels of a group, and taps of the window.
  package var channels: Int
  package var taps: Int
  /// Output channels of a panel.
  package var panel: Int

  package init(rows: Int, groups: Int, channels: Int, taps: Int, panel: Int) {
    self.rows = rows
    self.groups = groups
    self.channels = channels
    self.taps = taps
    self.panel = panel
  }

  var depth: Int { channels * taps }
  var panelBytes: Int { 4 * depth * panel }
  var panelsPerGroup: Int { (rows / groups + panel - 1) / panel }

  /// The layout as an encoding of tensor types. With several groups a group counts as one panel.
  package var packed: PackedLayout {
    PackedLayout(
      name: Self.name, rows: groups == 1 ? panel : rows / groups,
      panelBytes: groups == 1 ? panelBytes : panelsPerGroup * panelBytes,
      parameters: [rows, groups, channels, taps, panel])
  }

  /// The panels that a packed layout describes; nil if it is of another kind.
  package init?(_ layout: PackedLayout) {
    let numbers = layout.parameters
    guard layout.name == Self.name, numbers.count == 5, numbers.allSatisfy({ (1...(1 << 30)).contains($0) }),
      numbers[0] % numbers[1] == 0
    else { return nil }
    self.init(rows: numbers[0], groups: numbers[1], channels: numbers[2], taps: numbers[3], panel: numbers[4])
    guard packed == layout else { return nil }
  }

  /// Fills whole panels (groups, where there are several) from consecutive output channels of `w[O, C/groups, kh, kw]` in f32,
  /// f16 or bf16, the first of which begins one.
  func pack(_ view: TensorView, into bytes: UnsafeMutableRawBufferPointer) throws {
    let isPlain = view.type.isDense && [.f32, .f16, .bf16].contains(view.type.element)
    guard isPlain, let count = view.sizes.first, view.sizes.dropFirst().reduce(1, *) == depth, view.sizes.count == 4,
      view.sizes[1] == channels
    else { throw CompileError(.internal, "cannot pack \(view.type) into panels of a convolution of depth \(depth)") }
    let perGroup = groups == 1 ? count : rows / groups
    let groupCount = perGroup == 0 ? 0 : (count + perGroup - 1) / perGroup
    let panels = (perGroup + panel - 1) / panel
    guard bytes.count >= groupCount * panels * panelBytes, let target = bytes.baseAddress,
      let source = view.bytes.baseAddress
    else {
      throw CompileError(.internal, "\(bytes.count) bytes for \(groupCount * panels) panels of \(panelBytes) bytes")
    }
    let rowBytes = depth * view.type.element.byteCount
    let row = UnsafeMutableBufferPointer<Float>.allocate(capacity: depth)
    defer { row.deallocate() }
    for group in 0..<groupCount {
      for index in 0..<(panels * panel) {
        let start = (group * panels + index / panel) * (depth * panel) + index % panel
        let output = group * perGroup + index
        if index < perGroup, output < count {
          convertRow(
            UnsafeRawBufferPointer(start: source + output * rowBytes, count: rowBytes), view.type.element,
            into: UnsafeMutableRawBufferPointer(row), .f32)
        } else {
          row.update(repeating: 0)
        }
        for tap in 0..<taps {
          for channel in 0..<channels {
            let place = start + (tap * channels + channel) * panel
            target.storeBytes(of: row[channel * taps + tap], toByteOffset: 4 * place, as: Float.self)
          }
        }
      }
    }
  }
}
