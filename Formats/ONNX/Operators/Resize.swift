import Base
import IR
import Tensors

extension ONNXOperators {
  /// Images in other sizes.
  static let resizing: [ONNXOperator] = [
    ONNXOperator("Resize") { node, importer in
      node.ignore("cubic_coeff_a", "extrapolation_value", "exclude_outside")
      guard importer.opset >= 11 else {
        throw CompileError(.unsupported, "unsupported 'Resize' of operator set \(importer.opset)")
      }
      guard try node.integer("antialias", default: 0) == 0, try node.integers("axes") == nil,
        try node.string("keep_aspect_ratio_policy", default: "stretch") == "stretch"
      else { throw CompileError(.unsupported, "unsupported 'Resize' with antialias, axes or an aspect ratio") }
      let x = try node.input(0, &importer)
      let mode = try node.string("mode", default: "nearest")
      let transform = try node.string("coordinate_transformation_mode", default: "half_pixel")
      let nearest = try node.string("nearest_mode", default: "round_prefer_floor")
      guard let sizes = importer.builder.type(of: x).shape.fixedSizes, mode == "nearest" || mode == "linear" else {
        throw CompileError(
          .unsupported, "unsupported 'Resize' in mode '\(mode)' of shape \(importer.builder.type(of: x).shape)")
      }
      let (targets, scales) = try resizedSizes(node, sizes, &importer)
      var y = x
      for axis in sizes.indices where targets[axis] != sizes[axis] || scales[axis] != 1 {
        let places = try Coordinates(
          transform, size: sizes[axis], target: targets[axis], scale: scales[axis])
        if mode == "nearest" {
          y = try importer.pick(y, axis: axis, try places.nearest(nearest))
        } else {
          y = try importer.blend(y, axis: axis, places.neighbours)
        }
      }
      return [y]
    },
    ONNXOperator("Upsample") { node, importer in
      let x = try node.input(0, &importer)
      guard try node.string("mode", default: "nearest") == "nearest",
        let sizes = importer.builder.type(of: x).shape.fixedSizes,
        let scales = try node.optionalInput(1, &importer).flatMap({ try importer.numbers(of: $0) }),
        scales.count == sizes.count
      else { throw CompileError(.unsupported, "unsupported 'Upsample' that is not of known nearest pixels") }
      var y = x
      for (axis, scale) in scales.enumerated() where scale != 1 {
        let target = try resized(sizes[axis], by: scale)
        let places = try Coordinates("asymmetric", size: sizes[axis], target: target, scale: scale)
        y = try importer.pick(y, axis: axis, try places.nearest("floor"))
      }
      return [y]
    },
  ]

  private static func resized(_ size: Int, by scale: Double) throws -> Int {
    let target = (Double(size) * scale).rounded(.down)
    guard scale > 0, target >= 1, target <= 0x1p24 else {
      throw CompileError(.input, "'Resize' of \(size) elements by \(scale)")
    }
    return Int(target)
  }

  /// The sizes of the result, and the scales, one for each axis.
  private static func resizedSizes(
    _ node: ONNXNode, _ sizes: [Int], _ importer: inout ONNXImporter
  ) throws -> (targets: [Int], scales: [Double]) {
    if let given = try node.integerInput(3, &importer), !given.isEmpty {
      guard given.count == sizes.count, given.allSatisfy({ (1...1 << 24).contains($0) }),
        sizes.allSatisfy({ $0 > 0 })
      else { throw CompileError(.input, "'Resize' of \(sizes) to \(given)") }
      return (given, zip(given, sizes).map { Double($0) / Double($1) })
    }
    guard let value = try node.optionalInput(2, &importer), let scales = try importer.numbers(of: value),
      scales.count == sizes.count
    else { throw CompileError(.unsupported, "unsupported 'Resize' without known sizes or scales") }
    return (try zip(sizes, scales).map { try resized($0, by: $1) }, scales)
  }
}

/// Where the elements of a resized axis lie on the original one (ONNX `Resize`, `coordinate_transformation_mode`).
private struct Coordinates {
  let size: Int
  let places: [Double]

