import Base
import Tensors

/// The order of the axes of an image: channels before or after the pixels.
package enum ImageLayout: String, Hashable, Codable, Sendable {
  /// `[N, C, H, W]`.
  case first
  /// `[N, H, W, C]`.
  case last

  /// The sizes of a shape of rank 4 as batch, channels, height, width.
  package func split(_ shape: Shape) -> (batch: Dim, channels: Dim, height: Dim, width: Dim) {
    self == .first ? (shape[0], shape[1], shape[2], shape[3]) : (shape[0], shape[3], shape[1], shape[2])
  }

  /// The shape with the given sizes.
  package func shape(batch: Dim, channels: Dim, height: Dim, width: Dim) -> Shape {
    self == .first ? [batch, channels, height, width] : [batch, height, width, channels]
  }
}

extension Operator {
  /// The number of places a window of `kernel` taps takes along an axis:
  /// `floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1`.
  func windowCount(
    _ size: Dim, kernel: Int, stride: Int, dilation: Int, before: Int, after: Int, _ axis: String
  ) throws -> Dim {
    let extent = dilation * (kernel - 1) + 1
    let room = size + .fixed(before + after - extent)
    // A graph is compiled for every size in the range of its symbols.
    guard room.bounds.lowerBound >= 0 else {
      throw failure("a window of \(extent) does not fit into padded \(axis) \(size + .fixed(before + after))")
    }
    return room / stride + 1
  }
}
