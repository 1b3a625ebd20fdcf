import Base
import IR
import Tensors

/// Convolutions and pooling over three spatial axes, made of those over two.
enum ONNXVolume {
  /// Attributes of a window over three axes.
  private struct Window {
    var kernel, strides, dilations: [Int]
    /// Before and after each axis.
    var pads: [Int]

    init(_ node: inout ONNXNode, kernel: [Int], shape: Shape) throws {
      func list(_ name: String) throws -> [Int] {
        let values = try node.integers(name) ?? [1, 1, 1]
        guard values.count == 3, values.allSatisfy({ (1...1 << 16).contains($0) }) else {
          throw CompileError(.input, "'\(node.type)' has the \(name) \(values)")
        }
        return values
      }
      self.kernel = kernel
      strides = try list("strides")
      dilations = try list("dilations")
      pads = try node.integers("pads") ?? Array(repeating: 0, count: 6)
      guard pads.count == 6, pads.allSatisfy({ (0...1 << 16).contains($0) }) else {
        throw CompileError(.unsupported, "unsupported '\(node.type)' with the pads \(pads)")
      }
      let mode = try node.string("auto_pad", default: "NOTSET")
      if mode == "VALID" { pads = Array(repeating: 0, count: 6) }
      guard mode == "NOTSET" || mode == "VALID" || mode == "SAME_UPPER" || mode == "SAME_LOWER" else {
        throw CompileError(.input, "'\(node.type)' has the auto_pad '\(mode)'")
      }
      for axis in 0..<3 {
        guard mode.hasPrefix("SAME") else { break }
        guard let size = shape[axis + 2].fixedValue else {
          throw CompileError(
            .unsupported, "unsupported '\(node.type)' with auto_pad over a size known only at run time")
        }
        (pads[axis], pads[axis + 3]) = Window2D.same(
          size, stride: strides[axis], extent: dilations[axis] * (kernel[axis] - 1) + 1, mode)
      }
    }

    /// Padding over height and width: top, left, bottom, right.
    var plane: [Int] { [pads[1], pads[2], pads[4], pads[5]] }
  }

  /// A convolution: the planes under the window's depth become channels of an image for each place along it.
  static func convolution(_ node: inout ONNXNode, _ importer: inout ONNXImporter) throws -> ValueID {
    var x = try node.input(0, &importer)
    let w = try node.input(1, &importer)
    let shape = importer.builder.type(of: x).shape
    guard let weight = importer.builder.type(of: w).shape.fixedSizes, weight.count == 5,
      weight.allSatisfy({ (1...1 << 20).contains($0) })
    else {
      throw CompileError(
        .unsupported, "unsupported 'Conv' over shape \(shape) with weights of \(importer.builder.type(of: w))")
    }
    node.ignore("kernel_shape")
    let window = try Window(&node, kernel: Array(weight[2...]), shape: shape)
    if window.pads[0] + window.pads[3] > 0 {
      let pad = Pad(before: [0, 0, window.pads[0], 0, 0], after: [0, 0, window.pads[3], 0, 0])
      x = try importer.builder.emit(pad, x)
    }
    let depth = importer.builder.type(of: x).shape[2]
    let room = depth - .fixed(window.dilations[0] * (weight[2] - 1) + 1)
    guard room.bounds.lowerBound >= 0, weight[2] <= 64 else {
      throw CompileError(.unsupported, "unsupported 'Conv' with a window of \(weight[2]) over a depth of \(depth)")
    }
    let places = room / window.strides[0] + 1
    let taps = try (0..<weight[2]).map { tap -> ValueID in
      let part = try importer.builder.emit(
        Slice(axis: 2, start: .fixed(tap * window.dilations[0]), size: places, step: window.strides[0]), x)
      return try importer.builder.emit(Reshape([shape[0], shape[1], 1, places, shape[3], shape[4]]), part)
    }
    let stacked = taps.count == 1 ? taps[0] : try importer.builder.emit(Concat(axis: 2), taps)
    let turned = try importer.builder.emit(Transpose([0, 3, 1, 2, 4, 5]), stacked)
    guard let images = Dim.product(shape[0], places) else {
      throw CompileError(.unsupported, "unsupported 'Conv' over shape \(shape)")
    }
    let image = try importer.builder.emit(
      Reshape([images, shape[1] * weight[2], shape[3], shape[4]]), turned)
    let flat = try importer.builder.emit(
      Reshape([weight[0], weight[1] * weight[2], weight[3], weight[4]].map { .fixed($0) }), w)
    var epilogue = Epilogue()
    let bias = try node.optionalInput(2, &importer)
    epilogue.bias = bias != nil
    let conv = Conv2D(
      strides: Array(window.strides[1...]), padding: window.plane, dilations: Array(window.dilations[1...]),
      groups: try node.integer("group", default: 1), epilogue: epilogue)
    let y = try importer.builder.emit(conv, [image, flat] + (bias.map { [$0] } ?? []))
    let size = importer.builder.type(of: y).shape
    let apart = try importer.builder.emit(Reshape([shape[0], places, size[1], size[2], size[3]]), y)
    return try importer.builder.emit(Transpose([0, 2, 1, 3, 4]), apart)
  }

