import IR

/// The order of the weights of a convolution on bytes: panels of `panel` output channels of one group, each
///
///     f32 factor[panel], i32 start[panel], numbers of the layer, i8 codes[steps][panel][4]
///
/// with the factors of the sums, what these begin with because of the zero point of the input, and the
/// ``RequantizationNumbers``, filled up to whole panels of words. One step multiplies four neighbouring input bytes with all
/// channels of the panel. Steps go along the bytes under a line of the window where these are contiguous and no tap fills its
/// steps (`merged`), else along the channels of each tap; what is missing to four bytes is zero. Channels beyond the last of a
/// group are zeros.
///
/// In depthwise panels, which have one step per tap, starts and codes are f32 numbers: `f32 codes[taps][panel]`.
package struct QuantizedConvOrder: Hashable, Sendable {
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
  /// Steps of a run of bytes.
  var runSteps: Int { ((merged ? kernel[1] * channels : channels) + 3) / 4 }
  /// Words of 4 bytes before the codes.
  var headerWords: Int { 2 * panel + RequantizationNumbers.Name.allCases.count.aligned(to: panel) }
  package var panelBytes: Int { 4 * (headerWords + panel * (isDepthwise ? depth : runs * runSteps)) }
  var panelsPerGroup: Int { (rows / groups + panel - 1) / panel }

  /// A panel of the weights `w` from its channel `first` on, in a kernel that is being built: it begins with the factors.
  func panel(_ number: Expression, of w: Pointer, first: Expression = 0, in k: KernelBuilder) -> Pointer {
    k.pointer("factors", w, offset: number * .integer(panelBytes) + first * 4, as: .f32)
  }

  /// The numbers of the layer in a panel that begins at `factors`, from channel `first` on.
  func numbers(behind factors: Pointer, first: Expression = 0, in k: KernelBuilder) -> Pointer {
    k.pointer("numbers", factors, offset: .integer(2 * panel) - first)
  }

  /// Where the code of a channel and a tap lies in a panel, in bytes, for the channel of the result number `slot`.
  func place(channel: Int, tap: Int, slot: Int) -> Int {
    if isDepthwise { return 4 * (headerWords + tap * panel + slot) }
    let (run, byte) = merged ? (tap / kernel[1], tap % kernel[1] * channels + channel) : (tap, channel)
    return 4 * (headerWords + (run * runSteps + byte / 4) * panel + slot) + byte % 4
  }
}
