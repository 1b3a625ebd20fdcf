import Base
import IR
import Tensors

/// The weights of a convolution on bytes in the order of its kernel, with what its sums need to become results.
package struct QuantizedConvLayout: Hashable, Sendable {
  /// The name of the packed layout.
  package static let name = "conv_w8"

  package var order: QuantizedConvOrder
  var numbers: RequantizationNumbers

  /// The weights of an operator in an order.
  package init(_ order: QuantizedConvOrder, _ op: QuantizedConv2D) {
    self.order = order
    numbers = RequantizationNumbers(op)
  }

  /// The layout as an encoding of tensor types. With several groups a group counts as one panel.
  package var packed: PackedLayout {
    let isOne = order.groups == 1
    return PackedLayout(
      name: Self.name, rows: isOne ? order.panel : order.rows / order.groups,
      panelBytes: isOne ? order.panelBytes : order.panelsPerGroup * order.panelBytes,
      parameters: [
        order.rows, order.groups, order.channels, order.kernel[0], order.kernel[1], order.merged ? 1 : 0,
        order.isDepthwise ? 1 : 0, order.panel,
      ] + numbers.parameters)
  }

  /// The panels that a packed layout describes; nil if it is of another kind.
  package init?(_ layout: PackedLayout) {
    let sizes = layout.parameters.prefix(8)
    guard layout.name == Self.name, sizes.count == 8,
      (sizes[0...4] + [sizes[7]]).allSatisfy({ 1...(1 << 24) ~= $0 }), sizes[5...6].allSatisfy({ 0...1 ~= $0 }),
      sizes[0] % sizes[1] == 0, let numbers = RequantizationNumbers(parameters: layout.parameters.dropFirst(8))
    else { return nil }
    order = QuantizedConvOrder(
      rows: sizes[0], groups: sizes[1], channels: sizes[2], kernel: [sizes[3], sizes[4]], merged: sizes[5] == 1,
      isDepthwise: sizes[6] == 1, panel: sizes[7])
    self.numbers = numbers
    guard packed == layout else { return nil }
  }

  /// Fills whole panels (groups, where there are several) from consecutive rows of 8-bit codes with a scale, the first of which
  /// begins one.
  func pack(_ view: TensorView, into bytes: UnsafeMutableRawBufferPointer) throws {
    guard view.type.encoding == .block(.w8c), view.sizes.count == 2, view.sizes[1] == order.depth else {
      throw CompileError(.internal, "cannot pack \(view.type) into panels of a convolution of depth \(order.depth)")
    }
    let count = view.sizes[0], panel = order.panel, panelBytes = order.panelBytes
    let perGroup = order.groups == 1 ? count : order.rows / order.groups
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
        for (index, word) in numbers.words.enumerated() {
          target.storeBytes(of: word, toByteOffset: 4 * (2 * panel + index), as: UInt32.self)
        }
        for slot in 0..<panel where number * panel + slot < perGroup {
          let row = group * perGroup + number * panel + slot
          if row < count { packRow(view, row, slot: slot, into: target) }
        }
      }
    }
  }

  private func packRow(_ view: TensorView, _ row: Int, slot: Int, into target: UnsafeMutableRawBufferPointer) {
    let source = row * (4 + order.depth)
    let scale = view.bytes.loadUnaligned(fromByteOffset: source, as: Float.self)
    target.storeBytes(of: scale * numbers.scale, toByteOffset: 4 * slot, as: Float.self)
    let taps = order.kernel[0] * order.kernel[1]
    var sum: Int32 = 0
    for channel in 0..<order.channels {
      for tap in 0..<taps {
        let code = Int8(bitPattern: view.bytes[source + 4 + channel * taps + tap])
        sum += Int32(code)
        let place = order.place(channel: channel, tap: tap, slot: slot)
        if order.isDepthwise {
          target.storeBytes(of: Float(code), toByteOffset: place, as: Float.self)
        } else {
          target[place] = UInt8(bitPattern: code)
        }
      }
    }
    let start = -sum * Int32(numbers.inputZero)
    target.storeBytes(
      of: order.isDepthwise ? Float(start).bitPattern : UInt32(bitPattern: start),
      toByteOffset: 4 * (order.panel + slot), as: UInt32.self)
  }
}