  /// The largest numbers, or the means where padding counts or there is none: first over planes, then over depth.
  static func pool(_ node: inout ONNXNode, _ importer: inout ONNXImporter, isMaximum: Bool) throws -> ValueID {
    let x = try node.input(0, &importer)
    let shape = importer.builder.type(of: x).shape
    guard let kernel = try node.integers("kernel_shape"), kernel.count == 3,
      kernel.allSatisfy({ (1...1 << 16).contains($0) })
    else { throw CompileError(.input, "'\(node.type)' has no kernel_shape of three numbers") }
    let counts = isMaximum ? true : try node.integer("count_include_pad", default: 0) != 0
    let window = try Window(&node, kernel: kernel, shape: shape)
    guard try node.integer("ceil_mode", default: 0) == 0, counts || window.pads.allSatisfy({ $0 == 0 }),
      isMaximum || window.dilations == [1, 1, 1], let planes = Dim.product(shape[0], shape[1])
    else { throw CompileError(.unsupported, "unsupported '\(node.type)' over shape \(shape)") }
    func pooled(_ x: ValueID, _ axes: [Int], _ padding: [Int]) throws -> ValueID {
      let (taps, strides) = (axes.map { $0 < 0 ? 1 : window.kernel[$0] }, axes.map { $0 < 0 ? 1 : window.strides[$0] })
      let op: any Operator =
        isMaximum
        ? MaxPool2D(
          kernel: taps, strides: strides, padding: padding,
          dilations: axes.map { $0 < 0 ? 1 : window.dilations[$0] })
        : AveragePool2D(kernel: taps, strides: strides, padding: padding, countIncludePad: true)
      return try importer.builder.emit(op, x)
    }
    let images = try importer.builder.emit(Reshape([planes, shape[2], shape[3], shape[4]]), x)
    let flat = try pooled(images, [1, 2], window.plane)
    let size = importer.builder.type(of: flat).shape
    guard let pixels = Dim.product(size[2], size[3]) else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' over shape \(shape)")
    }
    let lines = try importer.builder.emit(Reshape([planes, 1, shape[2], pixels]), flat)
    let deep = try pooled(lines, [0, -1], [window.pads[0], 0, window.pads[3], 0])
    let depth = importer.builder.type(of: deep).shape[2]
    return try importer.builder.emit(Reshape([shape[0], shape[1], depth, size[2], size[3]]), deep)
  }

  /// Pooling over a line, as an image of one line.
  static func line(
    _ node: inout ONNXNode, _ importer: inout ONNXImporter,
    _ build: (inout ONNXNode, ValueID, inout ONNXImporter) throws -> ValueID
  ) throws -> ValueID {
    let x = try node.input(0, &importer)
    let shape = importer.builder.type(of: x).shape
    let image = try importer.builder.emit(Reshape([shape[0], shape[1], 1, shape[2]]), x)
    let y = try build(&node, image, &importer)
    let size = importer.builder.type(of: y).shape
    return try importer.builder.emit(Reshape([size[0], size[1], size[3]]), y)
  }
}
