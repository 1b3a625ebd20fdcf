import Base
import IR
import Tensors

/// Where each transformed weight of a convolution by F(m x m, 3 x 3) lies: panels of `panel` output channels, each
/// `[(m + 2)^2][C][panel]` f32, zeros beyond the last output channel.
package struct WinogradLayout: Hashable, Sendable {
  /// The name of the packed layout.
  package static let name = "conv_winograd_f32"

  /// Output and input channels.
  package var rows: Int
  package var channels: Int
  /// Places of a tile along an axis.
  package var tile: Int
  /// Output channels of a panel.
  package var panel: Int

  package init(rows: Int, channels: Int, tile: Int, panel: Int) {
    self.rows = rows
    self.channels = channels
    self.tile = tile
    self.panel = panel
  }

  var products: Int { (tile + 2) * (tile + 2) }
  var panelBytes: Int { 4 * products * channels * panel }

  /// The layout as an encoding of tensor types.
  package var packed: PackedLayout {
    PackedLayout(name: Self.name, rows: panel, panelBytes: panelBytes, parameters: [rows, channels, tile, panel])
  }

  /// The panels that a packed layout describes; nil if it is of another kind.
  package init?(_ layout: PackedLayout) {
    let numbers = layout.parameters
    guard layout.name == Self.name, numbers.count == 4, numbers.allSatisfy({ (1...(1 << 24)).contains($0) }),
      numbers[2] == 2 || numbers[2] == 4
    else { return nil }
    self.init(rows: numbers[0], channels: numbers[1], tile: numbers[2], panel: numbers[3])
    guard packed == layout else { return nil }
  }

  /// Fills whole panels from consecutive output channels of `w[O, C, 3, 3]` in f32, f16 or bf16, the first of which begins one.
  func pack(_ view: TensorView, into bytes: UnsafeMutableRawBufferPointer) throws {
    let isPlain = view.type.isDense && [.f32, .f16, .bf16].contains(view.type.element)
    guard isPlain, view.sizes.count == 4, Array(view.sizes.dropFirst()) == [channels, 3, 3] else {
      throw CompileError(.internal, "cannot pack \(view.type) into panels of 3 x 3 weights of \(channels) channels")
    }
    let count = view.sizes[0], panels = (count + panel - 1) / panel
    guard bytes.count >= panels * panelBytes, let target = bytes.baseAddress, let source = view.bytes.baseAddress else {
      throw CompileError(.internal, "\(bytes.count) bytes for \(panels) panels of \(panelBytes) bytes")
    }
    let transform = WinogradTransform(tile: tile).weight.flatMap { $0 }
    let rowBytes = channels * 9 * view.type.element.byteCount
    let row = UnsafeMutableBufferPointer<Float>.allocate(capacity: channels * 9)
    defer { row.deallocate() }
    guard let taps = row.baseAddress else { return }
    for index in 0..<panels * panel {
      if index < count {
        convertRow(
          UnsafeRawBufferPointer(start: source + index * rowBytes, count: rowBytes), view.type.element,
          into: UnsafeMutableRawBufferPointer(row), .f32)
      } else {
        row.update(repeating: 0)
      }
      let start = index / panel * products * channels * panel + index % panel
      transformSquares(
        taps, count: channels, side: 3, by: transform,
        into: target.assumingMemoryBound(to: Float.self) + start, spacing: panel)
    }
  }
}
