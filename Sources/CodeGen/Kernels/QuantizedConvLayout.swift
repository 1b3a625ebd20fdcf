import Base
import IR
import Tensors

/// Where each weight of a convolution on bytes lies: panels of `panel` output channels of one group, each
///
///     f32 scale[panel], i32 sum of the codes[panel], i8 codes[steps][panel][4]
///
/// so that one step multiplies four neighbouring input bytes with all channels of the panel. Steps go along the bytes under a
/// line of the window where these are contiguous and no tap fills its steps (`merged`), else along the channels of each tap; what
/// is missing to four bytes is zero. Channels beyond the last of a group are zeros.
///
/// In depthwise panels, which have one step per tap, a code is one f32 number: `f32 codes[taps][panel]`.
package struct QuantizedConvLayout: Hashable, Sendable {
  /// The name of the packed layout.
  package static let name = "conv_w8"

  /// Output channels, and groups of them.
  package var rows: Int
  package var groups: Int
  /// Input channels of a group, and the window.
  package var channels: Int
  package var kernel: [Int]
  /// Whether the taps of a line of the window follow one another without gaps.
  package var merged: Bool
  package var isDepthwise: Bool
  /// Output channels of a panel.
  package var panel: Int

  package init(
    rows: Int, groups: Int, channels: Int, kernel: [Int], merged: Bool, isDepthwise: Bool = false, panel: Int
  ) {
    self.rows = rows
    self.groups = groups
    self.channels = channels
    self.kernel = kernel
    self.merged = merged
    self.isDepthwise = isDepthwise
    self.panel = panel
  }

  /// Input bytes that one output channel sees.
  var depth: Int { channels * kernel[0] * kernel[1] }
  /// Runs of bytes that begin a new step: lines of the window, or taps.
  var runs: Int { merged ? kernel[0] : kernel[0] * kernel[1] }
  /// Bytes of a run, and its steps.
  var runBytes: Int { merged ? kernel[1] * channels : channels }
  var runSteps: Int { (runBytes + 3) / 4 }
  /// Bytes before the codes.
  var headerBytes: Int { 8 * panel }
  var panelBytes: Int { headerBytes + 4 * panel * (isDepthwise ? depth : runs * runSteps) }
  var panelsPerGroup: Int { (rows / groups + panel - 1) / panel }

  /// The layout as an encoding of tensor types. With several groups a group counts as one panel.
  package var packed: PackedLayout {
    PackedLayout(
      name: Self.name, rows: groups == 1 ? panel : rows / groups,
      panelBytes: groups == 1 ? panelBytes : panelsPerGroup * panelBytes,
      parameters: [rows, groups, channels, kernel[0], kernel[1], merged ? 1 : 0, isDepthwise ? 1 : 0, panel])
  }

  /// The panels that a packed layout describes; nil if it is of another kind.
  package init?(_ layout: PackedLayout) {
    let numbers = layout.parameters
    guard layout.name == Self.name, numbers.count == 8,
      (numbers[0...4] + [numbers[7]]).allSatisfy({ 1...(1 << 24) ~= $0 }),
      numbers[5...6].allSatisfy({ 0...1 ~= $0 }), numbers[0] % numbers[1] == 0
    else { return nil }
    self.init(
      rows: numbers[0], groups: numbers[1], channels: numbers[2], kernel: [numbers[3], numbers[4]],
      merged: numbers[5] == 1, isDepthwise: numbers[6] == 1, panel: numbers[7])
    guard packed == layout else { return nil }
  }

  /// Fills whole panels (groups, where there are several) from consecutive rows of 8-bit codes with a scale, the first of which
  /// begins one.
  func pack(_ view: TensorView, into bytes: UnsafeMutableRawBufferPointer) throws {
    guard view.type.encoding == .block(.w8c), view.sizes.count == 2, view.sizes[1] == depth else {
      throw CompileError(.internal, "cannot pack \(view.type) into panels of a convolution of depth \(depth)")
    }
    let count = view.sizes[0]
    let perGroup = groups == 1 ? count : rows / groups
    let groupCount = perGroup == 0 ? 0 : (count + perGroup - 1) / perGroup
    let panels = (perGroup + panel - 1) / panel
    guard bytes.count >= groupCount * panels * panelBytes else {
      throw CompileError(.internal, "\(bytes.count) bytes for \(groupCount * panels) panels of \(panelBytes) bytes")
    }
    for group in 0..<groupCount {
      for number in 0..<panels {
        let start = (group * panels + number) * panelBytes
        let target = UnsafeMutableRawBufferPointer(rebasing: bytes[start..<(start + panelBytes)])
        target.initializeMemory(as: UInt8.self, repeating: 0)
        for slot in 0..<panel where number * panel + slot < perGroup {
          let row = group * perGroup + number * panel + slot
          if row < count { packRow(view, row, slot: slot, into: target) }
        }
      }
    }
  }

  private func packRow(_ view: TensorView, _ row: Int, slot: Int, into target: UnsafeMutableRawBufferPointer) {
    let source = row * (4 + depth)
    target.storeBytes(
      of: view.bytes.loadUnaligned(fromByteOffset: source, as: UInt32.self), toByteOffset: 4 * slot, as: UInt32.self)
    let taps = kernel[0] * kernel[1]
    var sum: Int32 = 0
    for channel in 0..<channels {
      for tap in 0..<taps {
        let code = Int8(bitPattern: view.bytes[source + 4 + channel * taps + tap])
        sum += Int32(code)
        if isDepthwise {
          let place = headerBytes + 4 * (tap * panel + slot)
          target.storeBytes(of: Float(code), toByteOffset: place, as: Float.self)
          continue
        }
        let (run, byte) =
          merged ? (tap / kernel[1], tap % kernel[1] * channels + channel) : (tap, channel)
        let step = run * runSteps + byte / 4
        target[headerBytes + 4 * (step * panel + slot) + byte % 4] = UInt8(bitPattern: code)
      }
    }
    target.storeBytes(of: sum, toByteOffset: 4 * (panel + slot), as: Int32.self)
  }
}
