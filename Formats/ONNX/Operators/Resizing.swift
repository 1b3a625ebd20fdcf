import Base
import IR
import Tensors

extension ONNXOperators {
  /// Images of another size.
  static let resizing: [ONNXOperator] = [
    ONNXOperator("Upsample") { node, importer in [try enlarged(&node, &importer)] },
    ONNXOperator("Resize") { node, importer in
      if importer.opset < 11 { return [try enlarged(&node, &importer)] }
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      let mode = try node.string("mode", default: "nearest")
      let coordinates = try node.string("coordinate_transformation_mode", default: "half_pixel")
      let rounding = try node.string("nearest_mode", default: "round_prefer_floor")
      node.ignore("cubic_coeff_a", "extrapolation_value", "exclude_outside")
      guard let mode = Resize2D.Mode(rawValue: mode) else {
        throw CompileError(.unsupported, "unsupported 'Resize' of mode '\(mode)'")
      }
      guard let coordinates = Resize2D.Coordinates(rawValue: coordinates) else {
        throw CompileError(.unsupported, "unsupported 'Resize' with coordinates '\(coordinates)'")
      }
      let roundings: [String: Resize2D.Rounding] = [
        "round_prefer_floor": .preferFloor, "round_prefer_ceil": .preferCeil, "floor": .floor, "ceil": .ceil,
      ]
      guard let rounding = roundings[rounding] else {
        throw CompileError(.input, "'Resize' has the nearest_mode '\(rounding)'")
      }
      guard try node.integer("antialias", default: 0) == 0, !node.has("keep_aspect_ratio_policy") else {
        throw CompileError(.unsupported, "unsupported 'Resize' with antialias or keep_aspect_ratio_policy")
      }
      guard shape.rank == 4, let height = shape[2].fixedValue, let width = shape[3].fixedValue else {
        throw CompileError(.unsupported, "unsupported 'Resize' of an input of shape \(shape)")
      }
      let axes = (try node.integers("axes") ?? [0, 1, 2, 3]).map { $0 < 0 ? $0 + 4 : $0 }
      /// What is said of each axis, in the order of the image.
      func perAxis<T>(_ values: [T], otherwise: (Int) -> T) throws -> [T] {
        guard values.count == axes.count, Set(axes).count == axes.count, axes.allSatisfy((0..<4).contains) else {
          throw CompileError(.input, "'Resize' says \(values.count) sizes of \(axes.count) axes")
        }
        return (0..<4).map { axis in axes.firstIndex(of: axis).map { values[$0] } ?? otherwise(axis) }
      }
      var scales: [Float] = []
      var sizes: [Int] = []
      if let given = try node.integerInput(3, &importer), !given.isEmpty {
        // An axis that keeps its size need not have a known one.
        let all = try perAxis(given) { shape[$0].fixedValue ?? -1 }
        guard (0..<2).allSatisfy({ all[$0] == shape[$0].fixedValue ?? -1 }) else {
          throw CompileError(.unsupported, "unsupported 'Resize' of batch or channels, to \(given)")
        }
        sizes = Array(all[2...])
        scales = [Float(sizes[0]) / Float(height), Float(sizes[1]) / Float(width)]
      } else {
        guard let value = try node.optionalInput(2, &importer), let given = importer.floats(of: value) else {
          throw CompileError(.unsupported, "unsupported 'Resize' with scales that are computed at run time")
        }
        let all = try perAxis(given) { _ in 1 }
        guard all[0] == 1, all[1] == 1, all[2...].allSatisfy({ $0 > 0 && $0 <= 65536 }) else {
          throw CompileError(.unsupported, "unsupported 'Resize' with the scales \(given)")
        }
        scales = Array(all[2...])
        // Between which pixels the last one of the result stands, differs among implementations.
        let isWhole = zip([height, width], scales).allSatisfy { Float($0) * $1 == (Float($0) * $1).rounded() }
        guard coordinates != .alignCorners || isWhole else {
          throw CompileError(.unsupported, "unsupported 'Resize' with aligned corners to parts of pixels")
        }
        sizes = [Int((Float(height) * scales[0]).rounded(.down)), Int((Float(width) * scales[1]).rounded(.down))]
      }
      guard sizes.allSatisfy({ $0 > 0 }) else {
        throw CompileError(.input, "'Resize' gives an image of \(sizes[0]) x \(sizes[1])")
      }
      let op = Resize2D(
        height: sizes[0], width: sizes[1], scales: scales, mode: mode, coordinates: coordinates, rounding: rounding)
      return [try importer.builder.emit(op, x)]
    },
  ]

  /// Before operator set 11: place i of the result stands at i / scale, and the nearest pixel is the one before.
  private static func enlarged(_ node: inout ONNXNode, _ importer: inout ONNXImporter) throws -> ValueID {
    let x = try node.input(0, &importer)
    let shape = importer.builder.type(of: x).shape
    let name = try node.string("mode", default: "nearest")
    let scales =
      importer.opset < 9
      ? try node.numbers("scales") : try node.optionalInput(1, &importer).flatMap { importer.floats(of: $0) }
    guard let mode = Resize2D.Mode(rawValue: name == "bilinear" ? "linear" : name), let scales, scales.count == 4,
      shape.rank == 4, let height = shape[2].fixedValue, let width = shape[3].fixedValue, scales[..<2] == [1, 1],
      scales.allSatisfy({ $0 > 0 && $0 <= 65536 })
    else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' of mode '\(name)' of shape \(shape)")
    }
    let sizes = zip([height, width], scales[2...]).map { Int((Float($0) * $1).rounded(.down)) }
    guard sizes.allSatisfy({ $0 > 0 }) else {
      throw CompileError(.input, "'\(node.type)' gives an image of \(sizes[0]) x \(sizes[1])")
    }
    let op = Resize2D(
      height: sizes[0], width: sizes[1], scales: Array(scales[2...]), mode: mode, coordinates: .asymmetric,
      rounding: .floor)
    return try importer.builder.emit(op, x)
  }
}

extension ONNXImporter {
  /// The numbers of an f32 constant in the file; nil if the value is not known on import.
  func floats(of value: ValueID) -> [Float]? {
    guard let id = builder.graph.constant(of: value) else { return nil }
    let constant = builder.constants[id]
    guard constant.type.element == .f32, case .inline(let bytes) = constant.source else { return nil }
    return bytes.withUnsafeBytes { raw in
      (0..<constant.type.maximumCount).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    }
  }
}
