import IR
import Tensors

extension GraphBuilder {
  /// The elements at given places of an axis, of which there is one at least; runs of neighbours are slices.
  mutating func taking(_ x: ValueID, _ places: [Int], axis: Int) throws -> ValueID {
    var parts: [ValueID] = []
    var index = 0
    while index < places.count {
      var end = index + 1
      while end < places.count, places[end] == places[end - 1] + 1 { end += 1 }
      parts.append(try emit(Slice(axis: axis, start: .fixed(places[index]), size: .fixed(end - index)), x))
      index = end
    }
    return parts.count == 1 ? parts[0] : try emit(Concat(axis: axis), parts)
  }

  /// The places along one axis of a tensor of `rank` axes, 0, 1 and so on in i64, with the size 1 along the others.
  mutating func places(_ size: Dim, axis: Int, rank: Int) throws -> ValueID {
    var dims = [Dim](repeating: 1, count: rank)
    dims[axis] = size
    return try emit(Reshape(dims), emit(Iota(size), []))
  }
}