  init(_ transform: String, size: Int, target: Int, scale: Double) throws {
    self.size = size
    let place: (Double) -> Double
    switch transform {
    case "half_pixel": place = { ($0 + 0.5) / scale - 0.5 }
    case "pytorch_half_pixel": place = { target > 1 ? ($0 + 0.5) / scale - 0.5 : 0 }
    case "asymmetric": place = { $0 / scale }
    case "align_corners": place = { target > 1 ? $0 * Double(size - 1) / Double(target - 1) : 0 }
    default: throw CompileError(.unsupported, "unsupported 'Resize' with the coordinates '\(transform)'")
    }
    places = (0..<target).map { place(Double($0)) }
  }

  /// The element that each one of the result is.
  func nearest(_ mode: String) throws -> [Int] {
    try places.map { place in
      let rounded: Double
      switch mode {
      case "round_prefer_floor": rounded = (place - 0.5).rounded(.up)
      case "round_prefer_ceil": rounded = (place + 0.5).rounded(.down)
      case "floor": rounded = place.rounded(.down)
      case "ceil": rounded = place.rounded(.up)
      default: throw CompileError(.unsupported, "unsupported 'Resize' rounding '\(mode)'")
      }
      return Int(min(max(rounded, 0), Double(size - 1)))
    }
  }

  /// The two elements that each one of the result lies between, and the weight of the second.
  var neighbours: [(low: Int, high: Int, weight: Float)] {
    places.map { place in
      let held = min(max(place, 0), Double(size - 1))
      let low = Int(held)
      return (low, min(low + 1, size - 1), Float(held - Double(low)))
    }
  }
}

extension ONNXImporter {
  /// The numbers of a constant list of f32; nil if they are not known on import.
  fileprivate func numbers(of value: ValueID) throws -> [Double]? {
    guard let id = builder.graph.constant(of: value) else { return nil }
    let constant = builder.constants[id]
    guard constant.type.element == .f32, case .inline(let bytes) = constant.source else { return nil }
    return bytes.withUnsafeBytes { raw in
      (0..<raw.count / 4).map { Double(raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self)) }
    }
  }

  /// The elements at `places` along an axis; each one repeated a whole number of times is a broadcast.
  fileprivate mutating func pick(_ x: ValueID, axis: Int, _ places: [Int]) throws -> ValueID {
    let dims = builder.type(of: x).shape.dims
    guard let size = dims[axis].fixedValue else { return x }
    if places == Array(0..<size) { return x }
    if places.count % size == 0, case let times = places.count / size,
      places.indices.allSatisfy({ places[$0] == $0 / times })
    {
      var apart = dims
      apart.insert(1, at: axis + 1)
      let split = try builder.emit(Reshape(apart), x)
      apart[axis + 1] = .fixed(times)
      var result = dims
      result[axis] = .fixed(places.count)
      return try builder.emit(Reshape(result), builder.emit(Expand(apart), split))
    }
    return try builder.emit(Gather(axis: axis), x, list(places.map(Int64.init), .i64))
  }

  /// Weighted means of two neighbours along an axis.
  fileprivate mutating func blend(
    _ x: ValueID, axis: Int, _ places: [(low: Int, high: Int, weight: Float)]
  ) throws -> ValueID {
    let low = try builder.emit(Gather(axis: axis), x, list(places.map { Int64($0.low) }, .i64))
    let high = try builder.emit(Gather(axis: axis), x, list(places.map { Int64($0.high) }, .i64))
    var dims = [Dim](repeating: 1, count: builder.type(of: x).rank)
    dims[axis] = .fixed(places.count)
    let weights = try builder.emit(Reshape(dims), list(places.map(\.weight), .f32))
    let step = try builder.emit(Multiply(), builder.emit(Subtract(), high, low), weights)
    return try builder.emit(Add(), low, step)
  }

  /// A constant list of any length, in pieces that are kept inline.
  private mutating func list<Number>(_ values: [Number], _ element: DType) throws -> ValueID {
    let pieces = stride(from: 0, to: values.count, by: Constant.inlineLimit).map { start in
      let part = Array(values[start..<min(values.count, start + Constant.inlineLimit)])
      return builder.constant(.inline("places", element, [part.count], part))
    }
    return pieces.count == 1 ? pieces[0] : try builder.emit(Concat(axis: 0), pieces)
  }
}
